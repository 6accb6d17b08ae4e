"""`login`, `logout`, `whoami`."""

from __future__ import annotations

import contextlib
import getpass
import sys
from typing import Annotated

import typer

from beamdesk.cli.client import Api
from beamdesk.cli.credentials import SignIn, load_credentials, portal_url, save_credentials
from beamdesk.cli.failure import Exit, Failure
from beamdesk.cli.output import AsJson, moment, print_fields, print_json, say

_MAX_PASSWORD = 1024


def login(
    name: Annotated[str | None, typer.Argument(help="Your login name; asked for when left out.")] = None,
    url: Annotated[str | None, typer.Option(help="The portal, e.g. https://desktops.example.org.")] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sign in. The password is asked for without echo, or read from standard input; never give it as an argument."""
    credentials = load_credentials()
    address = portal_url(url, credentials)
    if not password_stdin and not sys.stdin.isatty():
        raise Failure(Exit.USAGE, "There is no terminal to ask for the password. Pipe it in with --password-stdin.")
    if name is None and password_stdin:
        raise Failure(Exit.USAGE, "Say who you are: beamdesk login NAME --password-stdin")
    who = name or input("Login name: ")
    password = sys.stdin.readline(_MAX_PASSWORD).rstrip("\r\n") if password_stdin else getpass.getpass(f"Password for {who}: ")
    with Api(address, None) as api:
        fresh = api.send("POST", "/logins", {"login": who, "password": password})
    credentials.portals[address] = SignIn(fresh["token"], fresh["person"]["login"], fresh["expires_at"])
    credentials.current = address
    save_credentials(credentials)
    if as_json:
        print_json({"url": address, "person": fresh["person"], "expires_at": fresh["expires_at"]})
    else:
        say(f"Signed in at {address} as {fresh['person']['full_name']} until {moment(fresh['expires_at'])}.")


def logout(as_json: AsJson = False) -> None:
    """Sign out here and at the portal. Signing out twice is fine."""
    credentials = load_credentials()
    url = portal_url(None, credentials)
    known = credentials.portals.pop(url, None)
    if known is not None:
        with Api(url, known.token) as api, contextlib.suppress(_GoneAlready):
            _end(api)
        if credentials.current == url:
            credentials.current = next(iter(credentials.portals), "")
        save_credentials(credentials)
    if as_json:
        print_json({"url": url, "signed_out": known is not None})
    else:
        say(f"Signed out at {url}." if known else f"You were not signed in at {url}.")


class _GoneAlready(Exception):
    """The portal does not know the sign-in any more."""


def _end(api: Api) -> None:
    try:
        api.send("DELETE", "/logins/current")
    except Failure as failure:
        if failure.exit_code is Exit.NOT_SIGNED_IN:
            raise _GoneAlready from failure
        raise


def whoami(as_json: AsJson = False) -> None:
    """Show who is signed in, and where."""
    with Api.signed_in() as api:
        person = api.get("/me")
    if as_json:
        print_json({"url": api.url, "person": person})
        return
    print_fields((("Portal", api.url), ("Name", person["full_name"]), ("Login", person["login"]), ("Role", person["role"])))
