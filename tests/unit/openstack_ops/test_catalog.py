"""The cached catalogue: when it reads, and what it serves while the cloud does not answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from beamdesk.adapters.openstack.catalog import FRESH_S, RETRY_S, OpenStackCatalog
from beamdesk.domain.errors import CloudUnavailable

pytestmark = pytest.mark.anyio
LISTS = tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]]]


def image(name: str, **more: Any) -> dict[str, Any]:
    return {"id": f"id-{name}", "status": "active", "beamdesk_image": name, "beamdesk_title_en": name.title(), **more}


class Glance:
    """Lists that the test changes; counts how often they were read. ``gate`` holds a reading back."""

    def __init__(self) -> None:
        self.images = [image("imaging")]
        self.down = False
        self.reads = 0
        self.gate = anyio.Event()
        self.gate.set()
        self.time = 100.0

    async def read(self) -> LISTS:
        self.reads += 1
        await self.gate.wait()
        if self.down:
            raise CloudUnavailable("Glance does not answer.")
        return list(self.images), []

    def catalog(self) -> OpenStackCatalog:
        return OpenStackCatalog(self.read, now=lambda: self.time)


async def settle() -> None:
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def names(catalog: OpenStackCatalog) -> list[str]:
    return [one.id for one in await catalog.images()]


async def test_many_first_readers_cause_one_reading() -> None:
    glance = Glance()
    catalog = glance.catalog()
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(names, catalog)
    assert glance.reads == 1


async def test_a_fresh_answer_is_not_read_again() -> None:
    glance = Glance()
    catalog = glance.catalog()
    await names(catalog)
    glance.time += FRESH_S - 1
    await names(catalog)
    await settle()
    assert glance.reads == 1


async def test_an_old_answer_is_served_at_once_and_refreshed_behind() -> None:
    glance = Glance()
    catalog = glance.catalog()
    await names(catalog)
    glance.images.append(image("diffraction"))
    glance.time += FRESH_S
    glance.gate = anyio.Event()
    assert await names(catalog) == ["imaging"]
    glance.gate.set()
    await settle()
    assert await names(catalog) == ["diffraction", "imaging"]


async def test_the_last_answer_is_served_while_the_cloud_is_down() -> None:
    glance = Glance()
    catalog = glance.catalog()
    await names(catalog)
    glance.down = True
    glance.time += 100 * FRESH_S
    assert await names(catalog) == ["imaging"]
    await settle()
    assert await names(catalog) == ["imaging"]


async def test_a_cloud_that_is_down_is_not_asked_at_every_call() -> None:
    glance = Glance()
    catalog = glance.catalog()
    await names(catalog)
    glance.down = True
    glance.time += FRESH_S
    for _ in range(5):
        await names(catalog)
        await settle()
    assert glance.reads == 2
    glance.time += RETRY_S
    await names(catalog)
    await settle()
    assert glance.reads == 3


async def test_with_nothing_to_serve_the_error_is_told() -> None:
    glance = Glance()
    glance.down = True
    catalog = glance.catalog()
    with pytest.raises(CloudUnavailable):
        await catalog.images()
    glance.down = False
    assert await names(catalog) == ["imaging"]


async def test_who_gives_up_waiting_does_not_end_the_reading() -> None:
    glance = Glance()
    glance.gate = anyio.Event()
    catalog = glance.catalog()
    async with anyio.create_task_group() as group:
        group.start_soon(names, catalog)
        await settle()
        group.cancel_scope.cancel()
    glance.gate.set()
    assert await names(catalog) == ["imaging"]
    assert glance.reads == 1


async def test_a_reason_is_logged_once() -> None:
    glance = Glance()
    glance.images.append(image("odd", beamdesk_order="x"))
    catalog = glance.catalog()
    with capture_logs() as logs:
        for _ in range(3):
            await names(catalog)
            await settle()
            glance.time += FRESH_S
    assert [(one["event"], one["ref"]) for one in logs] == [("catalog.left_out", "id-odd")]
    assert [one.ref for one in await catalog.left_out()] == ["id-odd"]


async def test_closing_ends_a_reading_under_way() -> None:
    glance = Glance()
    catalog = glance.catalog()
    await names(catalog)
    glance.time += FRESH_S
    glance.gate = anyio.Event()
    await names(catalog)
    await settle()
    await catalog.close()
    await catalog.close()
