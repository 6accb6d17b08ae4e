"""A site whose cloud places servers: what is booked there, who spends it, and that its scheduler is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from apikit import DIFFRACTION as FOREIGN
from apikit import FLAVORS, IMAGING, a_desktop, caller, clock_of, make_ready
from beamdesk.app import bookings, desktops, offers, srm, srm_snapshot
from beamdesk.app.bookings import NewBooking
from beamdesk.app.context import App
from beamdesk.app.fleet import see_fleet
from beamdesk.domain.catalog import Resources
from beamdesk.domain.errors import Conflict, Invalid, NotSupported, SlotTaken
from beamdesk.domain.ids import FlavorId
from beamdesk.domain.policy import Quota
from beamdesk.scheduling.arrays import CARD
from beamdesk.scheduling.request import CardDemand
from beamdesk.scheduling.snapshot import open_table
from beamdesk.scheduling.vocabulary import Words
from beamdesk.scheduling.wire import Published, open_scheduler, read_snapshot
from srmkit import FIRST, OPERATOR, SECOND, Agent, a_card, held

pytestmark = pytest.mark.anyio
HOUR = timedelta(hours=1)


async def read(app: App, speaks: int = 2, name: str = "nova") -> tuple[Published, str]:
    token = await srm.make_consumer(app, await caller(app, OPERATOR), name)
    document, tag = await srm_snapshot.snapshot(app, token, address="10.0.0.9", known=lambda _tag: False, speaks=speaks)
    assert document is not None
    return read_snapshot(document), tag


def slot(app: App, start_h: float, end_h: float, **more: object) -> NewBooking:
    now = clock_of(app).now()
    return NewBooking(IMAGING, FlavorId("gpu.small"), now + start_h * HOUR, now + end_h * HOUR, **more)  # type: ignore[arg-type]


async def a_running_desktop(app: App, agent: Agent, address: str = FIRST) -> desktops.DesktopView:
    """Return a GPU desktop whose server has a card, as its host's agent says."""
    view = await a_desktop(app, flavor="gpu.small")
    await make_ready(app, view.desktop.id)
    await agent.say(loads=(held(address, f"server-{view.desktop.id}"),))
    return view


async def test_without_a_scheduler_that_keeps_it_nothing_is_booked(app: App) -> None:
    await Agent.reporting(app)
    olga = await caller(app, OPERATOR)
    with pytest.raises(NotSupported, match="lacks Beamdesk's plugins"):
        await bookings.book(app, olga, slot(app, 1, 2))
    await read(app, speaks=1, name="old")
    await read(app)
    with pytest.raises(NotSupported):
        await bookings.book(app, olga, slot(app, 1, 2))
    await srm.remove_consumer(app, olga, "old")
    assert await bookings.book(app, olga, slot(app, 1, 2))
    clock_of(app).tick(bookings.READ_LATELY.total_seconds() + 1)
    with pytest.raises(NotSupported):
        await bookings.book(app, olga, slot(app, 1, 2))


async def test_cards_of_the_records_are_booked_and_the_scheduler_is_told(app: App) -> None:
    await Agent.reporting(app)
    _, before = await read(app)
    view = await bookings.book(app, await caller(app, OPERATOR), slot(app, 1, 2, desktops=2))
    published, tag = await read(app)
    assert tag != before
    assert {(one.id, one.host, one.cards) for one in published.snapshot.bookings} == {
        (f"{view.booking.id}.0", "gpu01", (FIRST,)),
        (f"{view.booking.id}.1", "gpu01", (SECOND,)),
    }
    assert {(one.cpu_milli, one.memory_mib) for one in published.snapshot.bookings} == {(4000, 16384)}
    await bookings.cancel(app, await caller(app, OPERATOR), view.booking.id)
    published, _ = await read(app)
    assert published.snapshot.bookings == ()


async def test_what_its_desktops_use_of_a_booking_is_no_longer_kept(app: App) -> None:
    agent = await Agent.reporting(app)
    await read(app)
    view = await bookings.book(app, await caller(app, OPERATOR), slot(app, 0, 2, desktops=2))
    await a_running_desktop(app, agent)
    published, _ = await read(app)
    assert [(one.id, one.cards) for one in published.snapshot.bookings] == [(f"{view.booking.id}.1", (SECOND,))]


async def test_the_lease_of_who_has_a_card_counts_and_is_told(app: App) -> None:
    agent = await Agent.reporting(app)
    await read(app)
    view = await a_running_desktop(app, agent)
    olga, ends = await caller(app, OPERATOR), view.desktop.lease_ends_at
    clock_of(app).tick(30)
    await agent.say()
    published, tag = await read(app)
    ((claim, _),) = published.snapshot.claims
    assert (claim.until, claim.cpu_milli) == (ends.timestamp(), 0)
    with pytest.raises(SlotTaken, match="Of 2 desktops 1 can be booked") as refusal:
        await bookings.book(app, olga, slot(app, 1, 2, desktops=2))
    assert refusal.value.nearest == (ends, ends + HOUR)
    await desktops.extend(app, await caller(app, "ada"), view.desktop.id)
    assert (await read(app))[1] != tag


