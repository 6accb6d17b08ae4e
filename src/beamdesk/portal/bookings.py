"""Bookings of experiments' slots: the list for whoever may see them; for whoever may book, who has which card when, and a form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from starlette.responses import Response

from beamdesk.app import bookings
from beamdesk.app.bookings import NewBooking
from beamdesk.app.timeline import Track, see_timeline
from beamdesk.domain.errors import BeamdeskError, Invalid, NotSupported, Refused, SlotTaken
from beamdesk.domain.ids import ExperimentId, FlavorId
from beamdesk.portal.live import newest_event
from beamdesk.portal.say import error_text
from beamdesk.portal.site import Visit, redirect, render, status_of
from beamdesk.portal.timeline import LENGTHS, Picture, draw, midnight

_FIELDS = ("experiment", "flavor", "desktops", "starts", "ends", "note")


async def show(visit: Visit, problem: BeamdeskError | None = None) -> Response:
    """Show present and future bookings; with htmx only the part that changes by itself."""
    position = await newest_event(visit.app)
    found = await bookings.list_bookings(visit.app, visit.caller)
    experiments = await bookings.bookable_experiments(visit.app, visit.caller)
    return render(
        visit,
        "fleet/bookings_live.html" if visit.partial else "fleet/bookings.html",
        nav="bookings",
        status=HTTPStatus.OK if problem is None else status_of(problem),
        position=position,
        query=visit.request.url.query,
        found=found,
        sizes={one.id: one for one in await visit.app.catalog.flavors()},
        picture=await _picture(visit) if experiments else None,
        lengths=LENGTHS,
        words=visit.query("q")[:80],
        experiments=experiments,
        typed=visit.form or {name: visit.query(name)[:80] for name in _FIELDS},
        errors=_beside(visit, problem),
        nearest=problem.nearest if isinstance(problem, SlotTaken) else None,
    )


async def _picture(visit: Visit) -> Picture:
    """Lay out who has which card when."""
    tracks = await see_timeline(visit.app, visit.caller)
    words = visit.query("q")[:80].casefold()
    typed = visit.query("days")
    days = int(typed) if typed in {str(one) for one in LENGTHS} else 7
    shown = [one for one in tracks if _matches(one, words)]
    return draw(shown, _day(visit), days, visit.say)


def _day(visit: Visit) -> datetime:
    """Return the beginning of the day that is asked for, of today where none is."""
    now = visit.app.clock.now()
    try:
        wanted = datetime.fromisoformat(visit.query("from")[:10]).replace(tzinfo=visit.say.zone or UTC)
    except ValueError:
        return midnight(now, visit.say)
    return max(midnight(now, visit.say) - timedelta(days=1), min(wanted.astimezone(UTC), now + bookings.FURTHEST))


def _matches(track: Track, words: str) -> bool:
    texts = [track.host, track.card, track.model]
    texts += [text for span in track.spans for text in (span.proposal, span.name, span.person)]
    return any(words in text.casefold() for text in texts)


def _beside(visit: Visit, problem: BeamdeskError | None) -> dict[str, str]:
    if problem is None:
        return {}
    return {problem.field if problem.field in _FIELDS else "form": error_text(visit.words, problem)}


async def submit(visit: Visit) -> Response:
    """Book; what is refused is said beside the field, and the form keeps what was typed."""
    form = visit.form
    try:
        count = form.get("desktops", "")
        wanted = NewBooking(
            ExperimentId(form.get("experiment", "")),
            FlavorId(form.get("flavor", "")),
            _moment(visit, "starts"),
            _moment(visit, "ends"),
            int(count) if count.isascii() and count.isdigit() and len(count) < 4 else 0,
            form.get("note", ""),
        )
        made = await bookings.book(visit.app, visit.caller, wanted)
    except (Refused, NotSupported) as error:
        return await show(visit, error)
    return redirect(f"/bookings#title-{made.booking.id}")


def _moment(visit: Visit, name: str) -> datetime:
    """Return a time that was typed in the visitor's zone (in UTC where that is not known)."""
    try:
        typed = datetime.fromisoformat(visit.form.get(name, ""))
        return typed.replace(tzinfo=typed.tzinfo or visit.say.zone or UTC).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Invalid("Choose when the slot begins and ends.", field=name) from error


async def cancel(visit: Visit) -> Response:
    """Take a booking back."""
    await bookings.cancel(visit.app, visit.caller, visit.path("booking"))
    return redirect("/bookings")
