"""`desktop ...`: apply, look, connect, stop, start, extend, rename, rebuild, resize, delete, and what happened."""

from __future__ import annotations

import json
import sys
import uuid
from typing import Annotated, Any

import typer

from beamdesk.cli.client import Api
from beamdesk.cli.failure import Exit, Failure
from beamdesk.cli.offers import find_experiment
from beamdesk.cli.output import AsJson, clean, left_until, moment, print_fields, print_json, print_table, say
from beamdesk.cli.waiting import wait_for
from beamdesk.cli.words import STEPS, now_doing, remarks, use, why

desktops = typer.Typer(help="Your desktops.", no_args_is_help=True)


def _complete(incomplete: str) -> list[str]:
    """Offer names and ids to the shell; silence when there is no answer."""
    try:
        with Api.signed_in() as api:
            known = [(one["name"], one["id"]) for one in api.pages("/desktops")]
    except Failure:
        return []
    words = [name if " " not in name else desktop_id for name, desktop_id in known] + [desktop_id for _, desktop_id in known]
    return sorted({word for word in words if word.startswith(incomplete)})


Which = Annotated[str, typer.Argument(metavar="DESKTOP", help="Name or id, or an unambiguous beginning.", autocompletion=_complete)]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Wait until it is done, and show the progress.")]
Timeout = Annotated[float, typer.Option(min=0, help="With --wait: give up after so many seconds; 0 = never.")]


def find_desktop(api: Api, wanted: str) -> dict[str, Any]:
    """Return the one desktop that a name, an id or the beginning of one means.

    Raises:
        Failure: none, or several.
    """
    known, word = list(api.pages("/desktops")), wanted.casefold()
    for matches in (
        [one for one in known if one["id"] == wanted],
        [one for one in known if one["name"].casefold() == word],
        [one for one in known if word and (one["id"].startswith(word) or one["name"].casefold().startswith(word))],
    ):
        if len(matches) == 1:
            return dict(matches[0])
        if matches:
            names = ", ".join(f"{one['name']} ({one['id']})" for one in matches[:5])
            raise Failure(Exit.USAGE, f"{wanted} can mean {names}. Write its id, or more of the name.")
    raise Failure(Exit.NOT_FOUND, f"There is no desktop {wanted}. See: beamdesk desktop list")


@desktops.command()
def create(
    name: Annotated[str, typer.Argument(help="Its name; a sensible one when left out.")] = "",
    experiment: Annotated[
        str | None, typer.Option("--experiment", "-e", help="For which experiment; needed if you have several.")
    ] = None,
    image: Annotated[str | None, typer.Option("--image", "-i", help="From which image; default: the experiment's first.")] = None,
    flavor: Annotated[str | None, typer.Option("--flavor", "-f", help="How large; default: the smallest.")] = None,
    wait: Wait = False,
    timeout: Timeout = 0,
    key: Annotated[str | None, typer.Option("--idempotency-key", help="Sent twice with one key, one desktop is made.")] = None,
    as_json: AsJson = False,
) -> None:
    """Apply for a desktop."""
    with Api.signed_in() as api:
        chosen = _experiment(api, experiment)
        body = {
            "experiment": chosen,
            "image": image or _first(api, "/images", chosen, "image"),
            "flavor": flavor or _first(api, "/flavors", chosen, "size"),
            "name": name,
        }
        desktop = api.send_again("POST", "/desktops", body, key or str(uuid.uuid4()))
        if not wait and not as_json:
            say(f"Applied for {desktop['name']}. Follow it with: beamdesk desktop show {desktop['id']}")
        _finish(api, desktop, wait=wait, timeout=timeout, as_json=as_json)


def _experiment(api: Api, wanted: str | None) -> str:
    if wanted:
        return str(find_experiment(api, wanted)["id"])
    mine = api.get("/experiments")["items"]
    if len(mine) == 1:
        return str(mine[0]["id"])
    if not mine:
        raise Failure(Exit.FAILED, "You are in no experiment's team. Ask the leader of one to add you.")
    raise Failure(Exit.USAGE, f"Say for which experiment, with --experiment: {', '.join(one['id'] for one in mine)}")


def _first(api: Api, path: str, experiment: str, what: str) -> str:
    items = api.get(path, {"experiment": experiment})["items"]
    if not items:
        raise Failure(Exit.FAILED, f"This site has no {what} on offer for {experiment}.")
    return str(items[0]["id"])


