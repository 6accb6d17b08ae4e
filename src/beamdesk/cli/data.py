"""`data ls`, `data get`: an experiment's files. A download that broke off goes on where it was, also in a later run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote

import typer

from beamdesk.cli.client import Api
from beamdesk.cli.failure import Exit, Failure
from beamdesk.cli.offers import find_experiment
from beamdesk.cli.output import AsJson, moment, print_json, print_table, say, size

data = typer.Typer(help="Files of your experiments.", no_args_is_help=True)

_TRIES = 5
ExperimentName = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Id or proposal, or an unambiguous beginning.")]


def _query(path: str) -> str:
    return f"?path={quote(os.fsencode(path.strip('/')))}"


@data.command("ls")
def list_folder(
    experiment: ExperimentName,
    path: Annotated[str, typer.Argument(help="A folder; default: the experiment's own.")] = "",
    hidden: Annotated[bool, typer.Option("--all", "-a", help="With names that begin with a dot.")] = False,
    as_json: AsJson = False,
) -> None:
    """List a folder, folders first."""
    with Api.signed_in() as api:
        items = list(_entries(api, find_experiment(api, experiment)["id"], path, hidden=hidden))
    if as_json:
        print_json(items)
        return
    rows = ((one["name"] + ("/" if one["kind"] == "folder" else ""), size(one["size"]), moment(one["modified"])) for one in items)
    print_table(("NAME", "SIZE", "CHANGED"), rows, empty="This folder is empty.")


def _entries(api: Api, experiment: str, path: str, *, hidden: bool) -> Iterator[dict[str, Any]]:
    offset = 0
    while True:
        page = api.get(f"/experiments/{experiment}/data{_query(path)}&offset={offset}&limit=1000&hidden={str(hidden).lower()}")
        yield from page["items"]
        offset += len(page["items"])
        if offset >= page["total"] or not page["items"]:
            return


@data.command("get")
def get(
    experiment: ExperimentName,
    path: Annotated[str, typer.Argument(help="A file, e.g. processed/slice_0256.tif.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Where to; - = standard output; default: its name, here.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download a file."""
    with Api.signed_in() as api:
        address = f"/experiments/{find_experiment(api, experiment)['id']}/file"
        if output == "-":
            with api.stream(address, query=_query(path)) as answer:
                for block in answer.iter_bytes():
                    sys.stdout.buffer.write(block)
            return
        target = _target(output, path)
        if target.exists() and not force:
            raise Failure(Exit.CONFLICT, f"{target} exists. Add --force to replace it, or --output to name another.")
        count = _download(api, address, _query(path), target)
    if as_json:
        print_json({"path": path, "file": str(target), "bytes": count})
    else:
        say(f"{target}: {size(count)}")


def _target(output: str, path: str) -> Path:
    """Return where to write: what a portal says never chooses a place."""
    name = PurePosixPath(path).name
    if output and not Path(output).is_dir():
        return Path(output)
    if name in ("", ".", ".."):
        raise Failure(Exit.USAGE, f"{path} does not name a file.")
    return Path(output or ".") / name


def _download(api: Api, address: str, query: str, target: Path) -> int:
    """Download into ``NAME.part`` (its ETag beside it) and rename when it is whole; returns the bytes."""
    part, note = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.etag")
    try:
        for left in reversed(range(_TRIES)):
            try:
                _fetch(api, address, query, part, note)
                break
            except Failure as failure:
                if failure.exit_code is not Exit.UNREACHABLE or not left:
                    raise
                time.sleep(1)
        part.replace(target)
        note.unlink(missing_ok=True)
        return target.stat().st_size
    except OSError as error:
        raise Failure(Exit.FAILED, f"Cannot write {target}: {error.strerror}.") from error


def _fetch(api: Api, address: str, query: str, part: Path, note: Path) -> None:
    headers, begun = {}, part.stat().st_size if part.exists() and note.exists() else 0
    if begun:
        headers = {"Range": f"bytes={begun}-", "If-Range": note.read_text()}
    try:
        with api.stream(address, headers, query) as answer, part.open("ab" if answer.status_code == 206 else "wb") as file:
            note.write_text(answer.headers.get("etag", ""))
            file.writelines(answer.iter_bytes())
    except Failure as failure:
        if failure.code != "range_not_satisfiable":
            raise
        # What is here is not a beginning of what is there now: begin anew, once.
        part.unlink(missing_ok=True)
        _fetch(api, address, query, part, note)
