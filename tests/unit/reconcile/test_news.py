"""What changed is looked at, and nothing else: while a cloud tells its news, and while it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from beamdesk.adapters.fake.cloud import FakeCloud, FakeTimes
from beamdesk.adapters.fake.guest import FakeGuests
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.adapters.system import SystemClock, SystemSecrets
from beamdesk.domain.desktop import Desired, Desktop, Phase, Reason
from beamdesk.domain.errors import CloudUnavailable
from beamdesk.domain.guest import Guest
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.secrets import hash_secret
from beamdesk.domain.server import Observation, Server, ServerStatus
from beamdesk.ports.cloud import News, ServerSpec
from beamdesk.reconcile.apply import outcome_of
from beamdesk.reconcile.keeping import Answers
from beamdesk.reconcile.main import run
from beamdesk.reconcile.news import NewsReader
from beamdesk.reconcile.rules import ReconcileRules
from beamdesk.reconcile.worker import Worker
from engine_kit import T0, FrozenClock, make_desktop

pytestmark = pytest.mark.anyio
NAMES = tuple(DesktopId(f"desktop{number:02}") for number in range(6))
_TIMES = replace(ReconcileRules().timings, poll=timedelta(milliseconds=100))
RULES = replace(ReconcileRules(), timings=_TIMES)


class TellingCloud(FakeCloud):
    """A fake cloud that tells its news, and counts what it is asked."""

    def __init__(self, build_s: float = 0.0) -> None:
        super().__init__(SystemClock(), times=FakeTimes(build=build_s), capacity=None)
        self.looks = 0
        self.told = 0
        self.silent = False
        self.takes_s = 0.0
        self.away = False
        self.proves_in_s = 3600.0
        self.proved = 0
        self.trusted = True
        self.firsts: list[bool] = []
        self._last: dict[str, tuple[DesktopId, ServerStatus]] = {}

    async def create_server(self, spec: ServerSpec) -> Server:
        self.firsts.append(spec.first)
        return await super().create_server(spec)

    async def find_servers(self, desktop_id: DesktopId) -> Observation:
        self.looks += 1
        return await super().find_servers(desktop_id)

    async def server_news(self) -> News:
        self.told += 1
        if self.away:
            raise CloudUnavailable("The fake cloud tells no news.")
        await asyncio.sleep(3600 if self.silent else self.takes_s)
        now = {str(one.id): (one.desktop_id, one.status) for one in (await self.list_servers()).servers}
        other = {state[0] for key, state in {**self._last, **now}.items() if self._last.get(key) != now.get(key)}
        self._last = now
        return News(frozenset(other))

    async def prove(self) -> None:
        self.proved += 1
        if self.proves_in_s:
            await asyncio.sleep(self.proves_in_s)

    def news_is_away(self) -> None:
        self.trusted = False


async def insert(store: SqlStore, *desktops: Desktop) -> None:
    async with store.begin(write=True) as tx:
        for one in desktops:
            await tx.desktops.insert(one)


async def postpone(store: SqlStore, desktop_id: DesktopId) -> None:
    async with store.begin(write=True) as tx:
        (claimed,) = await tx.desktops.claim(token="t", now=T0, until=LATER, limit=1)
        assert await tx.desktops.apply(claimed, replace(outcome_of(claimed.desktop), due_at=LATER), T0)


async def get(store: SqlStore, desktop_id: DesktopId) -> Desktop:
    async with store.begin() as tx:
        row = await tx.desktops.get(desktop_id)
    assert row is not None
    return row


def reader(store: SqlStore, cloud: TellingCloud, answers: Answers, rules: ReconcileRules = RULES) -> NewsReader:
    return NewsReader(store, cloud, FrozenClock(), rules, answers)


LATER = T0 + timedelta(seconds=60)


async def test_nobody_is_asked_while_nothing_moves(store: SqlStore) -> None:
    cloud, answers = TellingCloud(), Answers()
    await insert(store, make_desktop(NAMES[0], phase=Phase.READY), make_desktop(NAMES[1], phase=Phase.QUEUED))
    await reader(store, cloud, answers).read()
    assert cloud.told == 0


async def test_the_first_news_wakes_everything_that_moves_and_later_ones_what_changed(store: SqlStore) -> None:
    cloud, answers = TellingCloud(), Answers()
    await insert(store, *(make_desktop(one, phase=Phase.BUILDING, due_at=LATER) for one in NAMES[:2]))
    await insert(store, make_desktop(NAMES[2], phase=Phase.READY, due_at=LATER))
    news = reader(store, cloud, answers)
    await news.read()
    assert not answers.uninformed
    assert [(await get(store, one)).due_at for one in NAMES[:3]] == [T0, T0, LATER]


async def test_when_news_stays_away_everything_is_looked_at_again(store: SqlStore) -> None:
    cloud, answers = TellingCloud(), Answers()
    await insert(store, make_desktop(NAMES[0], phase=Phase.DELETING, due_at=LATER))
    cloud.away = True
    await reader(store, cloud, answers).read()
    assert (answers.uninformed, answers.silent, cloud.trusted) == (True, False, False)
    assert (await get(store, NAMES[0])).due_at == T0


async def test_a_cloud_that_never_answers_is_known_to_be_silent(store: SqlStore) -> None:
    cloud, answers = TellingCloud(), Answers()
    await insert(store, make_desktop(NAMES[0], phase=Phase.BOOTING, due_at=LATER))
    cloud.silent = True
    hasty = replace(RULES, timings=replace(RULES.timings, patience=timedelta(milliseconds=10)))
    await reader(store, cloud, answers, hasty).read()
    assert (answers.uninformed, answers.silent) == (True, True)


HASTY = replace(RULES, timings=replace(RULES.timings, patience=timedelta(seconds=0.1)))


@pytest.mark.parametrize(
    ("others", "proves_in_s", "silent"),
    [(True, 3600, False), (False, 0, False), (False, 3600, True)],
    ids=["others get answers", "nobody else asks", "nobody gets an answer"],
)
async def test_news_that_takes_long_wakes_everything_only_when_nobody_would_get_an_answer(
    store: SqlStore, others: bool, proves_in_s: float, silent: bool
) -> None:
    """To look at everything because a question takes long keeps a busy cloud busy."""
    cloud, answers = TellingCloud(), Answers()
    await insert(store, make_desktop(NAMES[0], phase=Phase.BOOTING, due_at=LATER))
    news = reader(store, cloud, answers, replace(RULES, timings=replace(RULES.timings, patience=timedelta(seconds=0.4))))
    await news.read()  # the first wakes everything
    await postpone(store, NAMES[0])
    cloud.takes_s, cloud.proves_in_s = 1.4, proves_in_s
    told: list[bool] = []

    async def answer() -> None:
        while True:
            if others:
                answers.got_one()
            told.append(answers.silent)
            await asyncio.sleep(0.01)

    answering = asyncio.create_task(answer())
    await news.read()
    answering.cancel()
    assert any(told) is silent
    assert ((await get(store, NAMES[0])).due_at == T0) is silent
    assert (answers.silent, answers.uninformed, cloud.trusted) == (False, False, True), "it came in the end"
    assert cloud.proved > 0 or others


async def test_who_moves_hears_of_a_silent_cloud_and_asks_nothing_until_it_answers_somebody(store: SqlStore) -> None:
    cloud = TellingCloud()
    await insert(store, make_desktop(NAMES[0], phase=Phase.BUILDING), make_desktop(NAMES[1], phase=Phase.BUILDING))
    hasty, patient = (
        Worker(store, cloud, FrozenClock(), SystemSecrets(), replace(HASTY, call_timeout=timedelta(seconds=wait_s)))
        for wait_s in (0.2, 30)
    )
    for one in (hasty, patient):
        one.answers.falls_silent()
    first, second = await hasty.claim(2)
    await hasty.process(first)
    row = await get(store, first.desktop.id)
    assert (cloud.looks, row.reason, row.attempts) == (0, Reason.CLOUD_UNAVAILABLE, 1)
    waiting = asyncio.create_task(patient.process(second))
    for _ in range(500):
        await asyncio.sleep(0.01)
        if (await get(store, second.desktop.id)).reason is Reason.CLOUD_BUSY:
            break
    else:
        pytest.fail("it says nothing while it waits")
    patient.answers.speaks()
    await waiting
    assert (cloud.looks, (await get(store, second.desktop.id)).attempts) == (1, 0)


async def test_a_silent_cloud_is_asked_for_news_though_nothing_moves_so_that_somebody_finds_out(store: SqlStore) -> None:
    cloud, answers = TellingCloud(), Answers()
    await insert(store, make_desktop(NAMES[0], phase=Phase.READY))
    answers.falls_silent()
    await reader(store, cloud, answers).read()
    assert (cloud.told, answers.silent) == (1, False)


async def test_news_that_is_late_is_asked_for_again_before_everything_is_looked_at(store: SqlStore) -> None:
    cloud, answers = TellingCloud(), Answers()
    await insert(store, make_desktop(NAMES[0], phase=Phase.BOOTING, due_at=LATER))
    cloud.silent, cloud.proves_in_s = True, 0.0
    news = reader(store, cloud, answers, HASTY)
    await news.read()
    assert (answers.uninformed, cloud.trusted, (await get(store, NAMES[0])).due_at) == (False, True, LATER)
    await news.read()
    assert (answers.uninformed, cloud.trusted, (await get(store, NAMES[0])).due_at) == (True, False, T0)
    cloud.silent = False
    await news.read()
    assert not answers.uninformed
    cloud.silent = True
    await news.read()
    assert not answers.uninformed, "it came meanwhile: that is the first time again"


async def test_news_that_is_late_because_nobody_gets_answers_any_more_is_away(store: SqlStore) -> None:
    """Places of a cloud that answer do not hide one that does not."""
    cloud, answers = TellingCloud(), Answers()
    await insert(store, make_desktop(NAMES[0], phase=Phase.BOOTING, due_at=LATER))
    cloud.silent = True

    async def answer() -> None:
        while True:
            answers.got_one()
            await asyncio.sleep(0.01)

    answering = asyncio.create_task(answer())
    await reader(store, cloud, answers, HASTY).read()
    answering.cancel()
    assert (answers.uninformed, cloud.trusted) == (True, False)


@pytest.mark.parametrize(
    ("changes", "with_guest", "known", "looks"),
    [
        ({}, False, "news comes", 0),
        ({}, False, "no news comes", 1),
        ({}, False, "nothing", 1),
        ({}, True, "news comes", 1),
        ({"attempts": 1}, False, "news comes", 1),
        ({"phase_since": T0 + timedelta(seconds=1)}, False, "news comes", 1),
        ({"detail": "No host is free."}, False, "news comes", 1),
    ],
    ids=[
        "nothing was ever ordered",
        "no news comes",
        "nobody had an answer",
        "an order was begun",
        "tried before",
        "came back",
        "was refused",
    ],
)
async def test_only_what_was_never_ordered_is_ordered_without_a_look(
    store: SqlStore, changes: dict[str, object], with_guest: bool, known: str, looks: int
) -> None:
    cloud = TellingCloud()
    await insert(store, make_desktop(NAMES[0], **changes))
    if with_guest:
        async with store.begin(write=True) as tx:
            await tx.guests.put(Guest(NAMES[0], hash_secret("n"), LATER, None, "s"))
    worker = Worker(store, cloud, FrozenClock(), SystemSecrets(), RULES)
    worker.answers.uninformed = known == "no news comes"
    if known != "nothing":
        worker.answers.got_one()
    (claimed,) = await worker.claim(1)
    await worker.process(claimed)
    assert (cloud.looks, cloud.firsts) == (looks, [not changes and not with_guest])
    assert (await get(store, NAMES[0])).phase is Phase.BUILDING


class Site:
    """A reconciler at work on a cloud that tells its news."""

    def __init__(self, store: SqlStore, cloud: TellingCloud) -> None:
        self.store = store
        self.cloud = cloud
        self.guests = FakeGuests(store, cloud.world, SystemClock(), SystemSecrets(), step_s=0.01)
        self.stop = asyncio.Event()

    async def live(self) -> None:
        working = run(self.store, self.cloud, SystemClock(), SystemSecrets(), RULES, self.stop)
        await asyncio.gather(working, self.guests.run(self.stop))

    async def reach(self, *desktops: DesktopId, phase: Phase = Phase.READY, within_s: float = 20) -> None:
        async with asyncio.timeout(within_s):
            for one in desktops:
                while True:
                    if (await get(self.store, one)).phase is phase:
                        break
                    await asyncio.sleep(0.05)

    async def gone(self, *desktops: DesktopId, within_s: float = 20) -> None:
        async with asyncio.timeout(within_s):
            while True:
                async with self.store.begin() as tx:
                    if not set(desktops) & await tx.desktops.known_ids():
                        return
                await asyncio.sleep(0.05)


@pytest.fixture
async def site(store: SqlStore) -> AsyncIterator[Site]:
    made = Site(store, TellingCloud(build_s=1.5))
    living = asyncio.create_task(made.live())
    yield made
    made.stop.set()
    async with asyncio.timeout(10):
        await living


async def test_desktops_under_construction_are_not_looked_at_again_and_again(site: Site) -> None:
    now = SystemClock().now()
    site.guests.silent.update(NAMES)
    await insert(site.store, *(make_desktop(one, now) for one in NAMES))
    await site.reach(*NAMES, phase=Phase.BOOTING)
    assert site.cloud.looks <= 4 * len(NAMES), "fifteen polls fit into the time of building"


async def test_a_desktop_goes_soon_once_its_server_is_gone(site: Site) -> None:
    now = SystemClock().now()
    await insert(site.store, make_desktop(NAMES[0], now))
    await site.reach(NAMES[0])
    async with site.store.begin(write=True) as tx:
        await tx.desktops.change_intent(NAMES[0], now=SystemClock().now(), desired=Desired.DELETED, reason=Reason.USER)
    await site.gone(NAMES[0])


async def test_news_that_stays_away_in_the_middle_delays_nobody(site: Site) -> None:
    now = SystemClock().now()
    await insert(site.store, make_desktop(NAMES[0], now))
    await site.reach(NAMES[0], phase=Phase.BUILDING)
    site.cloud.away = True
    await site.reach(NAMES[0])
