"""`experiment list`, `image list`, `flavor list`: what can be applied for."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from beamdesk.cli.client import Api
from beamdesk.cli.failure import Exit, Failure
from beamdesk.cli.output import AsJson, moment, print_json, print_table
from beamdesk.cli.words import AVAILABILITY, SURENESS, lacking

ForExperiment = Annotated[
    str | None, typer.Option("--experiment", "-e", help="What is on offer for this experiment (id, proposal or a beginning).")
]

experiments = typer.Typer(help="Your experiments.", no_args_is_help=True)
images = typer.Typer(help="What desktops are made from.", no_args_is_help=True)
flavors = typer.Typer(help="Sizes, and whether they can be had now.", no_args_is_help=True)


def find_experiment(api: Api, wanted: str) -> dict[str, Any]:
    """Return the one experiment that an id, a proposal or the beginning of one means.

    Raises:
        Failure: none, or several.
    """
    mine = api.get("/experiments")["items"]
    word = wanted.casefold()
    exact = [one for one in mine if word in (one["id"].casefold(), one["proposal"].casefold())]
    found = exact or [one for one in mine if one["id"].casefold().startswith(word) or one["proposal"].casefold().startswith(word)]
    if not found:
        raise Failure(Exit.NOT_FOUND, f"You have no experiment {wanted}. See: beamdesk experiment list")
    if len(found) > 1:
        raise Failure(Exit.USAGE, f"{wanted} can mean {', '.join(one['id'] for one in found)}. Write more of it.")
    return dict(found[0])


def _query(api: Api, experiment: str | None) -> dict[str, str]:
    return {"experiment": find_experiment(api, experiment)["id"]} if experiment else {}


@experiments.command("list")
def list_experiments(as_json: AsJson = False) -> None:
    """List your experiments, newest first."""
    with Api.signed_in() as api:
        items = api.get("/experiments")["items"]
    if as_json:
        print_json(items)
        return
    rows = ((one["id"], one["beamline"], moment(one["starts"])[:10], moment(one["ends"])[:10], one["title"]["en"]) for one in items)
    print_table(("ID", "BEAMLINE", "FROM", "TO", "TITLE"), rows, empty="You are in no experiment's team.")


@experiments.command("team")
def team(
    experiment: Annotated[str, typer.Argument(help="Its id; for your own also a beginning of it.")],
    add: Annotated[list[str] | None, typer.Option("--add", help="Take this login name into the team (operators).")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", help="Take it out: streams end at once, desktops stop.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show who is in an experiment's team; operators may change it."""
    with Api.signed_in() as api:
        path = f"/experiments/{quote(_experiment_id(api, experiment), safe='')}/team"
        items = (
            api.send("PATCH", path, {"add": add or [], "remove": remove or []})["items"]
            if add or remove
            else api.get(path)["items"]
        )
    if as_json:
        print_json(items)
        return
    print_table(("LOGIN", "NAME"), ((one["login"], one["full_name"]) for one in items), empty="Nobody is in this team.")


def _experiment_id(api: Api, wanted: str) -> str:
    """Return the id of one of the caller's experiments, or what was written: operators are in no team."""
    try:
        return str(find_experiment(api, wanted)["id"])
    except Failure as failure:
        if failure.exit_code is not Exit.NOT_FOUND:
            raise
        return wanted


@images.command("list")
def list_images(experiment: ForExperiment = None, as_json: AsJson = False) -> None:
    """List the images, the most specific first."""
    with Api.signed_in() as api:
        items = api.get("/images", _query(api, experiment))["items"]
    if as_json:
        print_json(items)
        return
    rows = (
        (one["id"], one["title"]["en"], ", ".join(one["beamlines"]) or "all", ", ".join(soft["name"] for soft in one["software"]))
        for one in items
    )
    print_table(("ID", "TITLE", "BEAMLINES", "SOFTWARE"), rows, empty="No image is built yet.")


@flavors.command("list")
def list_flavors(experiment: ForExperiment = None, as_json: AsJson = False) -> None:
    """List the sizes and whether you can have them now; with an experiment its quota counts too."""
    with Api.signed_in() as api:
        items = api.get("/flavors", _query(api, experiment))["items"]
    if as_json:
        print_json(items)
        return
    rows = [_flavor_row(one) for one in items]
    print_table(("ID", "CPUS", "MEMORY", "DISK", "GPUS", "AVAILABLE", "WHEN"), rows, empty="There is no size on offer.")


def _flavor_row(one: dict[str, Any]) -> tuple[object, ...]:
    amount, offer = one["resources"], one["availability"]
    words = AVAILABILITY.get(offer["state"], offer["state"])
    short = lacking(offer["lacking"])
    return (
        one["id"],
        amount["vcpus"],
        f"{round(amount['memory_mib'] / 1024, 1):g} GiB",
        f"{amount['disk_gib']} GiB",
        amount["gpus"] or "-",
        f"{words} ({short})" if short else words,
        _when(offer),
    )


def _when(offer: dict[str, Any]) -> str:
    """Return when a size that must be waited for could run, and how sure that is."""
    if offer["state"] != "wait":
        return ""
    if offer.get("expected_at") is None:
        return "not known"
    sure = SURENESS.get(str(offer.get("sureness")), "")
    return f"{moment(offer['expected_at'])} {sure}".strip()
