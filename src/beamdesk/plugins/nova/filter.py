"""The host filter. In nova.conf, last in the list of ``enabled_filters``: it decides over what the others let pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nova.scheduler import filters, utils

from beamdesk.plugins.nova.runtime import keep_candidates, runtime
from beamdesk.plugins.nova.seen import HostState


class BeamdeskFilter(filters.BaseHostFilter):  # type: ignore[misc]  # nova is not there when this is checked
    """Lets pass the hosts that Beamdesk's core would take."""

    RUN_ON_REBUILD = False

    def __init__(self) -> None:
        super().__init__()
        runtime()

    def filter_all(self, filter_obj_list: Iterable[HostState], spec_obj: Any) -> list[HostState]:
        """Return the hosts that can take the request; all of them for a rebuild, which stays where it is."""
        states = list(filter_obj_list)
        if not states or utils.request_is_rebuild(spec_obj):
            return states
        verdict = runtime().decide(states, spec_obj)
        return [] if verdict is None else keep_candidates(states, verdict)