def _finish(api: Api, desktop: dict[str, Any], *, wait: bool, timeout: float, as_json: bool) -> None:
    """Wait if asked to, then show the desktop."""
    found = wait_for(api, desktop, timeout) if wait else desktop
    if found is None:
        if as_json:
            print_json({"id": desktop["id"], "phase": "deleted"})
        else:
            say(f"{desktop['name']} is deleted.")
    elif as_json:
        print_json(found)
    else:
        print_fields((("Name", found["name"]), ("Id", found["id"]), ("State", found["phase"])))


@desktops.command("list")
def list_desktops(as_json: AsJson = False) -> None:
    """List your desktops and those of your experiments, newest first."""
    with Api.signed_in() as api:
        items = list(api.pages("/desktops"))
    if as_json:
        print_json(items)
        return
    rows = (
        (
            one["name"],
            one["id"],
            one["phase"],
            one["experiment"]["id"],
            one["flavor"]["id"],
            one["owner"]["login"],
            use(one),
            left_until(one["lease_ends_at"]) if one["phase"] == "ready" else "",
        )
        for one in items
    )
    heads = ("NAME", "ID", "STATE", "EXPERIMENT", "SIZE", "OWNER", "USE", "TIME LEFT")
    print_table(heads, rows, empty="You have no desktop. Apply for one with: beamdesk desktop create")


@desktops.command()
def show(which: Which, wait: Wait = False, timeout: Timeout = 0, as_json: AsJson = False) -> None:
    """Show a desktop, its progress and the reason when something is wrong."""
    with Api.signed_in() as api:
        desktop = find_desktop(api, which)
        found = wait_for(api, desktop, timeout) if wait else desktop
    if found is None:
        say(f"{desktop['name']} is deleted.")
        return
    if as_json:
        print_json(found)
        return
    print_fields(
        (
            ("Name", found["name"]),
            ("Id", found["id"]),
            ("State", found["phase"]),
            ("Why", why(found)),
            ("Now", now_doing(found) if found["phase"] in ("queued", "building", "booting", "repairing") else ""),
            ("Experiment", f"{found['experiment']['id']} {found['experiment']['title']['en']}"),
            ("Image", found["image"]["title"]["en"] if found["image"]["title"] else found["image"]["id"]),
            ("Size", f"{found['flavor']['id']}: {_amount(found['resources'])}"),
            ("Use", use(found)),
            ("Note", remarks(found)),
            ("Owner", found["owner"]["full_name"]),
            ("Ends", f"{moment(found['lease_ends_at'])} ({left_until(found['lease_ends_at'])})"),
            ("You may", ", ".join(found["actions"])),
        )
    )


def _amount(resources: dict[str, Any]) -> str:
    plural = "" if resources["vcpus"] == 1 else "s"
    gpus = f", {resources['gpus']} GPU" if resources["gpus"] else ""
    return f"{resources['vcpus']} CPU{plural}, {round(resources['memory_mib'] / 1024, 1):g} GiB{gpus}"


@desktops.command()
def connect(
    which: Which,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    wait: Wait = False,
    timeout: Timeout = 0,
    as_json: AsJson = False,
) -> None:
    """Open a desktop's page in the browser; there, press Connect.

    The browser asks for the ticket itself, with its own sign-in: no secret passes through an address, an argument list (which
    other users of this machine can read) or a file.
    """
    with Api.signed_in() as api:
        desktop = find_desktop(api, which)
        if wait:
            desktop = wait_for(api, desktop, timeout) or desktop
    address = f"{api.url}/desktops/{desktop['id']}"
    if "connect" not in desktop["actions"]:
        raise Failure(Exit.FAILED, "Only the owner and the experiment's team may open this desktop.")
    if desktop["phase"] != "ready":
        raise Failure(Exit.CONFLICT, f"{desktop['name']} is {desktop['phase']}, not ready. Start it, or add --wait.")
    opened = not no_browser and _open(address)
    if as_json:
        print_json({"id": desktop["id"], "url": address, "opened": opened})
    else:
        say("Opened in your browser:" if opened else "Open this address in your browser:")
        sys.stdout.write(address + "\n")


def _open(address: str) -> bool:
    import webbrowser

    try:
        return webbrowser.open(address)
    except webbrowser.Error:
        return False


def _act(which: str, action: str, asks: tuple[str, str, str] | None = None, *, wait: bool, timeout: float, as_json: bool) -> None:
    """Do an action, empty = delete; ``asks``: verb, participle and the rest of the question before it."""
    with Api.signed_in() as api:
        desktop = find_desktop(api, which)
        if asks:
            _confirm(desktop, *asks)
        path = f"/desktops/{desktop['id']}"
        changed = api.send("POST", f"{path}/actions/{action}") if action else api.send("DELETE", path)
        _finish(api, changed, wait=wait, timeout=timeout, as_json=as_json)


