"""The stage with hosts, cards and bookings: reconcilers that place desktops, records of cards that come back dirty.

What must hold besides: no card is given twice, none that is not clean, none that is booked by others before the lease ends; and in
the end everybody who is admitted has a place, nobody else has one, and the records agree.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.catalog import Flavor, Resources
from beamdesk.domain.desktop import Desired, Desktop
from beamdesk.domain.ids import DesktopId, ExperimentId, FlavorId
from beamdesk.domain.placement import BookedPart, Booking, Placement
from beamdesk.domain.srm import CardState, DeviceRecord, HostRecord, SrmRules, StateReason
from beamdesk.domain.text import Text
from beamdesk.ports.store import Store
from beamdesk.protocol import srm as wire
from beamdesk.reconcile.placing import Placer
from beamdesk.reconcile.worker import Worker
from engine_kit import EXPERIMENT, FrozenClock, add_people, make_desktop
from engine_schedule import MOVES
from engine_stage import NAMES, RULES, GatedStore, Stage
from placingkit import gpu_host

HOSTS = (gpu_host("gpu-1", 2, vcpus=2), gpu_host("gpu-2", 1, vcpus=1))
CARDS = tuple((host.name, card.address) for host in HOSTS for card in host.cards)
SIZES = (Resources(1, 2048, 10, 1), Resources(1, 2048, 10, 1), Resources(2, 4096, 20, 2), Resources(1, 2048, 10, 0))
"""Of the desktops: together they want more cards and CPU than there is."""
MINE, THEIRS = EXPERIMENT.id, ExperimentId("others")
RECORDS = SrmRules(stale_after=timedelta(days=365))

_WHICH = st.integers(0, len(NAMES) - 1)
_BOOK = st.tuples(
    st.just("book"), st.integers(0, len(CARDS) - 1), st.sampled_from([0, 60, 3600, 40000]), st.integers(1, 40000), st.booleans()
)
_PLACING_MOVES = st.one_of(
    MOVES,
    MOVES,
    _BOOK,
    st.one_of(
        st.tuples(st.just("unbook")),
        st.tuples(st.just("clean")),
        st.tuples(st.just("break"), st.integers(0, len(CARDS) - 1)),
        st.tuples(st.just("apply"), _WHICH),
        st.tuples(st.just("work"), st.integers(2, 8)),
        st.tuples(st.just("restart"), _WHICH),
    ),
)
PLACING_SCHEDULES = st.builds(
    list.__add__,
    st.lists(st.one_of(_BOOK, st.tuples(st.just("apply"), _WHICH)), min_size=2, max_size=6),
    st.lists(_PLACING_MOVES, min_size=10, max_size=50),
)
"""Applications and bookings to begin with, so that there is something to decide."""


class PlacingStage(Stage):
    """The stage, with a placer in every reconciler."""

    def __init__(self, store: Store, clock: FrozenClock, *, actors: int = 3, racy: bool = True) -> None:
        super().__init__(store, clock, actors=actors, racy=racy)
        self.cloud._places = lambda: HOSTS
        self.placer = Placer(self.cloud.hosts, self._sizes, RECORDS)
        gated = GatedStore(store, self)
        self.worker = Worker(gated, self.cloud, clock, self.secrets, RULES, self.placer)
        self._booked = 0
        self._seen: dict[DesktopId, Placement] = {}

    async def _sizes(self) -> tuple[Flavor, ...]:
        return tuple(Flavor(FlavorId(str(number)), Text("x", "x"), size) for number, size in enumerate(SIZES))

    async def record_cards(self) -> None:
        """Write records of all hosts: what they lend is passed through, and comes back dirty."""
        now = self.clock.now()
        async with self.raw.begin(write=True) as tx:
            for host in HOSTS:
                facts = wire.HostFacts(host.cpu_milli // 1000, host.memory_mib, host.disk_gib)
                await tx.srm.put_host(HostRecord(host.name, now, facts=facts, seen_at=now))
                for card in host.cards:
                    lent = wire.CardFacts(
                        card.address, "10de", "2236", "10de", "1482", card.model, "vfio-pci", wire.LendMode.PASSTHROUGH, 0,
                        wire.FactsFrom.CATALOGUE, memory_mib=card.memory_mib, cores=card.cores, bandwidth_gbs=card.bandwidth_gbs,
                        clock_mhz=card.clock_mhz,
                    )  # fmt: skip
                    await tx.srm.put_device(DeviceRecord(host.name, card.address, lent, CardState.FREE, now))

    async def apply_for(self, number: int) -> None:
        name = NAMES[number % len(NAMES)]
        async with self.raw.begin(write=True) as tx:
            known = await tx.desktops.known_ids() | await tx.desktops.removed_among(frozenset({DesktopId(name)}))
            if name not in known:
                await tx.desktops.insert(make_desktop(name, self.clock.now(), resources=SIZES[number % len(SIZES)]))

    async def book(self, card: int, delay: float, length: float, *, mine: bool) -> None:
        """Promise a card to an experiment, whether or not it can be kept: desktops that have it already are left alone."""
        (host, address), now = CARDS[card], self.clock.now()
        starts = now + timedelta(seconds=delay)
        self._booked += 1
        booking = Booking(
            f"b{self._booked}", MINE if mine else THEIRS, FlavorId("0"), starts, starts + timedelta(seconds=length),
            (BookedPart(host, (address,), 1000, 2048),), EXPERIMENT.id, now,  # type: ignore[arg-type]
        )  # fmt: skip
        async with self.raw.begin(write=True) as tx:
            await tx.placing.lock()
            await tx.placing.put_booking(booking)
            await tx.desktops.wake_waiting(now)

    async def unbook(self) -> None:
        """Cancel all bookings."""
        async with self.raw.begin(write=True) as tx:
            for booking in await tx.placing.bookings(self.clock.now()):
                await tx.placing.remove_booking(booking.id)
            await tx.desktops.wake_waiting(self.clock.now())

    async def clean(self) -> None:
        """Clean every dirty or broken card that nobody has."""
        now = self.clock.now()
        async with self.raw.begin(write=True) as tx:
            for device in await tx.srm.devices():
                if device.state in {CardState.DIRTY, CardState.FAILED} and not device.holder:
                    await tx.srm.put_device(device.moved(CardState.FREE, StateReason.CLEANED, now))
            await tx.desktops.wake_waiting(now)

    async def break_card(self, card: int) -> None:
        """Have a free card fail."""
        async with self.raw.begin(write=True) as tx:
            device = await tx.srm.device(*CARDS[card])
            assert device is not None
            if device.state is CardState.FREE:
                await tx.srm.put_device(device.moved(CardState.FAILED, StateReason.FAULT, self.clock.now()))

    async def play_more(self, name: str, *details: Any) -> bool:
        """Play a move that only this stage knows; False = it is another's."""
        match name, *details:
            case "book", card, delay, length, mine:
                await self.book(card, delay, length, mine=mine)
            case ("unbook",):
                await self.unbook()
            case ("clean",):
                await self.clean()
            case "break", card:
                await self.break_card(card)
            case "restart", which:  # and a place is sought anew
                for desired in (Desired.STOPPED, Desired.RUNNING):
                    await self.want(which, desired)
                    for _ in range(4):
                        self.clock.advance(0.5)
                        await self.whole_pass(which)
            case _:
                return False
        return True

    async def check_always(self, *, one_server: bool) -> None:
        async with self.raw.begin() as tx:
            placements = {one.desktop: one for one in await tx.placing.placements()}
            admitted = {one.id: one for one in await tx.desktops.holders()}
            devices = {(one.host, one.address): one for one in await tx.srm.devices()}
            bookings = await tx.placing.bookings(self.clock.now())
        given = [(one.host, card) for one in placements.values() for card in one.cards]
        assert len(given) == len(set(given)), f"a card was given twice: {given}"
        assert set(placements) <= set(admitted), "somebody has a place who is not admitted"
        for name, placement in placements.items():
            assert len(placement.cards) == admitted[name].resources.gpus
        for host in HOSTS:
            here = [admitted[name].resources for name, one in placements.items() if one.host == host.name]
            assert sum(one.vcpus for one in here) <= host.cpu_milli // 1000, f"CPU of {host.name} was given twice"
        lent = {(one.host, one.address): one.holder for one in devices.values() if one.state is CardState.USED}
        assert lent == {(one.host, card): name for name, one in placements.items() for card in one.cards}, "records disagree"
        self._check_bookings(placements, admitted, bookings)
        if one_server:
            owners = [server.desktop_id for server in self.cloud.world.state.servers.values() if server.gone_at is None]
            assert len(owners) == len(set(owners)), f"two servers for one desktop: {owners}"
            self._check_servers()

    def _check_servers(self) -> None:
        """No two servers that run have one card: a server that is off has given its card back."""
        running = [one for one in self.cloud.world.state.servers.values() if one.gone_at is None and not one.off and not one.fault]
        cards = [(one.spec["host"], card) for one in running for card in one.spec["cards"]]
        assert len(cards) == len(set(cards)), f"two servers run with one card: {cards}"

    def _check_bookings(
        self, placements: dict[DesktopId, Placement], admitted: dict[DesktopId, Desktop], bookings: tuple[Booking, ...]
    ) -> None:
        """Nobody was placed in this move on a card that others have booked before the lease ends."""
        for name, one in placements.items():
            if self._seen.get(name) == one:
                continue
            for booking in bookings:
                (part,) = booking.parts
                theirs = (
                    booking.experiment != admitted[name].experiment and part.host == one.host and set(part.cards) & set(one.cards)
                )
                assert not (theirs and booking.starts < admitted[name].lease_ends_at), (
                    f"{name} was given what {booking.id} promises to others"
                )
        self._seen = placements

    async def settle(self) -> list[Desktop]:
        await self.unbook()
        await self.clean()
        desktops = await super().settle()
        for _ in range(8):  # what was given back meanwhile is cleaned, and who waits for it is looked at again
            async with self.raw.begin() as tx:
                dirty = any(one.state in {CardState.DIRTY, CardState.FAILED} for one in await tx.srm.devices())
            if not dirty:
                break
            await self.clean()
            desktops = await super().settle()
        return desktops

    async def check_room(self, desktops: list[Desktop]) -> None:
        """The first in line finds no host with card and CPU together; a desktop without a card may be kept off idle cards."""
        async with self.raw.begin() as tx:
            placements = await tx.placing.placements()
            admitted = {one.id for one in await tx.desktops.holders()}
            line = await tx.placing.waiting()
        assert {one.desktop for one in placements} == admitted, "a place without a desktop, or a desktop without a place"
        first = next(iter(line), None)
        if first is None or not first.resources.gpus:
            return
        for host in HOSTS:
            here = [one for one in placements if one.host == host.name]
            cards = len(host.cards) - sum(len(one.cards) for one in here)
            cpus = host.cpu_milli // 1000 - sum(SIZES[NAMES.index(one.desktop)].vcpus for one in here)
            enough = cards >= first.resources.gpus and cpus >= first.resources.vcpus
            assert not enough, f"{first.id} waits although {host.name} has room"


async def open_placing_stage(url: str, **options: Any) -> tuple[PlacingStage, SqlStore]:
    store = await SqlStore.open(url)
    await add_people(store)
    async with store.begin(write=True) as tx:
        await tx.people.put_experiment(replace(EXPERIMENT, id=THEIRS, gid=30148, folder="others"))
    stage = PlacingStage(store, FrozenClock(), **options)
    await stage.record_cards()
    return stage, store
