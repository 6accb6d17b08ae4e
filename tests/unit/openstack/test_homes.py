"""Volumes whose order was lost on its way to Cinder's backends: thrown away and ordered anew, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from beamdesk.adapters.openstack import homes
from beamdesk.adapters.openstack.config import Homes
from beamdesk.adapters.openstack.connection import Connection
from beamdesk.adapters.openstack.homes import Volumes
from beamdesk.adapters.openstack.names import Names
from beamdesk.domain.errors import CloudError
from beamdesk.domain.ids import DesktopId
from unit.openstack.tiny_cloud import Answer, TinyCloud, config_for, tiny_cloud

pytestmark = pytest.mark.anyio
NAMES, DESKTOP = Names("d" * 32), DesktopId("0123456789abcdef")
VOLUMES = "/volume/v3/volumes"
BUSY = Answer(400, {"badRequest": {"message": "Invalid volume: Volume status must be available or error."}})


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyCloud]:
    monkeypatch.setattr(homes, "_LOOK_S", 0)
    with tiny_cloud() as serving:
        yield serving


@pytest.fixture
def volumes(cloud: TinyCloud, tmp_path: Path) -> Volumes:
    config = config_for(cloud, tmp_path, homes=Homes(enabled=True, gib=1))
    return Volumes(Connection(config.places[0], config), NAMES, config.homes)


def creating(age_s: float) -> dict[str, Any]:
    born = (datetime.now(UTC) - timedelta(seconds=age_s)).replace(tzinfo=None).isoformat()
    return {
        "id": "v", "name": NAMES.resource(DESKTOP), "status": "creating", "created_at": born, "metadata": NAMES.metadata(DESKTOP),
    }  # fmt: skip


def told(cloud: TinyCloud, age_s: float, deletion: Answer) -> None:
    cloud.on("GET", f"{VOLUMES}/detail", Answer(200, {"volumes": [creating(age_s)]}))
    cloud.on("GET", f"{VOLUMES}/v", Answer(200, {"volume": creating(age_s)}))
    cloud.on("DELETE", f"{VOLUMES}/v", deletion)


async def test_an_order_that_got_lost_is_thrown_away_and_given_anew(cloud: TinyCloud, volumes: Volumes) -> None:
    told(cloud, 3600, Answer(202))
    with pytest.raises(CloudError, match="orders another") as refused:
        await volumes.home(DESKTOP)
    assert refused.value.retryable
    made = {**creating(0), "status": "available"}
    cloud.on("GET", f"{VOLUMES}/detail", Answer(200, {"volumes": []}), Answer(200, {"volumes": [made]}))
    cloud.on("POST", VOLUMES, Answer(202, {"volume": made}))
    assert (await volumes.home(DESKTOP)).id == "v"


@pytest.mark.parametrize(("age_s", "asked"), [(3600, 1), (5, 0)], ids=["a backend has it", "it is new"])
async def test_a_volume_that_is_being_made_is_waited_for(cloud: TinyCloud, volumes: Volumes, age_s: float, asked: int) -> None:
    told(cloud, age_s, BUSY)
    with pytest.raises(CloudError, match="waits for it"):
        await volumes.home(DESKTOP)
    assert cloud.asked["DELETE", f"{VOLUMES}/v"] == asked
