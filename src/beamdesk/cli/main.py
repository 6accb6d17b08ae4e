"""The command ``beamdesk``: a client of the API for everybody, and the services for whoever runs a site."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from beamdesk import __version__
from beamdesk.cli import bookings, data, desktops, logins, offers
from beamdesk.cli.failure import Exit, Failure
from beamdesk.cli.output import clean

_CLIENT = frozenset({"login", "logout", "whoami", "desktop", "experiment", "image", "flavor", "data", "booking", "--version"})


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"beamdesk {__version__}")
        raise typer.Exit


def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Cloud desktops beside the data of your experiments."""


def build(*, with_services: bool) -> typer.Typer:
    """Return the program; the services' modules are slow to import, so a client command goes without."""
    app = typer.Typer(name="beamdesk", callback=_root, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
    for command in (logins.login, logins.logout, logins.whoami):
        app.command()(command)
    app.add_typer(desktops.desktops, name="desktop")
    app.add_typer(offers.experiments, name="experiment")
    app.add_typer(offers.images, name="image")
    app.add_typer(offers.flavors, name="flavor")
    app.add_typer(data.data, name="data")
    app.add_typer(bookings.bookings, name="booking")
    if with_services:
        from beamdesk.cli import openstack, schedule, services, srm

        services.register(app)
        app.add_typer(schedule.schedule_app, name="schedule")
        app.add_typer(openstack.openstack_app, name="openstack")
        app.add_typer(srm.srm, name="srm")
    return app


def misused(error: typer.TyperException) -> str:
    """Return the line, or the help, for arguments that cannot be understood."""
    said = error.format_message()
    context: typer.Context | None = getattr(error, "ctx", None)
    if context is None:
        return f"beamdesk: {clean(said)}"
    if said == context.get_help():  # a group without a command
        return said
    line = clean(" ".join(said.split())).rstrip(".")
    return f"beamdesk: {line}. See '{context.command_path} --help'."


def main() -> None:
    """Run the program; a failure is one line on standard error and an exit code (see `failure`)."""
    app = build(with_services=len(sys.argv) < 2 or sys.argv[1] not in _CLIENT)
    try:
        code = app(prog_name="beamdesk", standalone_mode=False)
    except typer.TyperException as error:
        sys.stderr.write(f"{misused(error)}\n")
        sys.exit(error.exit_code)
    except Failure as failure:
        sys.stderr.write(f"beamdesk: {clean(failure.message)}\n")
        sys.exit(int(failure.exit_code))
    except typer.Abort:
        sys.stderr.write("beamdesk: Stopped: nothing was answered.\n")
        sys.exit(int(Exit.FAILED))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
