"""What a driver brings to the cloud contract suite, and the drivers that are known to it.

A driver takes part by a module ``contract.cloud_<name>`` with ``open_case(folder)``, a context manager that yields a
:class:`CloudCase`, and an entry in :data:`DRIVERS`.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

import pytest

from beamdesk.domain.errors import CloudError
from beamdesk.domain.ids import DesktopId
from beamdesk.ports.cloud import Cloud, Server, ServerSpec, ServerStatus

DRIVERS = {
    "fake": (),
    "local": (pytest.mark.root,),
    "openstack": (pytest.mark.openstack,),
}
"""Driver name -> marks of its tests."""

PATIENCE = 500
"""How often :func:`reach` looks before it gives up; :meth:`CloudCase.pause` decides how long that is."""


class CloudCase(Protocol):
    """One real or fake cloud for one test module run."""

    def cloud(self, deployment_id: str) -> Cloud:
        """Return a driver that acts for a deployment; two of them share the cloud."""

    def unreachable(self) -> Cloud:
        """Return a driver whose cloud does not answer."""

    def spec(self, desktop_id: str) -> ServerSpec:
        """Return what a small desktop of a valid image needs; any other size must fit beside it once more."""

    async def pause(self) -> None:
        """Let a little time pass: a real one, or the fake's own."""


def params() -> list[object]:
    """Return the pytest parameters of all drivers that are there."""
    return [
        pytest.param(name, marks=marks, id=name)
        for name, marks in DRIVERS.items()
        if find_spec(f"contract.cloud_{name}") is not None
    ]


def open_case(name: str, folder: Path) -> AbstractContextManager[CloudCase]:
    """Open the case of a driver."""
    return cast("AbstractContextManager[CloudCase]", importlib.import_module(f"contract.cloud_{name}").open_case(folder))


async def reach(case: CloudCase, cloud: Cloud, spec: ServerSpec, status: ServerStatus) -> Server:
    """Wait until the desktop's only server has ``status``."""
    seen: object = None
    for _attempt in range(PATIENCE):
        seen = (await cloud.find_servers(spec.desktop_id)).servers
        if len(seen) == 1 and seen[0].status is status:
            return seen[0]
        await case.pause()
    pytest.fail(f"the server does not become {status}: {seen}")


async def vanish(case: CloudCase, cloud: Cloud, spec: ServerSpec) -> None:
    """Wait until the desktop has no server."""
    for _attempt in range(PATIENCE):
        if not (await cloud.find_servers(spec.desktop_id)).servers:
            return
        await case.pause()
    pytest.fail("the server does not go away")


async def forget(case: CloudCase, cloud: Cloud, desktop_id: DesktopId) -> None:
    """Delete a home, as the reconciler does: again as long as the cloud says that it is not done with it."""
    for _attempt in range(PATIENCE):
        try:
            await cloud.delete_home(desktop_id)
        except CloudError as error:
            if not error.retryable:
                raise
            seen = error
        else:
            return
        await case.pause()
    pytest.fail(f"the home does not go away: {seen}")


async def clear(case: CloudCase, cloud: Cloud) -> None:
    """Delete all that a deployment has, and close its driver."""
    for server in (await cloud.list_servers()).servers:
        await cloud.delete_server(server.id)
        await vanish(case, cloud, case.spec(server.desktop_id))
    for home in await cloud.list_homes():
        await forget(case, cloud, home)
    await cloud.close()
