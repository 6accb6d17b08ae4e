"""The page of bookings: who has which card when, what is refused beside its field, and a slot that has room instead."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from apikit import DIFFRACTION, IMAGING, START, a_desktop, caller, make_ready
from beamdesk.app import bookings
from beamdesk.app.bookings import NewBooking
from beamdesk.app.context import App
from beamdesk.app.timeline import Span, SpanKind, Track, see_timeline
from beamdesk.domain.errors import Forbidden
from beamdesk.domain.ids import ExperimentId, FlavorId, PersonId
from beamdesk.domain.person import Person, Role
from beamdesk.domain.placement import Placement
from beamdesk.portal.i18n import words_for
from beamdesk.portal.say import Say
from beamdesk.portal.timeline import draw
from beamdesk.scheduling.claims import Grant

from .conftest import Browse
from .pages import field, send, text

pytestmark = pytest.mark.anyio
HOUR = timedelta(hours=1)
CARD = "0000:3b:00.0"
HTMX = {"HX-Request": "true"}


async def a_booking(app: App, experiment: str = IMAGING, start_h: float = 24, hours: float = 4, note: str = "") -> str:
    starts = START + start_h * HOUR
    wanted = NewBooking(ExperimentId(experiment), FlavorId("gpu.small"), starts, starts + hours * HOUR, note=note)
    return (await bookings.book(app, await caller(app, "olga"), wanted)).booking.id


async def with_a_card(app: App, person: str = "bob") -> str:
    """Return a desktop that has the site's card."""
    view = await a_desktop(app, person, flavor="gpu.small", name="Of Bob")
    await make_ready(app, view.desktop.id)
    async with app.store.begin(write=True) as tx:
        await tx.placing.put(Placement(view.desktop.id, "host-1", (Grant(CARD),), None, START))
    return view.desktop.id


async def a_local_contact(app: App, beamline: str) -> None:
    async with app.store.begin(write=True) as tx:
        await tx.people.put_person(
            Person(PersonId("eva"), "eva", "Eva Brandt", 20105, role=Role.BEAMLINE_SCIENTIST, beamlines=frozenset({beamline}))
        )


async def test_an_operator_sees_who_has_which_card_and_who_booked_it(app: App) -> None:
    desktop = await with_a_card(app)
    booking = await a_booking(app, note="night shift")
    (track,) = await see_timeline(app, await caller(app, "olga"))
    lease, booked = track.spans
    assert (track.host, track.card, track.state) == ("host-1", CARD, "used")
    assert (lease.kind, lease.start, lease.end, lease.name, lease.person) == (
        SpanKind.LEASE, START, START + 8 * HOUR, "Of Bob", "Bob Meyer",
    )  # fmt: skip
    assert (lease.desktop, booked.booking, booked.name, booked.start) == (desktop, booking, "night shift", START + 24 * HOUR)


async def test_a_local_contact_is_told_of_own_beamlines_and_of_others_only_that_it_is_taken(app: App) -> None:
    await with_a_card(app)
    await a_booking(app, DIFFRACTION, note="secret plan")
    await a_local_contact(app, "B8")
    (track,) = await see_timeline(app, await caller(app, "eva"))
    lease, booked = track.spans
    assert (lease.name, lease.person, lease.desktop, lease.proposal) == ("", "", "", "")
    assert (booked.name, booked.proposal) == ("secret plan", "HEPS-2026-0212")


async def test_who_may_book_nothing_sees_no_timeline(app: App, browse: Browse) -> None:
    await a_booking(app)
    with pytest.raises(Forbidden):
        await see_timeline(app, await caller(app, "bob"))
    async with browse("bob") as client:
        page = await client.get("/bookings")
    assert 'class="timeline"' not in page.text
    assert "HEPS-2026-0147" in text(page)


async def test_the_page_shows_the_picture_and_says_the_same_in_a_table(app: App, browse: Browse) -> None:
    desktop = await with_a_card(app)
    booking = await a_booking(app, note="night shift")
    async with browse("olga") as client:
        page = await client.get("/bookings")
    assert f'href="/desktops/{desktop}"' in page.text
    assert f'href="#title-{booking}"' in page.text
    assert f'id="title-{booking}"' in page.text
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", page.text, re.DOTALL)
    assert [("In use" in row, "Booked" in row) for row in rows] == [(True, False), (False, True)]


