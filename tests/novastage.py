"""A nova-scheduler with our plugins and the site that it sees: its hosts and flavors, what it decided, what the core would."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beamdesk.plugins.nova.journal import Entry, entries
from beamdesk.plugins.nova.world import REPORTED_S
from beamdesk.scheduling.cards import Card, CardState
from beamdesk.scheduling.claims import release
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.host import HostFacts, NumaNode
from beamdesk.scheduling.policy import make
from beamdesk.scheduling.reports import set_card_state
from beamdesk.scheduling.state import CLEANING, DIRTY, HostTable
from beamdesk.scheduling.vocabulary import from_extra_specs
from beamdesk.scheduling.wire import publish
from controlplane.layout import A100, T4, Kind
from controlplane.plane import ControlPlane
from novaplane import SnapshotApi

HOSTS = 9
FARM = (Kind(16, 64 * 1024), Kind(32, 128 * 1024, ((A100, 4),)), Kind(16, 64 * 1024, ((T4, 4),)))
FACTS = {A100: ("A100", 40960, 6912, 1555, 1410), T4: ("T4", 16384, 2560, 320, 1590)}
WORDS: dict[str, tuple[int, int, dict[str, str]]] = {
    "trace-cpu": (4, 8192, {}),
    "trace-large": (8, 32768, {}),
    "trace-any": (4, 16384, {"pci_passthrough:alias": "gpu:1", "beamdesk:gpus": "1"}),
    "trace-a100": (8, 16384, {"pci_passthrough:alias": "a100:1", "beamdesk:gpu_models": "A100"}),
    "trace-two": (8, 32768, {"pci_passthrough:alias": "a100:2", "beamdesk:gpus": "2", "beamdesk:gpu_memory_mib": "20000"}),
    "trace-t4": (2, 8192, {"pci_passthrough:alias": "t4:1", "beamdesk:gpu_models": "T4", "beamdesk:gpus": "1"}),
    "wrong-word": (1, 1024, {"pci_passthrough:alias": "gpu:1", "beamdesk:gpu_memry_mib": "1"}),
    "wrong-count": (1, 1024, {"pci_passthrough:alias": "gpu:1", "beamdesk:gpus": "2"}),
}


def facts(number: int) -> HostFacts:
    """Describe a simulated host as its records would."""
    kind = FARM[number % len(FARM)]
    cards = []
    for product, count in kind.gpus:
        cards += [Card(f"0000:{0x10 + at:02x}:00.0", *FACTS[product]) for at in range(count)]
    half = NumaNode(kind.vcpus * 500, kind.memory_mb // 2)
    return HostFacts(f"host-{number:03d}", kind.vcpus * 1000, kind.memory_mb, 20000, tuple(cards), (half, half))


@dataclass
class Stage:
    """The cloud, its records, and the core that says what should happen."""

    plane: ControlPlane
    api: SnapshotApi
    journal: Path
    cloud: Any
    table: HostTable
    flavors: dict[str, str] = field(default_factory=dict)
    image: str = ""
    number: int = 0

    def __post_init__(self) -> None:
        self.core = Scheduler(self.table, make("beamdesk", self.table))

    def publish(self) -> None:
        """Have the scheduler know the core's present state."""
        self.api.serve(publish(self.table, time.time()))
        self.api.wait_until_known()

    def create(self, flavor: str, hints: dict[str, str] | None = None) -> str:
        self.number += 1
        body: dict[str, Any] = {
            "name": f"t{self.number}",
            "flavorRef": self.flavors[flavor],
            "imageRef": self.image,
            "networks": "none",
        }
        request = {"server": body, **({"os:scheduler_hints": hints} if hints else {})}
        answer = self.cloud.compute.post("/servers", json=request, microversion="2.90")
        assert answer.status_code == 202, answer.text
        return str(answer.json()["server"]["id"])

    def decided(self, server: str) -> Entry | None:
        """Return what the plugin wrote down for a server; None where Placement offered no host, so that no filter was asked."""
        found: list[Entry] = []

        def look() -> bool:
            given_up = self.show(server)["status"] == "ERROR"
            found[:] = [one for one in entries(self.journal) if one.server == server]
            return bool(found) or given_up

        wait(look, f"a decision about {server}")
        return found[0] if found else None

    def show(self, server: str) -> Any:
        """Return what Nova says of a server. While it moves from one database to another Nova may say that there is none."""
        answer = self.cloud.compute.get(f"/servers/{server}", microversion="2.90").json()
        return answer.get("server", {"status": "BUILD"})

    def told(self) -> str:
        """Say what Nova knows of servers and Placement of hosts, for a test that failed."""
        answer = self.cloud.compute.get("/servers/detail?all_tenants=1", microversion="2.90")
        servers = answer.json().get("servers", [])
        lines = [] if servers else [answer.text]
        lines += [f"{one['name']} {one['status']} {one['OS-EXT-SRV-ATTR:host']} {one.get('fault', '')}" for one in servers]
        providers = self.cloud.placement.get("/resource_providers").json()["resource_providers"]
        for one in providers:
            used = self.cloud.placement.get(f"/resource_providers/{one['uuid']}/usages").json()["usages"]
            held = self.cloud.placement.get(f"/resource_providers/{one['uuid']}/inventories").json()["inventories"]
            sizes = {name: (value["total"], value["allocation_ratio"], used.get(name)) for name, value in held.items()}
            lines.append(f"{one['name']} {sizes}")
        return "\n".join(sorted(lines))

    def settled(self, server: str) -> Any:
        """Return the server when it is no longer being built."""
        found: list[Any] = []

        def look() -> bool:
            found[:] = [self.show(server)]
            return str(found[0]["status"]) != "BUILD"

        wait(look, f"{server} is built")
        return found[0]

    def devices(self, server: str) -> set[str]:
        """Return the addresses of the devices that Placement allocated to a server."""
        known = self.cloud.placement.get(f"/allocations/{server}").json()["allocations"]
        names = [self.cloud.placement.get(f"/resource_providers/{one}").json()["name"] for one in known]
        return {name.split("_", 1)[1].lower() for name in names if "_" in name}

    def delete(self, *servers: str) -> None:
        for server in servers:
            self.cloud.compute.delete(f"/servers/{server}")
        for server in servers:
            wait(lambda server=server: self.cloud.compute.get(f"/servers/{server}").status_code == 404, f"{server} is gone")  # type: ignore[misc]

    def clean(self, chance: random.Random, part: float) -> None:
        """Clean some of the dirty cards."""
        for row, name in enumerate(self.table.names):
            for position, address in enumerate(self.table.addresses[row]):
                if self.table.state[row, position] == DIRTY and chance.random() < part:
                    set_card_state(self.table, name, address, CardState.CLEANING)
                if self.table.state[row, position] == CLEANING:
                    set_card_state(self.table, name, address, CardState.FREE)

    def expected(self, flavor: str, server: str) -> Any:
        """Decide with the core, and claim."""
        vcpus, memory, specs = WORDS[flavor]
        return self.core.place(from_extra_specs(server, vcpus=vcpus, memory_mib=memory, flavor=specs, image_ref=self.image), 0.0)