@desktops.command()
def stop(which: Which, wait: Wait = False, timeout: Timeout = 0, as_json: AsJson = False) -> None:
    """Stop a desktop; its home is kept. Programs in it end."""
    _act(which, "stop", wait=wait, timeout=timeout, as_json=as_json)


@desktops.command()
def start(which: Which, wait: Wait = False, timeout: Timeout = 0, as_json: AsJson = False) -> None:
    """Start a stopped or failed desktop."""
    _act(which, "start", wait=wait, timeout=timeout, as_json=as_json)


@desktops.command()
def extend(which: Which, as_json: AsJson = False) -> None:
    """Let a desktop run longer, by one extension."""
    with Api.signed_in() as api:
        desktop = find_desktop(api, which)
        changed = api.send("POST", f"/desktops/{desktop['id']}/actions/extend")
    if as_json:
        print_json(changed)
    else:
        say(f"{changed['name']} runs until {moment(changed['lease_ends_at'])} ({left_until(changed['lease_ends_at'])}).")


@desktops.command()
def rename(which: Which, name: Annotated[str, typer.Argument(help="The new name.")], as_json: AsJson = False) -> None:
    """Give a desktop another name."""
    with Api.signed_in() as api:
        desktop = find_desktop(api, which)
        changed = api.send("PATCH", f"/desktops/{desktop['id']}", {"name": name})
    if as_json:
        print_json(changed)
    else:
        say(f"{desktop['name']} is now called {changed['name']}.")


@desktops.command()
def rebuild(
    which: Which,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Wait = False,
    timeout: Timeout = 0,
    as_json: AsJson = False,
) -> None:
    """Start a stopped or failed desktop on a new machine from its image as it is now; its home is kept."""
    asks = None if yes else ("rebuild", "rebuilt", "from its image? Only its home and experiment data stay.")
    _act(which, "rebuild", asks, wait=wait, timeout=timeout, as_json=as_json)


@desktops.command()
def resize(
    which: Which, flavor: Annotated[str, typer.Option("--flavor", "-f", help="The new size.")], as_json: AsJson = False
) -> None:
    """Give a stopped desktop another size, from its next start on; its home is kept."""
    with Api.signed_in() as api:
        desktop = find_desktop(api, which)
        changed = api.send("POST", f"/desktops/{desktop['id']}/actions/resize", {"flavor": flavor})
    if as_json:
        print_json(changed)
    else:
        say(f"{changed['name']} has {_amount(changed['resources'])} when it is started next.")


@desktops.command()
def delete(
    which: Which,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Wait = False,
    timeout: Timeout = 0,
    as_json: AsJson = False,
) -> None:
    """Delete a desktop and its home for good."""
    asks = None if yes else ("delete", "deleted", "and all files in its home? Data of the experiment stay.")
    _act(which, "", asks, wait=wait, timeout=timeout, as_json=as_json)


def _confirm(desktop: dict[str, Any], verb: str, done: str, rest: str) -> None:
    if not sys.stdin.isatty():
        raise Failure(Exit.USAGE, f"There is nobody to ask. Add --yes to {verb} without asking.")
    if not typer.confirm(f"{verb.capitalize()} {clean(desktop['name'])} ({desktop['id']}) {rest}", err=True):
        raise Failure(Exit.FAILED, f"Nothing was {done}.")


@desktops.command()
def events(
    which: Which,
    follow: Annotated[bool, typer.Option("--follow", "-F", help="Go on as they happen, until interrupted.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="So many of the newest.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show what happened to a desktop, oldest first."""
    with Api.signed_in() as api:
        desktop = find_desktop(api, which)
        found = list(api.pages(f"/desktops/{desktop['id']}/events", at_most=limit))[::-1]
        if not follow:
            _print_events(found, as_json=as_json)
            return
        last = found[-1]["id"] if found else 0
        for event in found:
            _print_event(event, as_json=as_json)
        for event in api.follow(f"?desktop={desktop['id']}&after={last}"):
            _print_event(event, as_json=as_json)


def _print_events(found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for event in found:
        _print_event(event, as_json=False)


def _print_event(event: dict[str, Any], *, as_json: bool) -> None:
    """Print one event as a line: with ``--follow --json`` one JSON object a line."""
    if as_json:
        line = json.dumps(event)
    else:
        facts = " ".join(f"{name}={_fact(name, value)}" for name, value in event["data"].items() if value not in (None, ""))
        line = clean(f"{moment(event['at'])}  {event['kind']:<18} {event['actor'] or '-':<10} {facts}").rstrip()
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _fact(name: str, value: object) -> str:
    return STEPS.get(str(value), str(value)) if name == "step" else str(value)
