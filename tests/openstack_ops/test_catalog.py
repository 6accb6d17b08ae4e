"""The catalogue of a real cloud: Glance's properties and Nova's extra specs arrive, and it outlives an outage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from beamdesk.adapters.openstack import catalog_source
from beamdesk.adapters.openstack.catalog import FRESH_S, OpenStackCatalog
from beamdesk.adapters.openstack.catalog_source import read_lists
from beamdesk.adapters.openstack.connection import Connection
from beamdesk.domain.catalog import Resources, Software
from beamdesk.domain.errors import CloudError
from beamdesk.domain.text import Text
from controlplane.plane import ControlPlane
from openstack_ops.site import IMAGE, config, image, offers

pytestmark = [pytest.mark.openstack, pytest.mark.anyio]


@pytest.fixture
def admin(openstack: ControlPlane) -> Any:
    with offers(openstack) as connection:
        yield connection


@pytest.fixture
async def connection(openstack: ControlPlane, admin: Any) -> AsyncIterator[Connection]:
    site = config(openstack.clouds_yaml)
    made = Connection(site.places[0], site)
    yield made
    made.close()


async def test_properties_and_extra_specs_are_the_catalogue(connection: Connection, admin: Any) -> None:
    catalog = OpenStackCatalog(partial(read_lists, connection))
    found = {one.id: one for one in await catalog.images()}["ops-imaging"]
    assert found.title == Text("Imaging beamline", "成像线站")
    assert found.software == (Software("silx view", Text("Looks", "看")),)
    assert found.beamlines == {"B7", "B8"}
    assert admin.image.get_image(found.ref).name == "ops-imaging-1"
    sizes = {one.id: one.resources for one in await catalog.flavors()}
    assert sizes["ops-gpu"] == Resources(2, 1024, 5, 1)
    assert "desk-medium" not in sizes
    await catalog.close()


async def test_a_malformed_image_is_left_out_and_the_rest_is_on_offer(connection: Connection, admin: Any) -> None:
    with image(admin, "ops-odd", {**IMAGE, "beamdesk_image": "ops-odd", "beamdesk_software": "{"}):
        catalog = OpenStackCatalog(partial(read_lists, connection))
        assert "ops-imaging" in {one.id for one in await catalog.images()}
        assert [(one.name, one.reason) for one in await catalog.left_out()] == [("ops-odd", "beamdesk_software is not valid JSON")]


async def test_lists_are_read_page_by_page(connection: Connection, admin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = await read_lists(connection)
    monkeypatch.setattr(catalog_source, "_LIMIT", 1)
    assert [len(part) for part in whole] == [len(part) for part in await read_lists(connection)]
    assert len(whole[0]) >= 2


async def test_an_outage_of_glance_takes_no_title_away(openstack: ControlPlane, connection: Connection) -> None:
    time = 0.0
    failures = []

    async def read() -> Any:
        try:
            return await read_lists(connection)
        except CloudError as error:
            failures.append(error)
            raise

    catalog = OpenStackCatalog(read, now=lambda: time)
    before = await catalog.images()
    with openstack.stopped("glance"):
        time += FRESH_S
        assert await catalog.images() == before
        await catalog.settled()
        assert await catalog.images() == before
    assert len(failures) == 1
