"""The weigher. In nova.conf, alone: ``weight_classes = beamdesk.plugins.nova.weigher.BeamdeskWeigher``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nova.scheduler import weights

from beamdesk.plugins.nova.runtime import runtime


class BeamdeskWeigher(weights.BaseHostWeigher):  # type: ignore[misc]  # nova is not there when this is checked
    """Ranks all hosts in one call, in the order of Beamdesk's core. No two hosts weigh the same."""

    def weight_multiplier(self, _host_state: Any) -> float:
        """Return ``[beamdesk]weight_multiplier``."""
        return runtime().options.weight_multiplier

    def weigh_objects(self, weighed_obj_list: Iterable[Any], weight_properties: Any) -> list[float]:
        """Return the weights of all hosts."""
        return runtime().weights([one.obj for one in weighed_obj_list], weight_properties)

    def _weigh_object(self, _obj: Any, _weight_properties: Any) -> float:
        """Nova asks for this method to exist; `weigh_objects` does the work."""
        return 0.0