async def test_the_changing_part_is_fetched_by_itself_with_what_was_chosen(app: App, browse: Browse) -> None:
    async with browse("olga") as client:
        page = await client.get("/bookings?days=14&q=nothing")
        part = await client.get("/bookings?days=14&q=nothing", headers=HTMX)
    assert 'hx-sse:connect="/live?after=' in page.text
    assert 'data-live-activity hx-get="/bookings?days=14&amp;q=nothing"' in page.text
    assert part.text.lstrip().startswith('<div id="bookings"')
    assert "No card matches" in text(part)


@pytest.mark.parametrize(
    ("typed", "where", "says"),
    [
        ({"desktops": "0"}, "desktops", "1 to 32 desktops"),
        ({"desktops": "many"}, "desktops", "1 to 32 desktops"),
        ({"starts": ""}, "starts", "Choose when"),
        ({"ends": "2026-03-02T08:00"}, "ends", "ends after it begins"),
        ({"ends": "2026-03-30T08:00"}, "ends", "at most 14 days"),
        ({"starts": "2030-03-02T09:00", "ends": "2030-03-02T10:00"}, "starts", "within a year"),
        ({"flavor": "gpu.huge"}, "flavor", "no size of this name"),
        ({"flavor": "huge"}, "flavor", "No host of this site"),
        ({"note": "x" * 61}, "note", "at most 60 characters"),
        ({"experiment": "no-such"}, "form", "no such experiment"),
    ],
)
async def test_what_is_refused_is_said_beside_its_field_and_the_form_keeps_what_was_typed(
    browse: Browse, typed: dict[str, str], where: str, says: str
) -> None:
    good = {
        "experiment": IMAGING,
        "flavor": "gpu.small",
        "desktops": "1",
        "starts": "2026-03-02T09:00",
        "ends": "2026-03-02T12:00",
        "note": "n",
    }
    async with browse("olga") as client:
        page = await send(client, "/bookings", **(good | typed))
    assert page.status_code in {400, 404, 409}
    beside = re.search(rf'id="{where}-error" role="alert">.*?</svg>(.*?)</p>', page.text, re.DOTALL)
    assert beside, text(page)
    assert says in beside[1]
    assert field(page, "note") == (good | typed)["note"]


async def test_a_slot_that_is_taken_is_refused_with_one_that_is_not_which_a_click_books(app: App, browse: Browse) -> None:
    await a_booking(app, DIFFRACTION, 24, 4)
    wanted = {"experiment": IMAGING, "flavor": "gpu.small", "desktops": "1", "note": ""}
    async with browse("olga") as client:
        page = await send(client, "/bookings", starts="2026-03-02T11:00", ends="2026-03-02T13:00", **wanted)
        assert page.status_code == 409
        assert "Of 1 desktops 0 can be booked" in text(page)
        proposal = re.search(r'class="proposal">(.*?)</form>', page.text, re.DOTALL)
        assert proposal
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', proposal[1]))
        assert (fields["starts"], fields["ends"]) == ("2026-03-02T13:00:00Z", "2026-03-02T15:00:00Z")
        fields.pop("csrf")
        done = await send(client, "/bookings", **fields)
    assert done.status_code == 303
    made = [view.booking for view in await bookings.list_bookings(app, await caller(app, "olga"))]
    assert [(one.experiment, one.starts) for one in made][1] == (IMAGING, START + 28 * HOUR)


async def test_where_nothing_would_keep_it_the_form_says_so(app: App, browse: Browse) -> None:
    object.__setattr__(app, "hosts", None)
    async with browse("olga") as client:
        page = await send(
            client,
            "/bookings",
            experiment=IMAGING,
            flavor="gpu.small",
            desktops="1",
            starts="2026-03-02T11:00",
            ends="2026-03-02T13:00",
        )
    assert page.status_code == 501
    assert "lacks Beamdesk's plugins" in text(page)


def test_bars_are_cut_to_what_is_shown_and_one_without_an_end_goes_on() -> None:
    say = Say(words_for("en"), START)
    track = Track("h", "c", "A10", "used", ())
    spans = [(START - HOUR, START + 6 * HOUR), (START + 12 * HOUR, None), (START + 48 * HOUR, START + 49 * HOUR)]
    tracks = [replace(track, spans=tuple(Span(SpanKind.LEASE, start, end) for start, end in spans))]
    picture = draw(tracks * 70, START, 1, say)
    assert [(bar.x, bar.width, bar.open) for bar in picture.lines[0].bars] == [(0.0, 25.0, False), (50.0, 50.0, True)]
    assert (len(picture.lines), picture.hidden, picture.now) == (60, 10, 0.0)
