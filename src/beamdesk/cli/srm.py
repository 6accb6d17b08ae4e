"""`beamdesk srm`: operators see and set hosts and cards; on a host, the agent is enrolled and run.

Secrets never come as arguments, and go to standard output alone, so that they can be piped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from beamdesk.cli.client import Api
from beamdesk.cli.failure import Exit, Failure
from beamdesk.cli.output import AsJson, moment, print_fields, print_json, print_table, say
from beamdesk.srm import main as agent
from beamdesk.srm.config import DEFAULT, Config, load
from beamdesk.srm.errors import ApiUnavailable, SrmError

srm = typer.Typer(help="Hosts and their GPUs (System Resource Monitoring).", no_args_is_help=True)
host = typer.Typer(help="Hosts, for operators.", no_args_is_help=True)
device = typer.Typer(help="Cards, for operators.", no_args_is_help=True)
consumer = typer.Typer(help="Programs that may read the scheduling snapshot, for operators.", no_args_is_help=True)
srm.add_typer(host, name="host")
srm.add_typer(device, name="device")
srm.add_typer(consumer, name="consumer")

Name = Annotated[str, typer.Argument(help="The host's name.")]
Address = Annotated[str, typer.Argument(help="The card's PCI address, e.g. 0000:3b:00.0.")]
ConfigFile = Annotated[Path, typer.Option("--config", envvar="BEAMDESK_SRM_CONFIG", help="The agent's configuration.")]


def _path(*parts: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in parts)


@srm.command("enrol")
def enrol(
    name: Name,
    aggregate: Annotated[
        list[str] | None, typer.Option("--aggregate", help="A group of hosts that it is in; may be repeated.")
    ] = None,
    dedicated: Annotated[bool, typer.Option("--dedicated", help="Only for requests that name one of its aggregates.")] = False,
    again: Annotated[bool, typer.Option("--again", help="It is enrolled already; its old credential is void at once.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the one-time token with which a host's agent enrols (`beamdesk srm join` there)."""
    body = {"name": name, "aggregates": aggregate or [], "dedicated": dedicated, "again": again}
    with Api.signed_in() as api:
        made = api.send("POST", "/srm/hosts", body)
    if as_json:
        print_json(made)
        return
    sys.stdout.write(f"{made['token']}\n")
    say(f"On {name}, before {moment(made['expires_at'])}: beamdesk srm join   (it asks for this token)")


@host.command("list")
def list_hosts(as_json: AsJson = False) -> None:
    """List hosts: how they are, how many cards in which state."""
    with Api.signed_in() as api:
        items = api.get("/srm/hosts")["items"]
    if as_json:
        print_json(items)
        return
    rows = (
        (one["name"], _health(one), _count(one["cards"]), ", ".join(one["aggregates"]), moment(one["seen_at"])) for one in items
    )
    print_table(("HOST", "STATE", "CARDS", "AGGREGATES", "LAST REPORT"), rows, empty="No host is enrolled. See: beamdesk srm enrol")


def _health(one: dict[str, Any]) -> str:
    if not one["enrolled"]:
        return "not enrolled"
    if one["seen_at"] is None:
        return "never reported"
    return "stale" if one["stale"] else ("ready" if one["enabled"] else "closed")


def _count(cards: list[dict[str, Any]]) -> str:
    states = [card["state"] for card in cards]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "none"


@host.command("show")
def show_host(name: Name, as_json: AsJson = False) -> None:
    """Show a host and its cards."""
    with Api.signed_in() as api:
        one = api.get(_path("srm", "hosts", name))
    if as_json:
        print_json(one)
        return
    used = one["memory_used_mib"]
    fields = (
        ("Host", one["name"]),
        ("State", _health(one)),
        ("CPUs", one["cpus"]),
        ("Memory", f"{one['memory_mib']} MiB" + (f", {used} in use" if used is not None else "") if one["memory_mib"] else None),
        ("Aggregates", ", ".join(one["aggregates"])),
        ("Only for them", "yes" if one["dedicated"] else None),
        ("Cleaning hook", "yes" if one["can_clean"] else "no"),
        ("Clock", f"{one['clock_skew_s']:+.1f} s"),
        ("Last report", moment(one["seen_at"])),
    )
    print_fields(fields)
    rows = ((card["address"], card["model"], card["state"], _why(card), card["holder"], _busy(card)) for card in one["cards"])
    print_table(("CARD", "MODEL", "STATE", "WHY", "HOLDER", "BUSY"), rows, empty="It has no cards.")


def _why(card: dict[str, Any]) -> str:
    return f"{card['reason']}: {card['detail']}" if card["detail"] else str(card["reason"])


def _busy(card: dict[str, Any]) -> str:
    parts = [
        f"{card['busy']:.0%}" if card["busy"] is not None else "",
        f"{card['temperature_c']} °C" if card["temperature_c"] else "",
    ]
    return " ".join(part for part in parts if part)


