"""SRM records in a real Placement, below the providers of a real Nova."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from apisite import Site, running_site
from beamdesk.adapters.openstack.config import GuestApi, OpenStackConfig, Place
from beamdesk.adapters.openstack.connection import Connection, Reply
from beamdesk.adapters.openstack.errors import Service
from beamdesk.adapters.openstack_placement.model import OWNER_TRAIT, RESOURCE_CLASS, prefix, wanted
from beamdesk.adapters.openstack_placement.projection import Outcome, Projection
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.srm import CardState, DeviceRecord, HostRecord
from controlplane.plane import ControlPlane
from engine_kit import T0
from srmkit import FACTS, FIRST, SECOND, a_card

pytestmark = pytest.mark.openstack
DEPLOYMENT = "srm-test"
HOST, OTHER = "host-000", "host-003"
CARD = DeviceRecord(HOST, FIRST, a_card(FIRST), CardState.FREE, T0)


class Cloud:
    """Placement as the admin sees it, and a projection onto it."""

    def __init__(self, openstack: ControlPlane) -> None:
        place = Place("main", "admin", "")
        config = OpenStackConfig((place,), GuestApi(""), clouds_yaml=openstack.clouds_yaml, timeout_s=60)
        self.connection = Connection(place, config)
        self.projection = Projection(self, DEPLOYMENT)
        self.requests: list[str] = []
        self.before_write: list[tuple[str, Any]] = []

    async def call(self, service: Service, method: str, path: str, doing: str, **how: Any) -> Reply:
        """Count, and let somebody else write first where a test wants that."""
        self.requests.append(f"{method} {path}")
        if self.before_write and method == "PUT" and path.endswith(self.before_write[0][0]):
            _, rival = self.before_write.pop(0)
            await rival()
        return await self.connection.call(service, method, path, doing, **how)

    async def get(self, path: str) -> Mapping[str, Any]:
        return (await self.connection.call(Service.PLACEMENT, "GET", path, "look", version="1.37")).data

    async def send(self, method: str, path: str, body: Any = None) -> Reply:
        return await self.connection.call(Service.PLACEMENT, method, path, "test", body=body, version="1.37")

    async def project(self, *devices: DeviceRecord, stale: tuple[str, ...] = (), **host: Any) -> Outcome:
        hosts = [replace(HostRecord(name, T0, facts=FACTS), **host) for name in {device.host for device in devices}]
        self.requests.clear()
        return await self.projection.reconcile(wanted(DEPLOYMENT, hosts, devices, frozenset(stale)))

    async def ours(self) -> dict[str, dict[str, Any]]:
        listed = (await self.get("/resource_providers"))["resource_providers"]
        return {one["name"].removeprefix(prefix(DEPLOYMENT)): one for one in listed if one["name"].startswith(prefix(DEPLOYMENT))}

    async def inventory(self, one: Mapping[str, Any]) -> Mapping[str, Any]:
        inventories: Mapping[str, Any] = (await self.get(f"/resource_providers/{one['uuid']}/inventories"))["inventories"]
        return inventories

    async def candidates(self, *traits: str) -> int:
        required = f"&required={','.join(traits)}" if traits else ""
        found = await self.get(f"/allocation_candidates?resources={RESOURCE_CLASS}:1{required}")
        return len(found["allocation_requests"])


@asynccontextmanager
async def opened(openstack: ControlPlane) -> AsyncIterator[Cloud]:
    cloud = Cloud(openstack)
    try:
        yield cloud
    finally:
        await cloud.project()
        cloud.connection.close()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _tidy(openstack: ControlPlane) -> Iterator[None]:
    yield
    with openstack.connect("admin") as admin:
        left = [one["name"] for one in admin.placement.get("/resource_providers").json()["resource_providers"]]
    assert not [name for name in left if name.startswith("beamdesk-srm")]


async def others(cloud: Cloud) -> dict[str, Any]:
    """Return what is not ours, but for what Nova itself changes in its own time."""
    listed = (await cloud.get("/resource_providers"))["resource_providers"]
    theirs = [one for one in listed if not one["name"].startswith(prefix(DEPLOYMENT))]
    return {one["name"]: (one["uuid"], await cloud.inventory(one)) for one in theirs}


@pytest.mark.anyio
async def test_cards_become_providers_below_their_host_and_nothing_else_changes(openstack: ControlPlane) -> None:
    async with opened(openstack) as cloud:
        before = await others(cloud)
        outcome = await cloud.project(
            CARD, replace(CARD, address=SECOND, facts=a_card(SECOND, device="26b1", model="RTX 6000 Ada Generation"))
        )
        assert (outcome.created, outcome.homeless) == (2, set())
        found = await cloud.ours()
        assert set(found) == {f"{HOST}_{FIRST}", f"{HOST}_{SECOND}"}
        root = (await cloud.get(f"/resource_providers?name={HOST}"))["resource_providers"][0]
        one = found[f"{HOST}_{FIRST}"]
        assert one["parent_provider_uuid"] == root["uuid"]
        traits = set((await cloud.get(f"/resource_providers/{one['uuid']}/traits"))["traits"])
        assert {OWNER_TRAIT, "CUSTOM_GPU_MODEL_RTX_A6000", "CUSTOM_GPU_MEM_GE_48G"} <= traits
        assert "CUSTOM_GPU_MEM_GE_80G" not in traits
        assert await cloud.candidates() == 2
        assert await cloud.candidates("CUSTOM_GPU_MODEL_RTX_6000_ADA") == 1
        assert await others(cloud) == before


@pytest.mark.anyio
async def test_a_round_that_finds_all_well_asks_once_and_writes_nothing(openstack: ControlPlane) -> None:
    async with opened(openstack) as cloud:
        await cloud.project(CARD)
        await cloud.project(CARD)
        assert cloud.requests == ["GET /resource_providers"]
        cloud.projection = Projection(cloud, DEPLOYMENT)
        assert (await cloud.project(CARD)).changed == 0, "another process finds it as it should be"
        assert not [one for one in cloud.requests if one.startswith("PUT /resource_providers")]


@pytest.mark.anyio
async def test_what_is_not_free_cannot_be_allocated(openstack: ControlPlane) -> None:
    async with opened(openstack) as cloud:
        for state in (CardState.DIRTY, CardState.CLEANING, CardState.FAILED, CardState.USED):
            await cloud.project(replace(CARD, state=state))
            assert await cloud.candidates() == 0, state
        await cloud.project(CARD)
        assert await cloud.candidates() == 1
        await cloud.project(CARD, stale=(HOST,))
        assert await cloud.candidates() == 0, "a silent host"
        await cloud.project(CARD, enabled=False)
        assert await cloud.candidates() == 0, "a closed host"
        await cloud.project(replace(CARD, present=False))
        assert await cloud.candidates() == 0, "a missing card"


@pytest.mark.anyio
async def test_a_provider_in_use_is_kept_reserved_until_it_is_free(openstack: ControlPlane) -> None:
    async with opened(openstack) as cloud:
        await cloud.project(CARD)
        (one,) = (await cloud.ours()).values()
        consumer = "11111111-2222-4333-8444-555555555555"
        body = {
            "allocations": {one["uuid"]: {"resources": {RESOURCE_CLASS: 1}}}, "project_id": "p", "user_id": "u", "consumer_generation": None,
        }  # fmt: skip
        await cloud.send("PUT", f"/allocations/{consumer}", body)
        await cloud.project(replace(CARD, state=CardState.USED))
        assert (await cloud.inventory(one))[RESOURCE_CLASS]["reserved"] == 0, "its holder may still change its allocation"
        outcome = await cloud.project(replace(CARD, host=OTHER))
        assert (outcome.created, outcome.kept, outcome.deleted) == (1, 1, 0)
        assert (await cloud.inventory(one))[RESOURCE_CLASS]["reserved"] == 1
        await cloud.send("DELETE", f"/allocations/{consumer}")
        assert (await cloud.project(replace(CARD, host=OTHER))).deleted == 1


@pytest.mark.anyio
async def test_somebody_who_writes_at_the_same_time_loses_nothing(openstack: ControlPlane) -> None:
    async with opened(openstack) as cloud:
        await cloud.project(CARD)
        (one,) = (await cloud.ours()).values()
        path = f"/resource_providers/{one['uuid']}/traits"

        async def label() -> None:
            now = await cloud.get(path)
            traits = [*now["traits"], "HW_CPU_X86_AVX"]
            await cloud.send("PUT", path, {"resource_provider_generation": now["resource_provider_generation"], "traits": traits})

        cloud.before_write = [("/inventories", label), ("/traits", label)]
        await cloud.project(
            replace(CARD, state=CardState.DIRTY, facts=a_card(FIRST, device="2231", model="RTX A5000", memory_mib=24576))
        )
        assert cloud.before_write == []
        assert (await cloud.inventory(one))[RESOURCE_CLASS]["reserved"] == 1
        traits = set((await cloud.get(path))["traits"])
        assert {"HW_CPU_X86_AVX", "CUSTOM_GPU_MODEL_RTX_A5000"} <= traits
        assert "CUSTOM_GPU_MODEL_RTX_A6000" not in traits


@pytest.mark.anyio
async def test_two_processes_at_once_make_one_provider(openstack: ControlPlane) -> None:
    async with opened(openstack) as cloud, opened(openstack) as other:
        for _ in range(5):  # one in twenty met inside of Placement's transactions
            await asyncio.gather(cloud.project(CARD), other.project(CARD))
            assert len(await cloud.ours()) == 1
            await cloud.project()


@pytest.mark.anyio
async def test_a_host_that_nova_does_not_know_is_told_and_left_out(openstack: ControlPlane) -> None:
    async with opened(openstack) as cloud:
        outcome = await cloud.project(replace(CARD, host="stranger"), CARD)
        assert (outcome.homeless, outcome.created) == ({"stranger"}, 1)


@pytest.mark.anyio
async def test_novas_own_reports_leave_ours_alone(openstack: ControlPlane) -> None:
    async with opened(openstack) as cloud:
        await cloud.project(CARD)
        openstack.restart(openstack.process_of(HOST))
        await cloud.project(CARD)
        assert await cloud.candidates() == 1
        assert set(await cloud.ours()) == {f"{HOST}_{FIRST}"}


@pytest.mark.anyio
async def test_the_reconciler_keeps_placement_in_step(openstack: ControlPlane, tmp_path: Path) -> None:
    """The whole way: a record in the store, the process with its settings, a provider in Placement, and its end."""
    settings = {"BEAMDESK_SRM__PLACEMENT_CLOUD": "admin", "BEAMDESK_OPENSTACK__CLOUDS_YAML": str(openstack.clouds_yaml)}
    with running_site(tmp_path / "site", reconcile=False, **settings) as site:
        store = await SqlStore.open(f"sqlite+aiosqlite:///{site.root}/app/store.db")
        now = datetime.now(UTC)
        async with store.begin(write=True) as tx:
            await tx.srm.put_host(HostRecord(HOST, now, facts=FACTS, seen_at=now))
            await tx.srm.put_device(CARD)
        site.start("reconcile")
        name = f"{prefix((site.root / 'app' / 'deployment-id').read_text().strip())}{HOST}_{FIRST}"

        async def there() -> bool:
            with openstack.connect("admin") as admin:
                found = admin.placement.get("/resource_providers").json()["resource_providers"]
            return name in {one["name"] for one in found}

        await _until(there, site)
        async with store.begin(write=True) as tx:
            await tx.srm.remove_host(HOST)
        await _until(lambda: _not(there), site)
        await store.close()


async def _not(fact: Callable[[], Awaitable[bool]]) -> bool:
    return not await fact()


async def _until(fact: Callable[[], Awaitable[bool]], site: Site) -> None:
    for _ in range(600):
        if await fact():
            return
        await asyncio.sleep(0.2)
    pytest.fail(site.log("reconcile")[-3000:])