async def test_a_lease_is_not_extended_into_anothers_booking_of_its_card(app: App) -> None:
    agent = await Agent.reporting(app)
    await read(app)
    view = await a_running_desktop(app, agent)
    other = replace(slot(app, 9, 10, desktops=2), experiment=FOREIGN)
    await bookings.book(app, await caller(app, OPERATOR), other)
    with pytest.raises(Conflict, match="GPU is booked from"):
        await desktops.extend(app, await caller(app, "ada"), view.desktop.id)


async def test_only_sizes_with_cards_can_be_booked_where_the_cloud_counts_the_rest(app: App) -> None:
    await Agent.reporting(app)
    await read(app)
    with pytest.raises(Invalid, match="Only sizes with a GPU") as refusal:
        await bookings.book(app, await caller(app, OPERATOR), replace(slot(app, 1, 2), flavor=FlavorId("small")))
    assert refusal.value.field == "flavor"


async def test_sizes_on_offer_and_the_policy_are_told_and_change_the_tag(app: App) -> None:
    await Agent.reporting(app)
    published, tag = await read(app)
    assert [(one.cpu_milli, one.cards.count if one.cards else 0) for one in published.mix] == [
        (1000, 0), (2000, 0), (512000, 0), (4000, 1),
    ]  # fmt: skip
    app.catalog.all_flavors = (*FLAVORS[:3], replace(FLAVORS[3], words=Words(gpu_memory_mib=40000)))  # type: ignore[attr-defined]
    published, changed = await read(app)
    assert published.mix[3].cards == CardDemand(1, memory_mib=40000)
    ruled = replace(app, rules=replace(app.rules, policy="fgd"))
    published, again = await read(ruled)
    assert published.policy == "fgd"
    assert len({tag, changed, again}) == 3
    assert open_scheduler(published).policy.name == "fgd"


async def test_the_tag_changes_when_a_booking_begins_and_when_it_is_over(app: App) -> None:
    agent = await Agent.reporting(app)
    await read(app)
    await bookings.book(app, await caller(app, OPERATOR), slot(app, 1, 2))
    tags = set()
    for _ in range(3):
        tags.add((await read(app))[1])
        clock_of(app).tick(3601)
        await agent.say()
    assert len(tags) == 3


async def test_cards_are_known_by_the_servers_name_on_its_host(app: App) -> None:
    agent = await Agent.reporting(app)
    view = await a_running_desktop(app, agent)
    (host,) = await see_fleet(app, await caller(app, OPERATOR))
    assert [(card.state, card.holder.name if card.holder else "") for card in host.cards] == [
        ("used", view.desktop.name),
        ("free", ""),
    ]


async def test_a_booked_card_of_a_snapshot_is_kept_from_whoever_runs_into_it(app: App) -> None:
    await Agent.reporting(app)
    await read(app)
    await bookings.book(app, await caller(app, OPERATOR), slot(app, 1, 2, desktops=2))
    table = open_table((await read(app))[0].snapshot)
    assert int(table.idle.sum()) == 2 * CARD
    assert len(table.booked) == 1


async def offers_of(app: App, person: str = "bob") -> dict[str, tuple[str, object]]:
    found = await offers.list_flavors(app, await caller(app, person))
    return {one.flavor.id: (str(one.state), one.outlook.sureness) for one in found}


async def no_quota() -> None:
    return None


async def a_small_quota() -> Resources:
    return Resources(3, 6144, 10**6, 10**6)


async def test_of_a_cloud_that_decides_only_what_the_records_tell_is_said(app: App) -> None:
    app = replace(app, capacity=no_quota)
    app = replace(app, rules=replace(app.rules, person_quota=Quota(9, Resources(9999, 10**9, 10**9, 9))))
    assert set((await offers_of(app)).values()) == {("unknown", None)}
    agent = await Agent.reporting(app, cards=(a_card(FIRST),))
    assert await offers_of(app) == dict.fromkeys(("small", "medium", "huge"), ("unknown", None)) | {"gpu.small": ("now", "likely")}
    view = await a_running_desktop(app, agent)
    found = {one.flavor.id: one for one in await offers.list_flavors(app, await caller(app, "bob"))}
    assert (found["gpu.small"].state, found["gpu.small"].lacking) == ("wait", ("gpus",))
    outlook = found["gpu.small"].outlook
    assert (outlook.expected_at, outlook.sureness) == (view.desktop.lease_ends_at, "possible")


async def test_the_clouds_own_quota_counts(app: App) -> None:
    view = await a_desktop(app, "ada", flavor="medium")
    allowed = replace(app, capacity=a_small_quota)
    assert {name: (await offers_of(allowed))[name][0] for name in ("medium", "huge")} == {"medium": "unknown", "huge": "never"}
    await make_ready(app, view.desktop.id)
    assert (await offers_of(allowed))["medium"][0] == "wait"
