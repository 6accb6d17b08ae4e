"""In a real nova-scheduler, over RabbitMQ, Placement and simulated hosts with PCI GPUs: servers land where the core says.

One OpenStack for the module. The site's records are a loopback API that serves what the core's own table holds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from beamdesk.adapters.openstack.config import Homes
from beamdesk.adapters.openstack.driver import OpenStackCloud
from beamdesk.adapters.openstack.names import split_server_id
from beamdesk.domain.ids import DesktopId
from beamdesk.plugins.nova.journal import Entry, entries
from beamdesk.plugins.nova.world import REPORTED_S
from beamdesk.ports.cloud import ServerAccount, ServerSpec
from beamdesk.scheduling import bookings, line
from beamdesk.scheduling.bookings import Booking
from beamdesk.scheduling.cards import Card, CardState
from beamdesk.scheduling.claims import release
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.host import HostFacts, NumaNode
from beamdesk.scheduling.policy import make
from beamdesk.scheduling.reports import set_card_state
from beamdesk.scheduling.state import CLEANING, DIRTY, HostTable
from beamdesk.scheduling.vocabulary import BOOKING, UNTIL, from_extra_specs
from beamdesk.scheduling.wire import publish
from controlplane.content import NETWORK
from controlplane.layout import A100, T4, Kind, Options
from controlplane.plane import ControlPlane
from controlplane.world import settings
from novaplane import SnapshotApi, python_path

pytestmark = [pytest.mark.openstack, pytest.mark.heavy]

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


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("novasched")
    table = HostTable([facts(number) for number in range(HOSTS)])
    api, journal = SnapshotApi(folder), folder / "decisions.jsonl"
    api.serve(publish(table, time.time()))
    nova = {
        "DEFAULT": {"initial_cpu_allocation_ratio": "1.0"},
        "scheduler": {"max_placement_results": "1000"},
        "filter_scheduler": {
            "available_filters": ["nova.scheduler.filters.all_filters", "beamdesk.plugins.nova.filter.BeamdeskFilter"],
            "enabled_filters": "ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,PciPassthroughFilter,BeamdeskFilter",
            "weight_classes": "beamdesk.plugins.nova.weigher.BeamdeskWeigher",
        },
        "beamdesk": {
            "api_url": api.url, "credential_file": str(api.credential_file), "interval": "0.3", "stale_after": "5", "timeout": "2",
            "journal": str(journal),
        },
    }  # fmt: skip
    options = Options(
        hosts=HOSTS, hosts_per_process=9, farm=FARM, nova=nova, python_path=(str(python_path(folder / "path")),), volumes=False
    )
    try:
        with ControlPlane(folder / "plane", options, say=print) as plane, plane.connect() as cloud:
            # Neutron 29 lists no ports ('Port' has no attribute 'port_forwardings') until something else was asked of its database.
            assert list(cloud.network.networks())
            made = Stage(plane, api, journal, cloud, table)
            for name, (vcpus, memory, specs) in WORDS.items():
                flavor = cloud.compute.create_flavor(name=name, vcpus=vcpus, ram=memory, disk=1)
                if specs:
                    cloud.compute.create_flavor_extra_specs(flavor, specs)
                made.flavors[name] = flavor.id
            made.image = next(iter(cloud.image.images())).id
            try:
                yield made
            finally:
                plane.stop(*reversed(plane.names()))
    finally:
        api.stop()


def test_a_trace_lands_where_the_core_says_with_its_cards(stage: Stage) -> None:
    trace = Trace(stage)
    try:
        while True:
            trace.play(28)
            if trace.compared >= 100:
                break
            trace.end_half()
    finally:
        trace.end()
    assert trace.refused > 0, "a site in which everything fits shows little"


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
                assert entry.decision.ranking == expected.ranking
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
        # A server that comes and goes sooner may never be seen by the scheduler, which then expects it for so long.
        latest = time.time()
        wait(lambda: time.time() > latest + REPORTED_S, "what was expected has been reported")
        self._delete(*self._chance.sample(sorted(self._running), len(self._running) // 2))
        self._stage.publish()
        self._stage.clean(self._chance, 0.6)

    def end(self) -> None:
        """Let all go."""
        self._delete(*self._running)

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
            _lead(stage.table, name, address, wanted)
    stage.publish()


def _lead(table: HostTable, host: str, address: str, wanted: CardState) -> None:
    """Move a card to a state by steps that are allowed."""
    paths = {
        CardState.FREE: [CardState.DIRTY, CardState.CLEANING, CardState.FREE],
        CardState.DIRTY: [CardState.DIRTY],
        CardState.FAILED: [CardState.FAILED],
    }
    for state in paths[wanted]:
        set_card_state(table, host, address, state)


def test_cpu_desktops_stay_off_gpu_hosts(stage: Stage) -> None:
    stage.publish()
    servers = [stage.create("trace-cpu") for _ in range(6)]
    hosts = {stage.settled(one)["OS-EXT-SRV-ATTR:host"] for one in servers}
    stage.delete(*servers)
    assert hosts
    assert hosts <= {"host-000", "host-003", "host-006"}


def test_a_failed_or_dirty_card_is_never_chosen(stage: Stage) -> None:
    bad = {
        f"host_{number:03d}_{0x10 + at:02x}": chance
        for number in (1, 4, 7)
        for at, chance in enumerate([CardState.FAILED, CardState.DIRTY] * 2)
    }
    del bad["host_004_12"]
    settle_cards(stage, **bad)
    only, none = stage.create("trace-a100"), stage.create("trace-a100")
    told = stage.settled(only)
    devices = stage.devices(only)
    refused = stage.settled(none)["status"]
    stage.delete(only, none)
    assert (told["status"], told["OS-EXT-SRV-ATTR:host"], devices) == ("ACTIVE", "host-004", {"0000:12:00.0"})
    assert refused == "ERROR"
    # Nobody told the core of this server: the records say dirty, then clean.
    _lead(stage.table, "host-004", "0000:12:00.0", CardState.DIRTY)
    stage.publish()
    settle_cards(stage)


def test_a_booked_card_is_kept_for_who_spends_it_and_the_decision_is_the_cores(stage: Stage) -> None:
    bad = {f"host_{number:03d}_{0x10 + at:02x}": CardState.FAILED for number in (1, 4, 7) for at in range(4)}
    del bad["host_007_11"]  # no card of another test: a server that came and went is expected for REPORTED_S
    settle_cards(stage, **bad)
    now = time.time()
    bookings.add(stage.table, Booking("b1.0", "host-007", now - 1, now + 3600, ("0000:11:00.0",), 8000, 16384), now)
    stage.publish()
    into, spends = {"beamdesk_until": str(int(now) + 7200)}, {"beamdesk_booking": "b0|b1"}
    told: dict[str, Entry | None] = {}
    try:
        for name, hints in (("stranger", into), ("owner", into | spends)):
            server = stage.create("trace-a100", hints)
            told[name] = stage.decided(server)
            status, devices = stage.settled(server)["status"], stage.devices(server)
            stage.delete(server)
            assert (status, devices) == (("ERROR", set()) if name == "stranger" else ("ACTIVE", {"0000:11:00.0"})), stage.told()
        for name, entry in told.items():
            assert entry is not None
            assert entry.decision is not None
            request = replace(entry.decision.request, booking=None)
            asked = line.own(stage.table, request, ("b0", "b1") if name == "owner" else (), entry.at)
            expected = line.decide(stage.core, asked, entry.at)
            assert (entry.decision.host, entry.decision.grants) == (expected.host, expected.grants)
            assert entry.decision.request.booking == expected.request.booking
            # Not all reasons: a host without cards may be out of CPU too while servers of other tests are expected there.
            assert dict(entry.decision.refusals).get("booked") == dict(expected.refusals).get("booked")
    finally:
        bookings.remove(stage.table, "b1.0")
        # Nobody told the core of this server: the records say dirty, then clean.
        _lead(stage.table, "host-007", "0000:11:00.0", CardState.DIRTY)
        stage.publish()
        settle_cards(stage)


def test_the_driver_tells_the_scheduler_what_a_desktop_asks_for_until_when_and_which_bookings_it_has(stage: Stage) -> None:
    free = {"host_001_10", "host_002_10"}  # an A100 that is booked, and a T4
    every = {f"host_{host:03d}_{0x10 + at:02x}" for host in (1, 2, 4, 5, 7, 8) for at in range(4)}
    settle_cards(stage, **dict.fromkeys(every - free, CardState.FAILED))
    now = time.time()
    bookings.add(stage.table, Booking("b1.0", "host-001", now - 1, now + 3600, ("0000:10:00.0",), 4000, 16384), now)
    stage.publish()
    network = stage.cloud.network.find_network(NETWORK, ignore_missing=False).id
    config = replace(settings(stage.plane.clouds_yaml, network), homes=Homes(), flavors={"any": "trace-any"})
    hints = {"beamdesk_gpu_models": "A100", UNTIL: str(int(now) + 7200), BOOKING: "b0|b1"}
    account = ServerAccount("ada", 20001, 20001, (30147,), "Ada Lin")
    order = ServerSpec(DesktopId("hinted"), stage.image, 4, 16384, 1, 1, account, (), "nonce", "any", "heps-2026-0147", hints=hints)

    async def make_one() -> str:
        cloud = OpenStackCloud(config, "d" * 32)
        try:
            return split_server_id((await cloud.create_server(order)).id)[1]
        finally:
            await cloud.close()

    try:
        server = asyncio.run(make_one())
        entry, told, devices = stage.decided(server), stage.settled(server), stage.devices(server)
        stage.delete(server)
        for port in stage.cloud.network.ports(network_id=network):
            stage.cloud.network.delete_port(port)
    finally:
        bookings.remove(stage.table, "b1.0")
        _lead(stage.table, "host-001", "0000:10:00.0", CardState.DIRTY)
        stage.publish()
        settle_cards(stage)
    assert (told["status"], told["OS-EXT-SRV-ATTR:host"], devices) == ("ACTIVE", "host-001", {"0000:10:00.0"})
    assert entry is not None
    assert entry.decision is not None
    assert (entry.decision.request.until, entry.decision.request.booking) == (int(now) + 7200, "b1.0")


@pytest.mark.parametrize(
    ("flavor", "says"),
    [
        ("wrong-word", "Did you mean beamdesk:gpu_memory_mib"),
        ("wrong-count", "asks for 2 cards, but the flavor's PCI aliases give 1"),
    ],
)
def test_what_contradicts_itself_is_refused_and_the_log_says_why(stage: Stage, flavor: str, says: str) -> None:
    server = stage.create(flavor)
    entry = stage.decided(server)
    status = stage.settled(server)["status"]
    stage.delete(server)
    assert status == "ERROR"
    assert entry is not None
    assert says in str(entry.refused)
    assert says in (stage.plane.layout.logs / "scheduler.log").read_text()


def test_a_hint_narrows_the_flavor(stage: Stage) -> None:
    settle_cards(stage)
    server = stage.create("trace-any", {"beamdesk_gpu_memory_mib": "40000"})
    devices, host = stage.devices(server) if stage.settled(server)["status"] == "ACTIVE" else set(), stage.show(server)
    stage.delete(server)
    assert host["OS-EXT-SRV-ATTR:host"] in {"host-001", "host-004", "host-007"}
    assert len(devices) == 1


def _until_source(stage: Stage, source: str) -> None:
    """Ask for CPU desktops until one is decided on the source."""

    def look() -> bool:
        server = stage.create("trace-cpu")
        entry = stage.decided(server)
        told = stage.settled(server)
        stage.delete(server)
        assert entry is not None
        assert told["status"] == "ACTIVE"
        assert told["OS-EXT-SRV-ATTR:host"] in {"host-000", "host-003", "host-006"}, "CPU desktops go on, off GPU hosts"
        return entry.source == source

    wait(look, f"decisions by {source}")


def test_without_the_api_cpu_desktops_go_on_and_gpu_desktops_are_refused_until_it_is_back(stage: Stage) -> None:
    settle_cards(stage)
    with stage.api.stopped():
        _until_source(stage, "fallback-refuse")
        server = stage.create("trace-a100")
        entry, status = stage.decided(server), stage.settled(server)["status"]
        stage.delete(server)
        assert status == "ERROR"
        assert entry is not None
        assert entry.decision is not None
        assert dict(entry.decision.refusals)["stale"] == 3
    _until_source(stage, "records")
    server = stage.create("trace-a100")
    status = stage.settled(server)["status"]
    stage.delete(server)
    assert status == "ACTIVE"


def test_a_scheduler_that_may_count_lends_cards_without_the_api_even_after_a_restart(stage: Stage) -> None:
    file = stage.plane.layout.etc / "nova/nova-scheduler.conf"
    before = file.read_text()
    file.write_text(before.replace("[beamdesk]\n", "[beamdesk]\ngpu_fallback = count\nfirst_wait = 0.5\n"))
    try:
        with stage.api.stopped():
            stage.plane.restart("scheduler")
            server = stage.create("trace-a100")
            told, entry, devices = stage.settled(server), stage.decided(server), stage.devices(server)
            stage.delete(server)
    finally:
        file.write_text(before)
        stage.plane.restart("scheduler")
    assert entry is not None
    assert (entry.source, told["status"], len(devices)) == ("fallback-count", "ACTIVE", 1)
    assert told["OS-EXT-SRV-ATTR:host"] in {"host-001", "host-004", "host-007"}
