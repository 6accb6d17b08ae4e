"""Bookings of experiments' slots: the list for whoever may see them, a form for local contacts and operators."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus

from starlette.responses import Response

from beamdesk.app import bookings
from beamdesk.app.bookings import NewBooking
from beamdesk.domain.errors import BeamdeskError, Invalid, Refused
from beamdesk.domain.ids import ExperimentId, FlavorId
from beamdesk.portal.say import error_text
from beamdesk.portal.site import Visit, redirect, render, status_of


async def show(visit: Visit, problem: BeamdeskError | None = None) -> Response:
    """Show present and future bookings, and the form where the visitor may book for an experiment."""
    found = await bookings.list_bookings(visit.app, visit.caller)
    experiments = await bookings.bookable_experiments(visit.app, visit.caller)
    return render(
        visit,
        "fleet/bookings.html",
        nav="bookings",
        status=HTTPStatus.OK if problem is None else status_of(problem),
        found=found,
        experiments=experiments if visit.app.hosts is not None else (),
        flavors=await visit.app.catalog.flavors(),
        typed=visit.form,
        problem="" if problem is None else error_text(visit.words, problem),
    )


async def submit(visit: Visit) -> Response:
    """Book; what is refused is said above the form, which keeps what was typed."""
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
        await bookings.book(visit.app, visit.caller, wanted)
    except Refused as error:
        return await show(visit, error)
    return redirect("/bookings")


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
