"""The contract of ``beamdesk.ports.cloud``, the same on every driver."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import anyio
import pytest

from beamdesk.domain.errors import CloudRefused, CloudUnavailable
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.ports.cloud import Cloud, ServerSpec, ServerStatus
from contract.cloud_cases import CloudCase, clear, forget, open_case, params, reach, vanish

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=params())
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudCase]:
    with open_case(request.param, tmp_path_factory.mktemp("cloud")) as opened:
        yield opened


@pytest.fixture
def deployment() -> str:
    return uuid.uuid4().hex


@pytest.fixture
async def cloud(case: CloudCase, deployment: str) -> Iterator[Cloud]:
    made = case.cloud(deployment)
    yield made
    await clear(case, made)


@pytest.fixture
def spec(case: CloudCase) -> ServerSpec:
    return case.spec(uuid.uuid4().hex[:16])


async def test_a_created_server_becomes_active_with_an_address(case: CloudCase, cloud: Cloud, spec: ServerSpec) -> None:
    created = await cloud.create_server(spec)
    assert created.status in (ServerStatus.BUILD, ServerStatus.ACTIVE)
    server = await reach(case, cloud, spec, ServerStatus.ACTIVE)
    assert server.id == created.id
    assert server.desktop_id == spec.desktop_id
    assert server.created_at.tzinfo is not None
    assert server.address is not None
    assert server.address.split(":")[0] in ("unix", "tcp")
    assert server.fault == ""


async def test_creating_twice_makes_one_server(cloud: Cloud, spec: ServerSpec) -> None:
    first = await cloud.create_server(spec)
    second = await cloud.create_server(spec)
    assert first.id == second.id
    assert len((await cloud.list_servers()).servers) == 1


async def test_creating_at_the_same_time_makes_one_server(cloud: Cloud, spec: ServerSpec) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(cloud.create_server, spec)
    assert len((await cloud.find_servers(spec.desktop_id)).servers) == 1


async def test_two_desktops_have_a_server_each(case: CloudCase, cloud: Cloud, spec: ServerSpec) -> None:
    other = case.spec(uuid.uuid4().hex[:16])
    await cloud.create_server(spec)
    await cloud.create_server(other)
    await reach(case, cloud, spec, ServerStatus.ACTIVE)
    await reach(case, cloud, other, ServerStatus.ACTIVE)
    listed = await cloud.list_servers()
    assert listed.complete
    assert {server.desktop_id for server in listed.servers} == {spec.desktop_id, other.desktop_id}


async def test_a_stopped_server_is_shut_off_and_stopping_again_is_fine(case: CloudCase, cloud: Cloud, spec: ServerSpec) -> None:
    server = await cloud.create_server(spec)
    await reach(case, cloud, spec, ServerStatus.ACTIVE)
    await cloud.stop_server(server.id)
    await reach(case, cloud, spec, ServerStatus.SHUTOFF)
    await cloud.stop_server(server.id)
    assert (await reach(case, cloud, spec, ServerStatus.SHUTOFF)).id == server.id


async def test_a_stopped_server_starts_again_as_the_same_one(case: CloudCase, cloud: Cloud, spec: ServerSpec) -> None:
    await cloud.create_server(spec)
    server = await reach(case, cloud, spec, ServerStatus.ACTIVE)
    await cloud.stop_server(server.id)
    await reach(case, cloud, spec, ServerStatus.SHUTOFF)
    await cloud.start_server(server.id, replace(spec, nonce="another-nonce-of-this-start-only"))
    again = await reach(case, cloud, spec, ServerStatus.ACTIVE)
    assert (again.id, again.created_at) == (server.id, server.created_at)


async def test_starting_a_running_server_is_fine(case: CloudCase, cloud: Cloud, spec: ServerSpec) -> None:
    server = await cloud.create_server(spec)
    await reach(case, cloud, spec, ServerStatus.ACTIVE)
    await cloud.start_server(server.id, spec)
    assert (await reach(case, cloud, spec, ServerStatus.ACTIVE)).id == server.id


async def test_creating_finds_a_stopped_server_too(case: CloudCase, cloud: Cloud, spec: ServerSpec) -> None:
    server = await cloud.create_server(spec)
    await reach(case, cloud, spec, ServerStatus.ACTIVE)
    await cloud.stop_server(server.id)
    await reach(case, cloud, spec, ServerStatus.SHUTOFF)
    assert (await cloud.create_server(spec)).id == server.id


async def test_a_deleted_server_is_gone_and_deleting_twice_is_fine(case: CloudCase, cloud: Cloud, spec: ServerSpec) -> None:
    server = await cloud.create_server(spec)
    await cloud.delete_server(server.id)
    await vanish(case, cloud, spec)
    await cloud.delete_server(server.id)
    observed = await cloud.list_servers()
    assert (observed.servers, observed.complete) == ((), True)


async def test_a_server_can_be_made_again_after_deletion(case: CloudCase, cloud: Cloud, spec: ServerSpec) -> None:
    await cloud.delete_server((await cloud.create_server(spec)).id)
    await vanish(case, cloud, spec)
    await cloud.create_server(spec)
    await reach(case, cloud, spec, ServerStatus.ACTIVE)


async def test_absent_is_success_for_stop_and_delete(cloud: Cloud) -> None:
    nothing = uuid.uuid4().hex[:16]
    await cloud.stop_server(ServerId(nothing))
    await cloud.delete_server(ServerId(nothing))
    await cloud.delete_home(DesktopId(nothing))
    observed = await cloud.find_servers(DesktopId(nothing))
    assert (observed.servers, observed.complete) == ((), True)


async def test_a_home_outlives_its_server_until_it_is_deleted(case: CloudCase, cloud: Cloud, spec: ServerSpec) -> None:
    server = await cloud.create_server(spec)
    await reach(case, cloud, spec, ServerStatus.ACTIVE)
    await cloud.delete_server(server.id)
    await vanish(case, cloud, spec)
    assert await cloud.list_homes() == (spec.desktop_id,)
    await forget(case, cloud, spec.desktop_id)
    assert await cloud.list_homes() == ()
    await cloud.delete_home(spec.desktop_id)


async def test_a_home_in_use_is_not_deleted(case: CloudCase, cloud: Cloud, spec: ServerSpec) -> None:
    await cloud.create_server(spec)
    await reach(case, cloud, spec, ServerStatus.ACTIVE)
    with pytest.raises(CloudRefused):
        await cloud.delete_home(spec.desktop_id)
    assert await cloud.list_homes() == (spec.desktop_id,)


async def test_another_deployment_is_neither_seen_nor_touched(case: CloudCase, cloud: Cloud, spec: ServerSpec) -> None:
    server = await cloud.create_server(spec)
    await reach(case, cloud, spec, ServerStatus.ACTIVE)
    stranger = case.cloud(uuid.uuid4().hex)
    assert (await stranger.list_servers()).servers == ()
    assert (await stranger.find_servers(spec.desktop_id)).servers == ()
    assert await stranger.list_homes() == ()
    for attempt in (stranger.stop_server(server.id), stranger.delete_server(server.id), stranger.delete_home(spec.desktop_id)):
        try:
            await attempt
        except CloudRefused:
            continue
    assert (await reach(case, cloud, spec, ServerStatus.ACTIVE)).id == server.id
    await stranger.close()


async def test_an_unknown_image_is_refused(cloud: Cloud, spec: ServerSpec) -> None:
    with pytest.raises(CloudRefused):
        await cloud.create_server(replace(spec, image_ref="f" * 32))
    assert (await cloud.find_servers(spec.desktop_id)).servers == ()


async def test_a_cloud_that_does_not_answer_is_unavailable(case: CloudCase, spec: ServerSpec) -> None:
    cloud = case.unreachable()
    for attempt in (cloud.create_server(spec), cloud.stop_server(ServerId(spec.desktop_id)), cloud.list_homes()):
        with pytest.raises(CloudUnavailable):
            await attempt
    with suppress(CloudUnavailable):
        assert not (await cloud.list_servers()).complete
    await cloud.close()


async def test_the_console_of_a_server_can_be_read(case: CloudCase, cloud: Cloud, spec: ServerSpec) -> None:
    server = await cloud.create_server(spec)
    await reach(case, cloud, spec, ServerStatus.ACTIVE)
    assert isinstance(await cloud.console_log(server.id), str)
    assert await cloud.console_log(server.id, lines=0) == ""


async def test_the_capacity_is_unknown_or_has_room_for_a_desktop(cloud: Cloud, spec: ServerSpec) -> None:
    capacity = await cloud.capacity()
    if capacity is not None:
        assert capacity.vcpus >= spec.vcpus
        assert capacity.memory_mib >= spec.memory_mib
        assert capacity.disk_gib >= spec.disk_gib
        assert capacity.gpus >= 0
