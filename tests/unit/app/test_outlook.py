"""What can be had of each size now and later, over hosts, and that nothing is said that is not known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from apikit import IMAGING, START, a_desktop, caller, clock_of, make_ready, running_app
from beamdesk.app import bookings, desktops, offers
from beamdesk.app.bookings import NewBooking
from beamdesk.app.context import App, SiteRules
from beamdesk.domain.catalog import Flavor, Resources
from beamdesk.domain.errors import CloudUnavailable
from beamdesk.domain.ids import DesktopId, FlavorId
from beamdesk.domain.outlook import Outlook
from beamdesk.domain.placement import Placement
from beamdesk.domain.policy import Quota
from beamdesk.domain.text import Text
from beamdesk.scheduling.claims import Grant
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.vocabulary import NOTHING, Words
from placingkit import cpu_host, gpu_host

pytestmark = pytest.mark.anyio
HOUR = timedelta(hours=1)
PLENTY = Quota(99, Resources(999, 9_999_999, 99_999, 99))
NAME = Text("x", "x")
CARD = "0000:00:00.0"


def size(name: str, gpus: int, vcpus: int = 4, words: Words = NOTHING) -> Flavor:
    return Flavor(FlavorId(name), NAME, Resources(vcpus, 8192, 40, gpus), words)


ONE_AND_CPU = (size("one", 1), size("cpu", 0))


@asynccontextmanager
async def site(folder: Path, *hosts: HostFacts, flavors: tuple[Flavor, ...] = ONE_AND_CPU) -> AsyncIterator[App]:
    async def places() -> tuple[HostFacts, ...]:
        return hosts

    rules = SiteRules(person_quota=PLENTY, experiment_quota=PLENTY)
    async with running_app(folder, rules=rules, hosts=places, capacity=no_limit) as app:
        app.catalog.all_flavors = flavors  # type: ignore[attr-defined]
        yield app


async def no_limit() -> None:
    return None


async def looks(app: App, person: str = "ada", **of: str) -> dict[str, tuple[str, Outlook]]:
    experiment, image = of.get("experiment"), of.get("image")
    found = await offers.list_flavors(app, await caller(app, person), experiment, image)  # type: ignore[arg-type]
    return {one.flavor.id: (str(one.state), one.outlook) for one in found}


async def a_running(app: App, flavor: str = "one", host: str = "gpu-1", cards: tuple[str, ...] = (CARD,)) -> DesktopId:
    """Return a desktop that has cards of a host."""
    name = (await a_desktop(app, flavor=flavor)).desktop.id
    await make_ready(app, name)
    async with app.store.begin(write=True) as tx:
        await tx.placing.put(Placement(name, host, tuple(Grant(one) for one in cards), None, START))
    return name


async def test_two_cards_on_two_hosts_are_no_pair(tmp_path: Path) -> None:
    async with site(tmp_path, gpu_host("a", 1), gpu_host("b", 1), flavors=(size("one", 1), size("two", 2))) as app:
        found = await looks(app)
    assert found["one"][0] == "now"
    state, outlook = found["two"]
    assert (state, outlook.lacking, outlook.largest) == ("never", ("gpus",), Resources(16, 65536, 500, 1))


async def test_hosts_for_others_do_not_count(tmp_path: Path) -> None:
    own = replace(gpu_host("b7", 1), aggregates=frozenset({"B7"}), dedicated=True)
    flavors = (size("any", 1), size("ours", 1, words=Words(aggregates=frozenset({"B7"}))))
    async with site(tmp_path, own, cpu_host("c"), flavors=flavors) as app:
        found = await looks(app)
    assert (found["any"][0], found["ours"][0]) == ("never", "now")


async def test_a_card_that_is_in_use_has_a_time_and_a_doubt(tmp_path: Path) -> None:
    async with site(tmp_path, gpu_host("gpu-1", 1), cpu_host("c")) as app:
        await a_running(app)
        found = await looks(app, "bob")
    state, outlook = found["one"]
    assert (state, outlook.lacking, outlook.expected_at) == ("wait", ("gpus",), START + 8 * HOUR)
    assert (outlook.likely_by, outlook.sureness) == (START + 12 * HOUR, "possible")
    assert found["cpu"][0] == "now"


async def test_many_leases_that_end_soon_make_it_likely(tmp_path: Path) -> None:
    async with site(tmp_path, gpu_host("gpu-1", 2)) as app:
        await a_running(app)
        clock_of(app).tick(1800)
        await a_running(app, cards=("0000:01:00.0",))
        _, outlook = (await looks(app, "bob"))["one"]
    assert (outlook.expected_at, outlook.likely_by) == (START + 8 * HOUR, START + 8.5 * HOUR)
    assert outlook.sureness == "likely"


async def test_a_booking_that_a_lease_would_run_into_is_waited_for_and_its_end_is_sure(tmp_path: Path) -> None:
    async with site(tmp_path, gpu_host("gpu-1", 1)) as app:
        olga = await caller(app, "olga")
        await bookings.book(app, olga, NewBooking(IMAGING, FlavorId("one"), START + 2 * HOUR, START + 4 * HOUR))
        state, outlook = (await looks(app, "bob"))["one"]
        assert (state, outlook.lacking, outlook.expected_at) == ("wait", ("booked",), START + 4 * HOUR)
        assert outlook.sureness == "sure"
        assert (await looks(app, "bob", experiment=IMAGING))["one"][0] == "now", "a booking does not bind its own experiment"


async def test_who_is_in_line_comes_first(tmp_path: Path) -> None:
    async with site(tmp_path, gpu_host("gpu-1", 2), flavors=(size("one", 1), size("two", 2))) as app:
        await a_running(app)
        await a_desktop(app, "bob", flavor="two")
        state, outlook = (await looks(app))["one"]
    assert (state, outlook.lacking) == ("wait", ("gpus",))


async def test_what_the_image_asks_for_counts(tmp_path: Path) -> None:
    async with site(tmp_path, gpu_host("gpu-1", 1)) as app:
        general, imaging = app.catalog.all_images  # type: ignore[attr-defined]
        app.catalog.all_images = general, replace(imaging, words=Words(gpu_memory_mib=20000))  # type: ignore[attr-defined]
        assert (await looks(app))["cpu"][0] == "now"
        found = await looks(app, image="imaging")
        assert found["one"][0] == "now"
        state, outlook = found["cpu"]
        assert (state, outlook.lacking) == ("never", ("image_needs",))
        app.catalog.all_images = general, replace(imaging, words=Words(gpu_memory_mib=30000))  # type: ignore[attr-defined]
        assert (await looks(app, image="imaging"))["one"][0] == "never"


async def test_while_the_driver_does_not_answer_nothing_is_said(tmp_path: Path) -> None:
    async def away() -> tuple[HostFacts, ...]:
        raise CloudUnavailable("No connection.")

    async with site(tmp_path, gpu_host("gpu-1", 1)) as app:
        found = await looks(replace(app, hosts=away))
    assert {state for state, _ in found.values()} == {"unknown"}


async def test_an_answer_is_new_as_soon_as_something_changed_and_says_how_old_it_is(tmp_path: Path) -> None:
    async with site(tmp_path, gpu_host("gpu-1", 1)) as app:
        first = (await looks(app))["one"][1]
        clock_of(app).tick(5)
        assert (await looks(app))["one"][1] is first
        clock_of(app).tick(10)
        assert (await looks(app))["one"][1].as_of == START + timedelta(seconds=15)
        name = await a_running(app)
        assert (await looks(app, "bob"))["one"][0] == "wait"
        await desktops.extend(app, await caller(app, "ada"), name)
        assert (await looks(app, "bob"))["one"][1].expected_at == START + timedelta(hours=12, seconds=15)


async def test_the_cost_does_not_grow_with_the_number_of_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = []
    for count in (2, 60):
        flavors = tuple(size(f"s{number}", number % 3, vcpus=1 + number % 8) for number in range(count))
        (folder := tmp_path / str(count)).mkdir()
        async with site(folder, gpu_host("gpu-1", 2), flavors=flavors) as app:
            asked: list[str] = []
            hosts, begin = app.hosts, app.store.begin
            assert hosts is not None

            async def counted_hosts(hosts=hosts, asked=asked) -> tuple[HostFacts, ...]:
                asked.append("hosts")
                return await hosts()

            def counted_begin(begin=begin, asked=asked, **more: bool) -> object:
                asked.append("begin")
                return begin(**more)

            ada = await caller(app, "ada")
            monkeypatch.setattr(app.store, "begin", counted_begin)
            assert len(await offers.list_flavors(replace(app, hosts=counted_hosts), ada)) == count
            costs.append(asked)
            monkeypatch.undo()
    assert costs[0] == costs[1]
