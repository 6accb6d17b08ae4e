"""Volumes that Cinder lost the thread of: an order that no backend got, an attachment to a server that is gone; and no others."""

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
from beamdesk.adapters.openstack.records import Volume
from beamdesk.domain.errors import CloudError, CloudRefused
from beamdesk.domain.ids import DesktopId
from unit.openstack.tiny_cloud import Answer, TinyCloud, config_for, tiny_cloud

pytestmark = pytest.mark.anyio
NAMES, DESKTOP = Names("d" * 32), DesktopId("0123456789abcdef")
VOLUMES = "/volume/v3/volumes"
ATTACHMENTS = "/volume/v3/attachments"
BUSY = Answer(400, {"badRequest": {"message": "Invalid volume: Volume status must be available or error."}})


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyCloud]:
    monkeypatch.setattr(homes, "_LOOK_S", 0)
    with tiny_cloud() as serving:
        yield serving


@pytest.fixture
def volumes(cloud: TinyCloud, tmp_path: Path) -> Volumes:
    config = config_for(cloud, tmp_path, homes=Homes(enabled=True, gib=1))
    return Volumes(Connection(config.places[0], config), NAMES, config.homes, known)


async def known(uuid: str) -> bool:
    return uuid == "there"


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


@pytest.mark.parametrize(("age_s", "asked"), [(70, 1), (5, 0)], ids=["a backend has it", "it is new"])
async def test_a_volume_that_is_being_made_is_waited_for(cloud: TinyCloud, volumes: Volumes, age_s: float, asked: int) -> None:
    told(cloud, age_s, BUSY)
    with pytest.raises(CloudError, match="waits for it"):
        await volumes.home(DESKTOP)
    assert cloud.asked["DELETE", f"{VOLUMES}/v"] == asked


@pytest.mark.parametrize("before", [[], ["w"]], ids=["the first one", "another one was given up before"])
async def test_a_home_that_a_backend_never_finishes_is_given_up_once(cloud: TinyCloud, volumes: Volumes, before: list[str]) -> None:
    told(cloud, 3600, BUSY)
    lost = [{**given_up(creating(3600)), "id": one} for one in before]
    cloud.on("GET", f"{VOLUMES}/detail", Answer(200, {"volumes": [creating(3600), *lost]}))
    cloud.on("POST", f"{VOLUMES}/v/metadata", Answer(200, {"metadata": {"beamdesk_given_up": "true"}}))
    with pytest.raises(CloudError, match="waits for it" if before else "does not finish") as refused:
        await volumes.home(DESKTOP)
    assert refused.value.retryable
    assert cloud.asked["POST", f"{VOLUMES}/v/metadata"] == (0 if before else 1)


async def test_what_was_given_up_is_no_home_and_holds_no_deletion_up(cloud: TinyCloud, volumes: Volumes) -> None:
    lost, other = given_up(creating(3600)), {**creating(0), "id": "w", "status": "available"}
    cloud.on("GET", f"{VOLUMES}/detail", Answer(200, {"volumes": [lost, other]}))
    assert (await volumes.home(DESKTOP)).id == "w"
    await volumes.delete(Volume.read(lost))
    cloud.on("DELETE", f"{VOLUMES}/v", Answer(202))
    await volumes.delete(Volume.read({**lost, "status": "error"}))
    assert cloud.asked["DELETE", f"{VOLUMES}/v"] == 1


async def test_a_home_that_is_in_use_is_the_home_whatever_its_marks(cloud: TinyCloud, volumes: Volumes) -> None:
    used = {**given_up(creating(3600)), "status": "available", "attachments": [{"server_id": "there"}]}
    other = {**creating(0), "id": "w", "status": "available"}
    cloud.on("GET", f"{VOLUMES}/detail", Answer(200, {"volumes": [other, used]}))
    assert (await volumes.home(DESKTOP)).id == "v"


def given_up(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "metadata": {**record["metadata"], "beamdesk_given_up": "true"}}


def kept(cloud: TinyCloud, server: str) -> Volume:
    """Let Cinder keep the home for a server, and refuse to delete it."""
    record = {**creating(0), "status": "reserved"}
    cloud.on("DELETE", f"{VOLUMES}/v", BUSY)
    cloud.on("GET", f"{VOLUMES}/detail", Answer(200, {"volumes": [record]}))
    attachments = [{"id": "a", "status": "reserved", "instance": server, "volume_id": "v"}]
    cloud.on("GET", ATTACHMENTS, Answer(200, {"attachments": attachments}))
    cloud.on("DELETE", f"{ATTACHMENTS}/a", Answer(200, {"attachments": []}))
    return Volume.read(record)


@pytest.mark.parametrize("server", ["there", ""], ids=["a server", "a host"])
async def test_a_volume_in_use_is_not_taken_away(
    cloud: TinyCloud, volumes: Volumes, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setattr(homes, "_ORPHAN_S", 0)
    with pytest.raises(CloudRefused, match="in use"):
        await volumes.delete(kept(cloud, server))
    assert cloud.asked["DELETE", f"{ATTACHMENTS}/a"] == 0


async def test_a_volume_kept_for_a_server_that_is_gone_is_waited_for_and_then_released(
    cloud: TinyCloud, volumes: Volumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = kept(cloud, "gone")
    for _again in range(2):  # Nova reserves a volume before it records the server: not at once
        with pytest.raises(CloudError, match="waits for it") as refused:
            await volumes.delete(home)
        assert refused.value.retryable
    assert cloud.asked["DELETE", f"{ATTACHMENTS}/a"] == 0
    monkeypatch.setattr(homes, "_ORPHAN_S", 0)
    with pytest.raises(CloudError, match="waits for it"):
        await volumes.delete(home)
    assert cloud.asked["DELETE", f"{ATTACHMENTS}/a"] == 1


async def test_the_next_server_gets_a_home_that_was_kept_for_one_that_is_gone(
    cloud: TinyCloud, volumes: Volumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(homes, "_ORPHAN_S", 0)
    kept(cloud, "gone")
    with pytest.raises(CloudError, match="waits for it"):
        await volumes.home(DESKTOP)
    assert cloud.asked["DELETE", f"{ATTACHMENTS}/a"] == 1


async def test_a_volume_with_snapshots_is_refused_with_what_cinder_said(cloud: TinyCloud, volumes: Volumes) -> None:
    cloud.on("DELETE", f"{VOLUMES}/v", BUSY)
    cloud.on("GET", ATTACHMENTS, Answer(200, {"attachments": []}))
    with pytest.raises(CloudRefused, match="Volume status must be available"):
        await volumes.delete(Volume.read({**creating(0), "status": "available"}))
