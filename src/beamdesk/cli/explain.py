"""`beamdesk schedule explain` and `schedule hosts`: what the scheduler of a deployment decided, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from beamdesk.cli.client import Api
from beamdesk.cli.desktops import find_desktop
from beamdesk.cli.output import AsJson, moment, print_fields, print_json, print_table, say
from beamdesk.cli.words import OUTCOMES, lacking

_BAR = 24


def explain_command(
    desktop: Annotated[str, typer.Argument(help="Its id or name, or a beginning.")],
    as_json: AsJson = False,
) -> None:
    """Say why a desktop is on its host, why not on another, and when it could run if it waits."""
    with Api.signed_in() as api:
        found = api.get(f"/desktops/{find_desktop(api, desktop)['id']}/explanation")
    if as_json:
        print_json(found)
        return
    print_fields(_fields(found))
    if found["ranking"]:
        say("")
        print_table(("HOST", "TOTAL", "", "TERMS"), _ranking(found["ranking"]), empty="")
    if found["refused"] or found["counts"]:
        say("")
        rows = [(one["host"], one["text"]) for one in found["refused"]] or [
            (f"{one['hosts']} hosts", one["text"]) for one in found["counts"]
        ]
        print_table(("NOT", "BECAUSE"), rows, empty="")


def _fields(found: dict[str, Any]) -> Iterator[tuple[str, object]]:
    yield "Outcome", OUTCOMES.get(found["outcome"], found["outcome"])
    yield "Host", found["host"]
    yield "Cards", ", ".join(found["cards"])
    yield "Because", found["impossible"]
    if found["outcome"] == "waiting":
        yield "Place in line", found["place"]
        yield "Waits for", lacking(found["lacking"])
        yield "Others first", "it would fit, but others came before it" if found["behind"] else ""
        yield "Could run", moment(found["expected_at"]) or "not known: leases do not tell"
    yield "Policy", found["policy"]
    yield "Decided", moment(found["decided_at"])


def _ranking(ranking: list[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    most = max((abs(one["total"]) for one in ranking), default=0.0) or 1.0
    for one in ranking:
        bar = "#" * max(1, round(_BAR * abs(one["total"]) / most)) if one["total"] else ""
        terms = "  ".join(f"{name} {value:+.3f}" for name, value in one["terms"].items())
        yield one["host"], f"{one['total']:+.3f}", bar, terms


def hosts_command(as_json: AsJson = False) -> None:
    """List hosts and cards with their states and who has what (operators)."""
    with Api.signed_in() as api:
        hosts = api.get("/scheduling/hosts")["items"]
    if as_json:
        print_json(hosts)
        return
    print_table(("HOST", "CARD", "MODEL", "STATE", "HELD BY"), _cards(hosts), empty="There is no host.")


def _cards(hosts: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for host in hosts:
        state = "silent" if host["stale"] else "open" if host["enabled"] else "closed"
        used = "" if host["cpu_used"] is None else f"{host['cpu_used'] / 1000:g} of "
        cpu = f"{used}{host['cpu_milli'] / 1000:g} CPUs"
        yield host["name"], "", cpu, state, ", ".join(one["name"] for one in host["desktops"])
        for card in host["cards"]:
            holder = card["holder"]
            yield "", card["address"], card["model"], card["state"], f"{holder['name']} {holder['owner']}".strip() if holder else ""
