"""In a real nova-scheduler, over RabbitMQ, Placement and simulated hosts with PCI GPUs: servers land where the core says.

One OpenStack for the module. The site's records are a loopback API that serves what the core's own table holds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from beamdesk.adapters.openstack.config import Homes
from beamdesk.adapters.openstack.driver import OpenStackCloud
from beamdesk.adapters.openstack.names import split_server_id
from beamdesk.domain.ids import DesktopId
from beamdesk.plugins.nova.journal import Entry
from beamdesk.ports.cloud import ServerAccount, ServerSpec
from beamdesk.scheduling import bookings, line
from beamdesk.scheduling.bookings import Booking
from beamdesk.scheduling.cards import CardState
from beamdesk.scheduling.state import HostTable
from beamdesk.scheduling.vocabulary import BOOKING, UNTIL
from beamdesk.scheduling.wire import publish
from controlplane.content import NETWORK
from controlplane.layout import Options
from controlplane.plane import ControlPlane
from controlplane.world import settings
from novaplane import SnapshotApi, python_path
from novastage import FARM, HOSTS, WORDS, Stage, Trace, facts, lead, settle_cards, wait

pytestmark = [pytest.mark.openstack, pytest.mark.heavy]


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
    only = stage.create("trace-a100")
    told = stage.settled(only)
    devices = stage.devices(only)
    none = stage.create("trace-a100")  # after the first is decided: Nova does not keep an order
    refused = stage.settled(none)["status"]
    stage.delete(only, none)
    assert (told["status"], told["OS-EXT-SRV-ATTR:host"], devices) == ("ACTIVE", "host-004", {"0000:12:00.0"})
    assert refused == "ERROR"
    # Nobody told the core of this server: the records say dirty, then clean.
    lead(stage.table, "host-004", "0000:12:00.0", CardState.DIRTY)
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
        lead(stage.table, "host-007", "0000:11:00.0", CardState.DIRTY)
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
        lead(stage.table, "host-001", "0000:10:00.0", CardState.DIRTY)
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
