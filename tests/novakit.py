"""A Nova without Nova: hosts whose attributes are those of HostState, requests like RequestSpec, and a site that both sides see."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from beamdesk.plugins.nova.fetch import Held, follow
from beamdesk.scheduling.cards import Card, CardState
from beamdesk.scheduling.claims import release
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.policy import make
from beamdesk.scheduling.reports import set_card_state
from beamdesk.scheduling.state import HostTable
from beamdesk.scheduling.wire import publish

MODELS = {"A100": (40960, 6912, 1555, 1410, "20b5"), "T4": (16384, 2560, 320, 1590, "1eb8")}


def card(number: int, model: str = "A100", **more: Any) -> Card:
    return Card(f"0000:{0x10 + number:02x}:00.0", model, *MODELS[model][:4], **more)


def host(name: str, cpus: int = 64, memory: int = 524288, cards: tuple[Card, ...] = (), **more: Any) -> HostFacts:
    return HostFacts(name, cpus * 1000, memory, 1000, cards, **more)


def flavor(vcpus: int = 4, memory: int = 8192, **specs: str) -> Any:
    return SimpleNamespace(
        vcpus=vcpus, memory_mb=memory, extra_specs={name.replace("__", ":"): value for name, value in specs.items()}
    )


def spec(number: int, chosen: Any, devices: int = 0, hints: dict[str, list[str]] | None = None, alias: str = "gpu") -> Any:
    requests = [SimpleNamespace(count=devices, alias_name=alias)] if devices else []
    return SimpleNamespace(
        instance_uuid=f"5b1b1f5e-0000-4000-8000-{number:012d}",
        flavor=chosen,
        scheduler_hints=hints or {},
        image=SimpleNamespace(id="imaging"),
        pci_requests=SimpleNamespace(requests=requests),
    )


@dataclass
class State:
    """What a plugin reads of a HostState."""

    host: str
    vcpus_total: int
    total_usable_ram_mb: int
    pools: list[dict[str, Any]]
    vcpus_used: int = 0
    ram_used: int = 0
    num_instances: int = 0
    instances: dict[str, Any] = field(default_factory=dict)
    updated: datetime | None = None
    cpu_allocation_ratio: float = 1.0
    ram_allocation_ratio: float = 1.0
    aggregates: tuple[Any, ...] = ()
    allocation_candidates: list[dict[str, Any]] = field(default_factory=list)

    @property
    def free_ram_mb(self) -> int:
        return self.total_usable_ram_mb - self.ram_used

    @property
    def pci_stats(self) -> Any:
        return SimpleNamespace(pools=self.pools)


def pool(address: str, model: str = "A100", count: int = 1) -> dict[str, Any]:
    return {"address": address, "vendor_id": "10de", "product_id": MODELS[model][4], "count": count, "rp_uuid": f"rp-{address}"}


class Site:
    """The core's own table, and the Nova that carries out what it says. `held` is the snapshot as the plugin would have it."""

    def __init__(self, hosts: list[HostFacts], policy: str = "beamdesk", *, in_placement: bool = True) -> None:
        self.table = HostTable(hosts)
        self.core = Scheduler(self.table, make(policy, self.table))
        self.in_placement = in_placement
        self.policy = policy
        self.states = {one.name: self._state(one) for one in hosts}
        self.running: dict[str, tuple[str, int, int, tuple[str, ...]]] = {}
        self.now = 1000.0
        self.publish()

    def _state(self, one: HostFacts) -> State:
        pools = [pool(each.address, each.model) for each in one.cards]
        if not self.in_placement:
            for each in pools:
                del each["rp_uuid"]
        return State(one.name, one.cpu_milli // 1000, one.memory_mib, pools)

    def publish(self) -> Held:
        before = getattr(self, "held", None)
        self.held = follow(before, publish(self.table, self.now, self.policy), self.now)
        return self.held

    def confirmed(self) -> Held:
        """Return the latest snapshot as a 304 confirms it: what it does not show yet, Nova's pools do."""
        return replace(self.held, asof=self.now)

    def offered(self, request: Any, *, limit: int = 1000) -> list[State]:
        """Return the hosts that Placement would offer, with its candidates."""
        wanted = sum(one.count for one in request.pci_requests.requests)
        result = []
        for state in self.states.values():
            free = [one for one in state.pools if one["count"]]
            room = state.vcpus_total - state.vcpus_used >= request.flavor.vcpus and state.free_ram_mb >= request.flavor.memory_mb
            if not room or len(free) < wanted:
                continue
            sets = itertools.islice(itertools.permutations([one.get("rp_uuid") for one in free], wanted), limit)
            state.allocation_candidates = [{"allocations": {state.host: {}, **{rp: {} for rp in chosen if rp}}} for chosen in sets]
            result.append(state)
        return result

    def build(self, request: Any, name: str, cards: tuple[str, ...]) -> None:
        """Have Nova carry a server out."""
        state = self.states[name]
        state.vcpus_used += request.flavor.vcpus
        state.ram_used += request.flavor.memory_mb
        state.num_instances += 1
        state.instances[request.instance_uuid] = None
        state.updated = datetime.fromtimestamp(self.now, UTC)
        state.pools = [one for one in state.pools if one["address"] not in cards]
        self.running[request.instance_uuid] = (name, request.flavor.vcpus, request.flavor.memory_mb, cards)

    def end(self, server: str, leave: CardState = CardState.DIRTY) -> None:
        """Have a server end, in the core and in Nova."""
        name, vcpus, memory, cards = self.running.pop(server)
        release(self.table, server, leave=leave)
        state = self.states[name]
        state.vcpus_used -= vcpus
        state.ram_used -= memory
        state.num_instances -= 1
        del state.instances[server]
        state.updated = datetime.fromtimestamp(self.now, UTC)
        for address in cards:
            back = pool(address, self.model(name, address))
            if not self.in_placement:
                del back["rp_uuid"]
            state.pools = [*state.pools, back]

    def model(self, name: str, address: str) -> str:
        return next(one.model for one in self.table.hosts[self.table.row[name]].cards if one.address == address)

    def clean(self, chance: random.Random) -> None:
        """Clean some dirty cards."""
        for row, name in enumerate(self.table.names):
            for address in self.table.addresses[row]:
                if self.table.state[row, self.table.position(row, address)] == 2 and chance.random() < 0.7:
                    set_card_state(self.table, name, address, CardState.CLEANING)
                    set_card_state(self.table, name, address, CardState.FREE)