@host.command("set")
def set_host(
    name: Name,
    enabled: Annotated[bool | None, typer.Option("--open/--close", help="Whether it takes new servers.")] = None,
    dedicated: Annotated[bool | None, typer.Option("--dedicated/--shared", help="Only for its aggregates, or for all.")] = None,
    aggregate: Annotated[list[str] | None, typer.Option("--aggregate", help="All its groups anew; may be repeated.")] = None,
    resync: Annotated[bool, typer.Option("--resync", help="Ask its agent for a full report.")] = False,
) -> None:
    """Open or close a host, say what it is for."""
    body = {"enabled": enabled, "dedicated": dedicated, "aggregates": aggregate or None, "resync": resync}
    with Api.signed_in() as api:
        one = api.send("PATCH", _path("srm", "hosts", name), {key: value for key, value in body.items() if value is not None})
    say(f"{one['name']} is {_health(one)}.")


@host.command("remove")
def remove_host(name: Name) -> None:
    """Forget a host with its history; its agent's credential is void at once."""
    with Api.signed_in() as api:
        api.send("DELETE", _path("srm", "hosts", name))
    say(f"{name} is forgotten.")


@device.command("set")
def set_device(
    name: Name,
    address: Address,
    state: Annotated[str, typer.Argument(help="free (after cleaning), dirty, cleaning or failed (quarantine).")],
    why: Annotated[str, typer.Option("--why", help="Kept with the card, for whoever looks next.")],
    as_json: AsJson = False,
) -> None:
    """Set a card's state by hand."""
    if state not in {"free", "dirty", "cleaning", "failed"}:
        raise Failure(Exit.USAGE, "A card can be set to free, dirty, cleaning or failed.")
    with Api.signed_in() as api:
        card = api.send("PUT", _path("srm", "hosts", name, "cards", address, "state"), {"state": state, "why": why})
    if as_json:
        print_json(card)
    else:
        say(f"{card['address']} of {name} is {card['state']}.")


@device.command("forget")
def forget_device(name: Name, address: Address) -> None:
    """Forget a card that was taken out of its host."""
    with Api.signed_in() as api:
        api.send("DELETE", _path("srm", "hosts", name, "cards", address))
    say(f"{address} of {name} is forgotten.")


@device.command("history")
def history(
    name: Name, address: Address, hours: Annotated[float, typer.Option(help="How far back.")] = 24.0, as_json: AsJson = False
) -> None:
    """Show what a card did."""
    with Api.signed_in() as api:
        items = api.get(_path("srm", "hosts", name, "history"), {"address": address, "hours": hours})["items"]
    if as_json:
        print_json(items)
        return
    rows = ((moment(one["at"]), one["state"], _busy(one), one["memory_used_mib"] or "") for one in items)
    print_table(("TIME", "STATE", "BUSY", "MEMORY MiB"), rows, empty="There is no history of it.")


@consumer.command("add")
def add_consumer(name: Annotated[str, typer.Argument(help="A name for the program, e.g. nova-scheduler.")]) -> None:
    """Let a program read the scheduling snapshot; prints its credential. The one it had before is void."""
    with Api.signed_in() as api:
        made = api.send("POST", "/scheduling/consumers", {"name": name})
    sys.stdout.write(f"{made['token']}\n")


@consumer.command("list")
def list_consumers(as_json: AsJson = False) -> None:
    """List the programs that may read the scheduling snapshot."""
    with Api.signed_in() as api:
        items = api.get("/scheduling/consumers")["items"]
    if as_json:
        print_json(items)
        return
    rows = ((one["name"], moment(one["created_at"]), moment(one["used_at"])) for one in items)
    print_table(("NAME", "SINCE", "LAST READ"), rows, empty="No program may read it.")


@consumer.command("remove")
def remove_consumer(name: Annotated[str, typer.Argument(help="The program's name.")]) -> None:
    """Make a program's credential void, at once."""
    with Api.signed_in() as api:
        api.send("DELETE", _path("scheduling", "consumers", name))
    say(f"{name} may not read the snapshot any more.")


def _load(path: Path) -> Config:
    try:
        return load(path)
    except SrmError as error:
        raise _failure(error) from error


def _failure(error: SrmError) -> Failure:
    return Failure(Exit.UNREACHABLE if isinstance(error, ApiUnavailable) else Exit.FAILED, f"srm: {error}")


@srm.command("join")
def join(config: ConfigFile = DEFAULT) -> None:
    """On a host: spend the enrolment token (asked for, or from standard input) and keep the credential."""
    settings = _load(config)
    token = typer.prompt("Enrolment token", hide_input=True) if sys.stdin.isatty() else agent.read_token()
    try:
        name = agent.enrol(settings, token)
    except SrmError as error:
        raise _failure(error) from error
    say(f"This host is enrolled as {name}. Start the agent: systemctl enable --now beamdesk-srm")


@srm.command("run")
def run(config: ConfigFile = DEFAULT) -> None:
    """On a host: run the agent until it is told to stop."""
    try:
        agent.run(_load(config))
    except SrmError as error:
        raise _failure(error) from error


@srm.command("look")
def look(config: ConfigFile = DEFAULT) -> None:
    """On a host: print what the agent sees, as JSON."""
    settings = _load(config) if config.exists() else Config("https://localhost", "localhost")
    try:
        sys.stdout.write(f"{agent.look(settings)}\n")
    except SrmError as error:
        raise _failure(error) from error