def wait(true: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Return when something is true; there is no event to wait for in an OpenStack API."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.1)


class Trace:
    """Requests by chance, each decided by Nova and by the core, and compared. Placement alone refuses some: no filter is asked."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._chance = random.Random(7)
        self._kinds = [name for name in WORDS if name.startswith("trace-")]
        self._running: dict[str, Any] = {}
        self.compared = self.refused = 0

    def play(self, number: int) -> None:
        """Make so many requests."""
        stage = self._stage
        stage.publish()
        fresh: dict[str, Any] = {}
        for _ in range(number):
            flavor = self._chance.choice(self._kinds)
            server = stage.create(flavor)
            self._running[server] = None
            entry, expected = stage.decided(server), stage.expected(flavor, server)
            if entry is not None:
                assert entry.decision is not None
                assert (entry.decision.host, entry.decision.grants) == (expected.host, expected.grants), stage.told()
                assert entry.decision.ranking == expected.ranking, f"{entry.decision.ranking} != {expected.ranking}\n{stage.told()}"
                self.compared += 1
            else:
                assert expected.host is None, "Placement offered no host at all"
            if expected.host is None:
                self.refused += 1
                assert stage.settled(server)["status"] == "ERROR"
                self._delete(server)
            else:
                fresh[server] = expected
        for server, expected in fresh.items():
            told = stage.settled(server)
            assert (told["status"], told["OS-EXT-SRV-ATTR:host"]) == ("ACTIVE", expected.host)
            assert stage.devices(server) == {one.address for one in expected.grants}

    def end_half(self) -> None:
        """Let half of the servers go, and have some of their cards cleaned."""
        self._stay()
        self._delete(*self._chance.sample(sorted(self._running), len(self._running) // 2))
        self._stage.publish()
        self._stage.clean(self._chance, 0.6)

    def end(self) -> None:
        """Let all go; the scheduler expects none of them any more, so that the next test finds every card free."""
        self._stay()
        self._delete(*self._running)

    def _stay(self) -> None:
        """Wait: a server that comes and goes sooner may never be seen by the scheduler, which then expects it for so long."""
        latest = time.time()
        wait(lambda: time.time() > latest + REPORTED_S, "what was expected has been reported")

    def _delete(self, *servers: str) -> None:
        self._stage.delete(*servers)
        for server in servers:
            del self._running[server]
            release(self._stage.table, server)


def settle_cards(stage: Stage, **states: CardState) -> None:
    """Have the records call every card free but some: ``host_001_10`` is card 0000:10:00.0 of host-001."""
    for server in list(stage.table.claims):
        release(stage.table, server)
    for row, name in enumerate(stage.table.names):
        for address in stage.table.addresses[row]:
            wanted = states.get(f"{name.replace('-', '_')}_{address[5:7]}", CardState.FREE)
            lead(stage.table, name, address, wanted)
    stage.publish()


def lead(table: HostTable, host: str, address: str, wanted: CardState) -> None:
    """Move a card to a state by steps that are allowed."""
    paths = {
        CardState.FREE: [CardState.DIRTY, CardState.CLEANING, CardState.FREE],
        CardState.DIRTY: [CardState.DIRTY],
        CardState.FAILED: [CardState.FAILED],
    }
    for state in paths[wanted]:
        set_card_state(table, host, address, state)
