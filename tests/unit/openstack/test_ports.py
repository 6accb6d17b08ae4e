"""The port as a lock: who may take over a port that lies unused, and that no clock but a process's own is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beamdesk.adapters.openstack.connection import Connection
from beamdesk.adapters.openstack.names import Names
from beamdesk.adapters.openstack.ports import Ports, PortTaken
from beamdesk.adapters.openstack.records import Port
from beamdesk.domain.ids import DesktopId
from unit.openstack.tiny_cloud import Answer, TinyCloud, config_for, tiny_cloud

pytestmark = pytest.mark.anyio
NAMES, DESKTOP = Names("d" * 32), DesktopId("0123456789abcdef")
PORTS = "/network/v2.0/ports"


@pytest.fixture
def cloud() -> Iterator[TinyCloud]:
    with tiny_cloud() as serving:
        serving.on("POST", PORTS, Answer(201, {"port": record("mine")}))
        serving.on("DELETE", f"{PORTS}/left", Answer(204))
        serving.on("DELETE", f"{PORTS}/other", Answer(204))
        yield serving


class Steady:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def record(uuid: str, *, device: str = "", name: str = "", created: str = "2026-11-20T22:05:08Z") -> dict[str, Any]:
    return {"id": uuid, "name": name or NAMES.resource(DESKTOP), "device_id": device, "fixed_ips": [], "created_at": created}


def ports(cloud: TinyCloud, folder: Path, steady: Steady) -> Ports:
    config = config_for(cloud, folder)
    return Ports(Connection(config.places[0], config), NAMES, takeover_s=20.0, monotonic=steady)


async def take(of: Ports) -> str:
    return (await of.take(DESKTOP, "network", None)).id


@pytest.mark.parametrize("created", ["2001-01-01T00:00:00Z", "2099-01-01T00:00:00Z"], ids=["old by its date", "of the future"])
async def test_a_port_is_taken_over_once_it_was_seen_unused_for_long_whatever_its_date(
    cloud: TinyCloud, tmp_path: Path, created: str
) -> None:
    cloud.on("GET", PORTS, Answer(200, {"ports": [record("left", created=created)]}))
    steady = Steady()
    mine = ports(cloud, tmp_path, steady)
    for seconds in (0, 10, 9.9):
        steady.now += seconds
        with pytest.raises(PortTaken):
            await take(mine)
    steady.now += 0.2
    assert await take(mine) == "mine"
    assert cloud.asked["DELETE", f"{PORTS}/left"] == 1


async def test_another_port_begins_anew(cloud: TinyCloud, tmp_path: Path) -> None:
    steady = Steady()
    mine = ports(cloud, tmp_path, steady)
    for uuid in ("left", "other"):
        cloud.on("GET", PORTS, Answer(200, {"ports": [record(uuid)]}))
        with pytest.raises(PortTaken):
            await take(mine)
        steady.now += 15
    with pytest.raises(PortTaken):
        await take(mine)


async def test_a_port_in_use_is_never_taken_and_a_released_one_at_once(cloud: TinyCloud, tmp_path: Path) -> None:
    steady = Steady()
    mine = ports(cloud, tmp_path, steady)
    cloud.on("GET", PORTS, Answer(200, {"ports": [record("left", device="somebody")]}))
    for _ in range(2):
        with pytest.raises(PortTaken):
            await take(mine)
        steady.now += 1000
    cloud.on("GET", PORTS, Answer(200, {"ports": [record("left", name=NAMES.released(DESKTOP))]}))
    assert await take(mine) == "mine"


async def test_a_port_whose_server_is_gone_is_taken_over_at_once_by_who_saw_it_serve(cloud: TinyCloud, tmp_path: Path) -> None:
    mine = ports(cloud, tmp_path, Steady())
    cloud.on("GET", PORTS, Answer(200, {"ports": [record("left", device="somebody")]}))
    await mine.listed(DESKTOP)
    cloud.on("GET", PORTS, Answer(200, {"ports": [record("left")]}))
    assert await take(mine) == "mine"


async def test_the_time_of_a_port_that_an_order_left_here_runs_from_then(cloud: TinyCloud, tmp_path: Path) -> None:
    steady = Steady()
    mine = ports(cloud, tmp_path, steady)
    mine.lies_idle(DESKTOP, Port.read(record("left")))
    cloud.on("GET", PORTS, Answer(200, {"ports": [record("left")]}))
    steady.now += 19
    with pytest.raises(PortTaken):
        await take(mine)
    steady.now += 1.1
    assert await take(mine) == "mine"
