"""What filter and weigher share in a nova-scheduler: options from nova.conf, the engine, and the verdict of the request in hand.

Imports oslo.config, and through it nothing of nova.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import fields
from functools import cache
from typing import Any

from oslo_config import cfg

from beamdesk.plugins.nova.asked import read
from beamdesk.plugins.nova.engine import ANY, Engine, Verdict
from beamdesk.plugins.nova.fetch import Fetcher, Nothing
from beamdesk.plugins.nova.journal import Journal
from beamdesk.plugins.nova.options import Fallback, Options
from beamdesk.plugins.nova.seen import HostState, look, offers
from beamdesk.scheduling.errors import SchedulingError
from beamdesk.scheduling.policy import POLICIES

GROUP = "beamdesk"
_D = Options()
OPTS = [
    cfg.StrOpt("api_url", default=_D.api_url, help="Beamdesk's API: https://HOST[:PORT]. Empty = no records, fallback only."),
    cfg.StrOpt("credential_file", default=_D.credential_file, help="File with the credential for the API, one line, mode 0640."),
    cfg.StrOpt("ca_file", default=_D.ca_file, help="Certificates that vouch for the API. Empty = those of the system."),
    cfg.FloatOpt("interval", default=_D.interval, min=0.2, help="Seconds between two looks at the API, plus or minus a fifth."),
    cfg.FloatOpt("timeout", default=_D.timeout, min=0.1, help="Seconds until an answer of the API is given up."),
    cfg.FloatOpt("first_wait", default=_D.first_wait, min=0, help="Seconds that the first request waits for the first snapshot."),
    cfg.FloatOpt("stale_after", default=_D.stale_after, min=1, help="Seconds without word from the API until the fallback."),
    cfg.StrOpt(
        "gpu_fallback",
        default=str(_D.gpu_fallback),
        choices=[
            (str(Fallback.REFUSE), "GPU desktops find no host until the API is back"),
            (str(Fallback.COUNT), "cards that Nova holds for free are counted, by what was last known of them"),
        ],
        help="What happens to GPU desktops without fresh records. CPU desktops are placed by Nova's own data either way.",
    ),
    cfg.StrOpt("policy", default=_D.policy, choices=["", *POLICIES], help="Policy. Empty = the one that the snapshot names."),
    cfg.ListOpt("gpu_aliases", default=[], help="PCI aliases that give cards. Empty = all aliases of flavors do."),
    cfg.ListOpt("gpu_vendors", default=sorted(_D.gpu_vendors), help="PCI vendor ids of GPUs, for hosts without records."),
    cfg.FloatOpt(
        "settle", default=_D.settle, min=0, help="Seconds after Nova freed a card until records are believed that call it free."
    ),
    cfg.FloatOpt("weight_multiplier", default=_D.weight_multiplier, min=0, help="Multiplier of the weigher."),
    cfg.StrOpt("journal", default=_D.journal, help="File that keeps the latest decisions, as JSON lines. Empty = none."),
    cfg.IntOpt("journal_bytes", default=_D.journal_bytes, min=65536, help="Size of both files of the journal together."),
]


def options(conf: Any) -> Options:
    """Register the section with oslo.config (twice is fine) and read it.

    Raises:
        InvalidOption: values that cannot work together.
    """
    conf.register_opts(OPTS, group=GROUP)
    values = {field.name: conf[GROUP][field.name] for field in fields(Options)}
    values["gpu_fallback"] = Fallback(values["gpu_fallback"])
    values["gpu_aliases"] = frozenset(values["gpu_aliases"])
    values["gpu_vendors"] = frozenset(one.lower() for one in values["gpu_vendors"])
    return Options(**values)


class Runtime:
    """Answers filter and weigher. The verdict of a thread's latest request is kept, so that the two never decide twice."""

    def __init__(self, options: Options) -> None:
        self.options = options
        source = Fetcher(options) if options.api_url else Nothing()
        self._engine = Engine(options, source, Journal(options.journal, options.journal_bytes))
        self._latest = threading.local()

    def decide(self, states: list[HostState], spec: Any) -> Verdict | None:
        """Decide for a RequestSpec; None when it contradicts itself, which is in the log then."""
        verdict = None
        try:
            asked = read(spec, self.options.gpu_aliases)
        except SchedulingError as error:
            self._engine.refuse(str(spec.instance_uuid), len(states), error.message)
        else:
            named = {state.host: offers(state) for state in states} if asked.devices else {}
            verdict = self._engine.judge(asked, [look(state) for state in states], named)
        self._latest.key, self._latest.verdict = (id(spec), spec.instance_uuid), verdict
        return verdict

    def weights(self, states: list[HostState], spec: Any) -> list[float]:
        """Return a weight for each host, the best highest; 0 for hosts that the core would not take."""
        latest = self._latest
        known = getattr(latest, "key", None) == (id(spec), spec.instance_uuid)
        verdict = latest.verdict if known else self.decide(states, spec)
        order = {} if verdict is None else {host: len(verdict.hosts) - rank for rank, host in enumerate(verdict.hosts)}
        return [float(order.get(state.host, 0)) for state in states]


@cache
def runtime() -> Runtime:
    """Return the process's runtime, made from nova.conf at first use."""
    from nova import conf  # late: `options` and `Runtime` are tested without nova

    return Runtime(options(conf.CONF))


def keep_candidates(states: Iterable[HostState], verdict: Verdict) -> list[HostState]:
    """Return the hosts that passed, with Placement's candidates in the order of the verdict."""
    passed = set(verdict.hosts)
    kept = []
    for state in states:
        if state.host not in passed:
            continue
        order = verdict.offers.get(state.host)
        if order is not None and order != ANY:
            state.allocation_candidates = [state.allocation_candidates[number] for number in order]
        kept.append(state)
    return kept
