"""The scheduling core decides where desktops run: hosts and cards, the waiting line, bookings, and what is kept of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desired, Phase, Reason
from beamdesk.domain.ids import DesktopId, ExperimentId, PersonId
from beamdesk.domain.placement import BookedPart, Booking
from beamdesk.domain.srm import CardState, DeviceRecord, HostRecord
from beamdesk.protocol import srm as wire
from beamdesk.scheduling.cards import CardMode
from beamdesk.scheduling.vocabulary import Words
from beamdesk.scheduling.wire import read_decision
from engine_kit import T0, CountedSecrets, FrozenClock, make_desktop
from placingkit import CPU, GPU, Site, cpu_host, gpu_host

pytestmark = pytest.mark.anyio


def a_site(store: SqlStore, *hosts: object) -> Site:
    return Site(store, FrozenClock(), CountedSecrets(), *(hosts or (gpu_host("gpu-1"), cpu_host("cpu-1"))))  # type: ignore[arg-type]


async def apply_for(site: Site, name: str, resources: Resources = GPU, **changes: object) -> None:
    now = site.clock.now()
    async with site.store.begin(write=True) as tx:
        await tx.desktops.insert(make_desktop(name, now, resources=resources, **changes))


async def test_a_gpu_desktop_gets_the_card_that_the_core_chose(store: SqlStore) -> None:
    site = a_site(store)
    await apply_for(site, "desktop01")
    await site.passes()
    assert (await site.desktop("desktop01")).phase is Phase.READY
    assert await site.where("desktop01") == ("gpu-1", ("0000:00:00.0",))
    (server,) = site.cloud.world.open().__enter__().servers.values()
    assert (server.spec["host"], tuple(server.spec["cards"])) == ("gpu-1", ("0000:00:00.0",))


async def test_a_cpu_desktop_goes_to_a_cpu_host(store: SqlStore) -> None:
    site = a_site(store, gpu_host("a-gpu"), cpu_host("z-cpu"))
    await apply_for(site, "desktop01", CPU)
    await site.passes()
    assert await site.where("desktop01") == ("z-cpu", ())


async def test_no_card_is_given_twice_and_the_third_waits_with_the_reason_and_the_time(store: SqlStore) -> None:
    site = a_site(store)
    for number in (1, 2, 3):
        await apply_for(site, f"desktop0{number}", lease_ends_at=T0 + timedelta(hours=number))
    await site.passes()
    assert {(await site.where(f"desktop0{number}")) for number in (1, 2)} == {
        ("gpu-1", ("0000:00:00.0",)),
        ("gpu-1", ("0000:01:00.0",)),
    }
    third = await site.desktop("desktop03")
    assert (third.phase, third.reason) == (Phase.QUEUED, Reason.WAITING_FOR_CAPACITY)
    assert third.queue is not None
    assert (third.queue.place, third.queue.lacking) == (1, ("gpus",))
    assert third.queue.expected_at == T0 + timedelta(hours=1)


@pytest.mark.parametrize("state", [CardState.DIRTY, CardState.CLEANING, CardState.FAILED, CardState.USED])
async def test_only_a_free_card_is_given(store: SqlStore, state: CardState) -> None:
    site = a_site(store, gpu_host("gpu-1", 1, bad=state))
    await apply_for(site, "desktop01")
    await site.passes()
    assert (await site.desktop("desktop01")).phase is Phase.QUEUED
    assert await site.where("desktop01") is None


async def test_who_leaves_makes_room_for_who_waits(store: SqlStore) -> None:
    site = a_site(store, gpu_host("gpu-1", 1))
    await apply_for(site, "desktop01")
    await site.passes()
    await apply_for(site, "desktop02")
    await site.passes()
    assert await site.where("desktop02") is None
    async with store.begin(write=True) as tx:
        await tx.desktops.change_intent(DesktopId("desktop01"), now=site.clock.now(), desired=Desired.STOPPED)
    await site.passes()
    assert await site.where("desktop01") is None
    assert await site.where("desktop02") == ("gpu-1", ("0000:00:00.0",))


async def test_a_wait_for_a_card_does_not_hold_up_cpu_desktops(store: SqlStore) -> None:
    site = a_site(store, gpu_host("gpu-1", 1), cpu_host("cpu-1"))
    await apply_for(site, "desktop01")
    await apply_for(site, "desktop02")
    await apply_for(site, "desktop03", CPU)
    await site.passes()
    assert await site.where("desktop02") is None
    assert await site.where("desktop03") == ("cpu-1", ())


async def test_a_small_request_does_not_overtake_a_large_one_for_the_same(store: SqlStore) -> None:
    site = a_site(store, gpu_host("gpu-1", 2))
    await apply_for(site, "desktop01")
    await site.passes()
    await apply_for(site, "desktop02", replace(GPU, gpus=2))
    await site.passes()
    await apply_for(site, "desktop03")
    await site.passes()
    assert await site.where("desktop03") is None
    behind = await site.desktop("desktop03")
    assert behind.queue is not None
    assert (behind.queue.place, behind.queue.lacking) == (2, ("gpus",))
    async with store.begin() as tx:
        (newest, *_) = await tx.placing.decisions(DesktopId("desktop03"))
    assert newest.behind


async def test_what_no_host_could_ever_run_fails_with_that_reason(store: SqlStore) -> None:
    site = a_site(store)
    await apply_for(site, "desktop01", replace(GPU, gpus=3))
    await site.passes()
    desktop = await site.desktop("desktop01")
    assert (desktop.phase, desktop.reason) == (Phase.FAILED, Reason.NEVER_FITS)
    assert "gpus" in desktop.detail


async def test_a_minimum_of_the_size_is_met_by_the_card(store: SqlStore) -> None:
    small, large = gpu_host("a", 1), gpu_host("b", 1)
    site = a_site(store, replace(small, cards=(replace(small.cards[0], memory_mib=16384),)), large)
    await apply_for(site, "desktop01", words=Words(gpu_memory_mib=20000))
    await site.passes()
    assert await site.where("desktop01") == ("b", ("0000:00:00.0",))


async def test_hosts_are_for_whom_they_are(store: SqlStore) -> None:
    own = replace(cpu_host("a-b7"), aggregates=frozenset({"B7"}), dedicated=True)
    site = a_site(store, own, cpu_host("z-all"))
    await apply_for(site, "desktop01", CPU)
    await apply_for(site, "desktop02", CPU, words=Words(aggregates=frozenset({"B7"})))
    await site.passes()
    assert (await site.where("desktop01"), await site.where("desktop02")) == (("z-all", ()), ("a-b7", ()))


async def test_a_required_image_decides_the_host_and_who_waits_for_it_is_told(store: SqlStore) -> None:
    site = a_site(store, cpu_host("a"), replace(cpu_host("b"), images=frozenset({"0123456789abcdef"})))
    for number in (1, 2):
        ref = "0123456789abcdef" if number == 1 else "fedcba9876543210"
        await apply_for(site, f"desktop0{number}", CPU, image_ref=ref, words=Words(image_required=True))
    await site.passes()
    assert await site.where("desktop01") == ("b", ())
    waiting = await site.desktop("desktop02")
    assert waiting.queue is not None
    assert waiting.queue.lacking == ("image",)


async def test_a_card_may_be_shared_by_two_and_not_by_three(store: SqlStore) -> None:
    host = gpu_host("gpu-1", 1)
    site = a_site(store, replace(host, cards=(replace(host.cards[0], mode=CardMode.HOST),)))
    for number in (1, 2, 3):
        await apply_for(site, f"desktop0{number}", words=Words(gpu_share=500))
    await site.passes()
    places = [await site.where(f"desktop0{number}") for number in (1, 2, 3)]
    assert sorted(places, key=str) == [("gpu-1", ("0000:00:00.0",))] * 2 + [None]
    servers = site.cloud.world.open().__enter__().servers.values()
    assert [server.spec["shared"] for server in servers] == [True, True]
    await site.end_lease("desktop01")
    await site.passes()
    assert await site.where("desktop03") == ("gpu-1", ("0000:00:00.0",))


async def test_a_decision_is_kept_once_while_nothing_changes_and_replays(store: SqlStore) -> None:
    site = a_site(store, gpu_host("gpu-1", 1))
    await apply_for(site, "desktop01")
    await site.passes()
    await apply_for(site, "desktop02")
    await site.passes(60)
    async with store.begin() as tx:
        (placed,) = await tx.placing.decisions(DesktopId("desktop01"))
        waiting = await tx.placing.decisions(DesktopId("desktop02"))
    assert read_decision(placed.document).host == "gpu-1"
    assert len(waiting) == 1
    assert read_decision(waiting[0].document).refusals == (("cards_busy", 1),)
    assert waiting[0].verdicts == {"gpu-1": "cards_busy"}


async def test_decisions_are_pruned(store: SqlStore) -> None:
    site = a_site(store)
    await apply_for(site, "desktop01")
    for _ in range(13):
        await site.passes(6)
        for desired in (Desired.STOPPED, Desired.RUNNING):
            async with store.begin(write=True) as tx:
                await tx.desktops.change_intent(DesktopId("desktop01"), now=site.clock.now(), desired=desired)
            await site.passes(8)
    async with store.begin() as tx:
        assert len(await tx.placing.decisions(DesktopId("desktop01"), 100)) == 10


def a_booking(start_h: float, end_h: float, experiment: str = "other", cards: tuple[str, ...] = ("0000:00:00.0",)) -> Booking:
    part = BookedPart("gpu-1", cards, 2000, 4096)
    starts, ends = T0 + timedelta(hours=start_h), T0 + timedelta(hours=end_h)
    return Booking("bk1", ExperimentId(experiment), "gpu", starts, ends, (part,), PersonId("p-ada"), T0)


async def book(store: SqlStore, booking: Booking) -> None:
    async with store.begin(write=True) as tx:
        await tx.placing.put_booking(booking)


async def test_a_booked_card_is_not_given_to_a_lease_that_runs_into_the_booking(store: SqlStore) -> None:
    site = a_site(store, gpu_host("gpu-1", 1))
    await book(store, a_booking(2, 4))
    await apply_for(site, "desktop01", lease_ends_at=T0 + timedelta(hours=8))
    await site.passes()
    desktop = await site.desktop("desktop01")
    assert desktop.queue is not None
    assert desktop.queue.lacking == ("booked",)
    assert desktop.queue.expected_at == T0 + timedelta(hours=4)


async def test_a_lease_that_ends_before_the_booking_gets_the_card(store: SqlStore) -> None:
    site = a_site(store, gpu_host("gpu-1", 1))
    await book(store, a_booking(2, 4))
    await apply_for(site, "desktop01", lease_ends_at=T0 + timedelta(hours=2))
    await site.passes()
    assert await site.where("desktop01") == ("gpu-1", ("0000:00:00.0",))


async def test_who_waits_for_a_booking_holds_nobody_up(store: SqlStore) -> None:
    site = a_site(store, gpu_host("gpu-1", 1))
    await book(store, a_booking(2, 4))
    await apply_for(site, "desktop01", lease_ends_at=T0 + timedelta(hours=8))
    await apply_for(site, "desktop02", lease_ends_at=T0 + timedelta(hours=1))
    await site.passes()
    assert await site.where("desktop01") is None
    assert await site.where("desktop02") == ("gpu-1", ("0000:00:00.0",))


async def test_the_experiment_that_booked_gets_its_card_in_its_slot(store: SqlStore) -> None:
    site = a_site(store, gpu_host("gpu-1", 2))
    await book(store, a_booking(-1, 4, "heps-2026-0147", ("0000:01:00.0",)))
    await apply_for(site, "desktop01", lease_ends_at=T0 + timedelta(hours=8))
    await site.passes()
    assert await site.where("desktop01") == ("gpu-1", ("0000:01:00.0",))


async def test_others_do_not_get_what_is_booked_while_its_desktop_uses_it_no_more(store: SqlStore) -> None:
    site = a_site(store, gpu_host("gpu-1", 1))
    await book(store, a_booking(-1, 4))
    await apply_for(site, "desktop01", lease_ends_at=T0 + timedelta(hours=1))
    await site.passes()
    assert await site.where("desktop01") is None


async def record(store: SqlStore, state: CardState, **changes: object) -> None:
    facts = wire.CardFacts(
        "0000:00:00.0", "10de", "2236", "10de", "1482", "A10", "vfio-pci", wire.LendMode.PASSTHROUGH, 0, wire.FactsFrom.CATALOGUE,
        memory_mib=24576, cores=9216, bandwidth_gbs=600, clock_mhz=1695,
    )  # fmt: skip
    host = HostRecord("gpu-1", T0, facts=wire.HostFacts(16, 65536, 500), seen_at=T0)
    async with store.begin(write=True) as tx:
        await tx.srm.put_host(replace(host, **changes))  # type: ignore[arg-type]
        await tx.srm.put_device(DeviceRecord("gpu-1", "0000:00:00.0", facts, state, T0))


async def state_of(store: SqlStore) -> tuple[CardState, str]:
    async with store.begin() as tx:
        device = await tx.srm.device("gpu-1", "0000:00:00.0")
    assert device is not None
    return device.state, device.holder


async def test_a_recorded_card_is_lent_by_name_and_comes_back_dirty(store: SqlStore) -> None:
    site = a_site(store, gpu_host("gpu-1", 1))
    await record(store, CardState.FREE)
    await apply_for(site, "desktop01")
    await site.passes()
    assert await state_of(store) == (CardState.USED, "desktop01")
    async with store.begin(write=True) as tx:
        await tx.desktops.change_intent(DesktopId("desktop01"), now=site.clock.now(), desired=Desired.DELETED)
    await site.passes(20)
    assert await state_of(store) == (CardState.DIRTY, "")
    await record(store, CardState.DIRTY, seen_at=site.clock.now())
    await apply_for(site, "desktop02")
    await site.passes()
    assert await site.where("desktop02") is None, "a dirty card was given"


async def test_a_host_whose_report_is_too_old_lends_no_card(store: SqlStore) -> None:
    site = a_site(store, gpu_host("gpu-1", 1))
    await record(store, CardState.FREE, seen_at=T0 - timedelta(minutes=5))
    await apply_for(site, "desktop01")
    await site.passes()
    desktop = await site.desktop("desktop01")
    assert desktop.queue is not None
    assert desktop.queue.lacking == ("stale",)


async def test_a_desktop_from_before_placements_keeps_its_card_counted(store: SqlStore) -> None:
    site = a_site(store, gpu_host("gpu-1", 1))
    later = T0 + timedelta(hours=1)
    await apply_for(site, "desktop01", admitted=True, phase=Phase.READY, due_at=later)
    await apply_for(site, "desktop02")
    await site.passes(4)
    assert await site.where("desktop02") is None
    assert (await site.desktop("desktop02")).phase is Phase.QUEUED
