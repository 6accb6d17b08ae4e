"""`beamdesk booking`: desktops booked for an experiment's slot."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from urllib.parse import quote

import typer

from beamdesk.cli.client import Api
from beamdesk.cli.failure import Exit, Failure
from beamdesk.cli.output import AsJson, moment, print_json, print_table, say

bookings = typer.Typer(help="Cards and desktops booked for an experiment's slot.", no_args_is_help=True)

_HEADS = ("ID", "EXPERIMENT", "FROM", "TO", "DESKTOPS", "SIZE", "HOSTS", "NOTE")


def _time(text: str, option: str) -> str:
    """Return a local time, or one with its zone, as the API wants it."""
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError) as error:
        raise Failure(Exit.USAGE, f"{option} must be a time as 2026-03-01T09:00, not {text!r}.") from error


@bookings.command("list")
def list_bookings(as_json: AsJson = False) -> None:
    """List present and future bookings that you may see, soonest first."""
    with Api.signed_in() as api:
        items = api.get("/bookings")["items"]
    if as_json:
        print_json(items)
        return
    rows = (
        (
            one["id"],
            one["experiment"],
            moment(one["starts"]),
            moment(one["ends"]),
            one["desktops"],
            one["flavor"],
            ", ".join(one["hosts"]),
            one["note"],
        )
        for one in items
    )
    print_table(_HEADS, rows, empty="Nothing is booked.")


@bookings.command("add")
def add(
    experiment: Annotated[str, typer.Argument(help="Id of the experiment; you are its local contact, or an operator.")],
    flavor: Annotated[str, typer.Option("--flavor", "-f", help="Size of the desktops.")],
    starts: Annotated[str, typer.Option("--from", help="Local time as 2026-03-01T09:00.")],
    ends: Annotated[str, typer.Option("--to", help="Local time as 2026-03-01T17:00.")],
    desktops: Annotated[int, typer.Option("--desktops", "-n", min=1, help="How many.")] = 1,
    note: Annotated[str, typer.Option(help="For the list; at most 60 characters.")] = "",
    as_json: AsJson = False,
) -> None:
    """Book desktops for an experiment. What overlaps with others is refused with the reason."""
    body = {"experiment": experiment, "flavor": flavor, "desktops": desktops, "note": note}
    body |= {"starts": _time(starts, "--from"), "ends": _time(ends, "--to")}
    with Api.signed_in() as api:
        made = api.send("POST", "/bookings", body)
    if as_json:
        print_json(made)
        return
    typer.echo(f"{made['id']}: {made['desktops']} on {', '.join(made['hosts'])} {' '.join(made['cards'])}".rstrip())


@bookings.command("cancel")
def cancel(booking: Annotated[str, typer.Argument(help="Id of the booking.")]) -> None:
    """Take a booking back; what it promised is free at once."""
    with Api.signed_in() as api:
        api.send("DELETE", f"/bookings/{quote(booking, safe='')}")
    say("Cancelled.")
