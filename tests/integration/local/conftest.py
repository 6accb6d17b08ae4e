"""Real helpers and containers for the tests of the local driver."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator

import pytest

from beamdesk.adapters.local.driver import LocalCloud
from beamdesk.ports.cloud import ServerAccount
from integration.local.helper_world import ADA, HelperWorld, open_world, spec_of

Desktop = Callable[..., str]


@pytest.fixture(scope="module")
def world() -> Iterator[HelperWorld]:
    """One helper for a module; its desktops have 200 processes at most."""
    with open_world(pids_max=200) as opened:
        yield opened


@pytest.fixture
def fresh_world() -> Iterator[HelperWorld]:
    """One helper for a single test, that may break it."""
    with open_world() as opened:
        yield opened


@pytest.fixture(scope="module")
def desktop(world: HelperWorld) -> Desktop:
    """Start a desktop of a person, or find the one that this module's tests share."""
    known: dict[object, str] = {}

    def start(account: ServerAccount = ADA, experiment: str = "exp-a", *, own: bool = False, **changes: object) -> str:
        key = object() if own else (account.login, experiment)
        if key not in known:
            known[key] = start_desktop(world, account, experiment, **changes)
        return known[key]

    return start


def start_desktop(world: HelperWorld, account: ServerAccount = ADA, experiment: str = "exp-a", **changes: object) -> str:
    """Start one more desktop and return its id."""
    desktop_id = uuid.uuid4().hex[:16]
    asyncio.run(LocalCloud(world.client, "tests").create_server(spec_of(desktop_id, account, experiment, **changes)))
    return desktop_id
