"""The driver on a real cloud, beyond the contract: races, leftovers, foreign things, security groups, operations."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

import pytest

from beamdesk.adapters.openstack.config import Firewall, Place, WhenStopped
from beamdesk.adapters.openstack.driver import OpenStackCloud
from beamdesk.adapters.openstack.names import NONCE_KEY
from beamdesk.adapters.openstack.ports import PortTaken
from beamdesk.domain.errors import CloudError, CloudRefused
from beamdesk.domain.ids import ServerId
from beamdesk.domain.server import Remedy
from beamdesk.ports.cloud import ServerOperations, ServerSpec, ServerStatus
from contract.cloud_cases import clear, forget, reach, vanish
from contract.cloud_openstack import GATEWAY, OpenStackCase
from controlplane.clouds import ADMIN, APPLICATION, BEAMDESK, OTHER_PROJECT
from controlplane.content import NETWORK
from driverkit import eyes, nova_id, ports_of

pytestmark = [pytest.mark.openstack, pytest.mark.anyio]


async def test_drivers_that_race_make_one_server_one_port_and_one_home(
    case: OpenStackCase, cloud: OpenStackCloud, deployment: str, spec: ServerSpec
) -> None:
    rivals = [cloud, case.cloud(deployment), case.cloud(deployment)]
    answers = await asyncio.gather(*(one.create_server(spec) for one in rivals), return_exceptions=True)
    made = {answer.id for answer in answers if not isinstance(answer, BaseException)}
    assert len(made) == 1, answers
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(answer, CloudError) and answer.retryable for answer in refused), refused
    (server,) = (await cloud.find_servers(spec.desktop_id)).servers
    assert made == {server.id}
    assert len(ports_of(deployment)) == 1
    with eyes(BEAMDESK) as sdk:
        assert len([one for one in sdk.block_storage.volumes() if one.metadata.get("beamdesk_desktop") == spec.desktop_id]) == 1
    for rival in rivals[1:]:
        await rival.close()


async def test_in_a_network_of_somebody_else_racing_drivers_make_one_server_too(
    case: OpenStackCase, deployment: str, spec: ServerSpec
) -> None:
    places = (Place("main", BEAMDESK, NETWORK),)  # shared by the administrator: no choosing of MAC addresses there
    rivals = [case.cloud(deployment, places=places) for _ in range(3)]
    answers = await asyncio.gather(*(one.create_server(spec) for one in rivals), return_exceptions=True)
    assert len({answer.id for answer in answers if not isinstance(answer, BaseException)}) == 1, answers
    assert len((await rivals[0].find_servers(spec.desktop_id)).servers) == 1
    assert len(ports_of(deployment)) == 1
    for rival in rivals[1:]:
        await rival.close()
    await clear(case, rivals[0])


async def test_a_port_that_its_maker_left_is_taken_over_after_a_while(
    case: OpenStackCase, cloud: OpenStackCloud, deployment: str, spec: ServerSpec
) -> None:
    place = cloud.places["main"]
    left = await place.ports.take(spec.desktop_id, await place.lookups.network(), None)  # and its maker dies
    with pytest.raises(PortTaken):
        await cloud.create_server(spec)
    place.ports._takeover_s = 0.0
    await cloud.create_server(spec)
    (port,) = ports_of(deployment)
    assert port.id != left.id


async def test_a_deleted_server_leaves_nothing_once_its_home_is_deleted(
    case: OpenStackCase, cloud: OpenStackCloud, deployment: str, spec: ServerSpec
) -> None:
    server = await cloud.create_server(spec)
    await reach(case, cloud, spec, ServerStatus.ACTIVE)
    await cloud.delete_server(server.id)
    await vanish(case, cloud, spec)
    await forget(case, cloud, spec.desktop_id)
    assert ports_of(deployment) == []
    with eyes(BEAMDESK) as sdk:
        for _ in range(100):
            left = [one for one in sdk.block_storage.volumes() if one.metadata.get("beamdesk_deployment") == deployment]
            if not left:
                break
            await case.pause()
        assert left == []


async def test_only_the_gateway_reaches_the_stream(
    case: OpenStackCase, cloud: OpenStackCloud, deployment: str, spec: ServerSpec
) -> None:
    await cloud.create_server(spec)
    (port,) = ports_of(deployment)
    with eyes() as sdk:
        groups = [sdk.network.get_security_group(one) for one in port.security_group_ids]
    ingress = [rule for group in groups for rule in group.security_group_rules if rule["direction"] == "ingress"]
    assert [(rule["protocol"], rule["port_range_min"], rule["remote_ip_prefix"]) for rule in ingress] == [("tcp", 8082, GATEWAY)]


async def test_a_rule_that_somebody_added_is_closed_again(case: OpenStackCase, cloud: OpenStackCloud, deployment: str) -> None:
    groups = cloud.places["main"].groups
    (group,) = await groups.wanted("") or ()
    with eyes(BEAMDESK) as sdk:
        sdk.network.create_security_group_rule(
            security_group_id=group, direction="ingress", protocol="tcp", port_range_min=22, port_range_max=22
        )
        groups.forget()
        await groups.wanted("")
        rules = sdk.network.get_security_group(group).security_group_rules
    assert [rule["port_range_min"] for rule in rules if rule["direction"] == "ingress"] == [8082]


async def test_beamline_networks_are_reached_in_the_slot_only(case: OpenStackCase, deployment: str, spec: ServerSpec) -> None:
    firewall = Firewall((GATEWAY,), ("10.10.0.0/16",), {"B7": ("10.70.0.0/16",)})
    cloud = case.cloud(deployment, firewall=firewall)
    server = await cloud.create_server(replace(spec, beamline="B7"))
    await reach(case, cloud, spec, ServerStatus.ACTIVE)

    def reached() -> set[str]:
        (port,) = ports_of(deployment)
        with eyes() as sdk:
            groups = [sdk.network.get_security_group(one) for one in port.security_group_ids]
        return {
            rule["remote_ip_prefix"] for group in groups for rule in group.security_group_rules if rule["direction"] == "egress"
        }

    assert reached() == {"10.10.0.0/16", "10.70.0.0/16", "169.254.169.254/32"}
    await cloud.stop_server(server.id)
    await reach(case, cloud, spec, ServerStatus.SHUTOFF)
    await cloud.start_server(server.id, replace(spec, beamline=""))
    assert reached() == {"10.10.0.0/16", "169.254.169.254/32"}
    await clear(case, cloud)


async def test_a_started_server_finds_its_new_nonce_in_the_metadata_and_the_first_in_no_list(
    case: OpenStackCase, cloud: OpenStackCloud, spec: ServerSpec
) -> None:
    server = await cloud.create_server(replace(spec, nonce="first-nonce-of-this-desktop"))
    await reach(case, cloud, spec, ServerStatus.ACTIVE)
    with eyes(BEAMDESK) as sdk:
        seen = sdk.compute.get_server(nova_id(server.id))
        assert "first-nonce" not in str(seen.to_dict())
        await cloud.stop_server(server.id)
        await reach(case, cloud, spec, ServerStatus.SHUTOFF)
        await cloud.start_server(server.id, replace(spec, nonce="second-nonce"))
        assert sdk.compute.get_server(nova_id(server.id)).metadata[NONCE_KEY] == "second-nonce"


async def test_a_server_of_another_project_is_refused_and_untouched(
    case: OpenStackCase, cloud: OpenStackCloud, spec: ServerSpec
) -> None:
    other = case.cloud(uuid.uuid4().hex)
    server = await other.create_server(spec)
    await reach(case, other, spec, ServerStatus.ACTIVE)
    for attempt in (cloud.stop_server(server.id), cloud.delete_server(server.id), cloud.snapshot_server(server.id, "stolen")):
        with pytest.raises(CloudRefused, match="does not belong"):
            await attempt
    await reach(case, other, spec, ServerStatus.ACTIVE)
    await clear(case, other)


async def test_experiments_live_in_their_own_projects(case: OpenStackCase, deployment: str) -> None:
    main = case.config.places[0]
    places = (Place("b8", OTHER_PROJECT, NETWORK, experiments=("b8-*",)), main)
    cloud = case.cloud(deployment, places=places)
    ours, theirs = case.spec(uuid.uuid4().hex[:16]), replace(case.spec(uuid.uuid4().hex[:16]), experiment="b8-2026-1")
    first, second = await cloud.create_server(ours), await cloud.create_server(theirs)
    assert (first.id.split(":")[0], second.id.split(":")[0]) == ("main", "b8")
    assert {server.id for server in (await cloud.list_servers()).servers} == {first.id, second.id}
    for one in (ours, theirs):
        await reach(case, cloud, one, ServerStatus.ACTIVE)
    await clear(case, cloud)


async def test_an_application_credential_is_enough(case: OpenStackCase, deployment: str, spec: ServerSpec) -> None:
    cloud = case.cloud(deployment, places=(replace(case.config.places[0], cloud=APPLICATION),))
    await cloud.create_server(spec)
    await reach(case, cloud, spec, ServerStatus.ACTIVE)
    await clear(case, cloud)


async def test_a_build_that_no_host_takes_says_so(case: OpenStackCase, deployment: str, spec: ServerSpec) -> None:
    cloud = case.cloud(deployment, flavors={"small": "desk-too-big"})
    await cloud.create_server(spec)
    server = await reach(case, cloud, spec, ServerStatus.ERROR)
    assert "No host of the cloud can take this desktop" in server.fault
    await clear(case, cloud)


async def test_with_an_administrators_rights_the_missing_resource_is_told(
    case: OpenStackCase, deployment: str, spec: ServerSpec
) -> None:
    cloud = case.cloud(deployment, flavors={"small": "desk-too-big"}, places=(Place("main", ADMIN, NETWORK),))
    await cloud.create_server(spec)
    server = await reach(case, cloud, spec, ServerStatus.ERROR)
    assert "All 5 hosts have fewer than 1000 vCPUs free. None is large enough, even when it is empty. (Nova:" in server.fault
    assert (server.launched, server.remedy) == (False, Remedy.PERSON)
    await clear(case, cloud)


async def test_a_flavor_and_a_network_that_are_not_there_are_named(case: OpenStackCase, deployment: str, spec: ServerSpec) -> None:
    cloud = case.cloud(deployment)
    with pytest.raises(CloudRefused, match="no flavor gigantic"):
        await cloud.create_server(replace(spec, flavor_ref="gigantic"))
    await cloud.close()
    lost = case.cloud(deployment, places=(replace(case.config.places[0], network="nowhere"),))
    with pytest.raises(CloudRefused, match="no network nowhere"):
        await lost.create_server(spec)
    assert ports_of(deployment) == []
    await lost.close()


async def test_a_shelved_server_gives_its_host_up_and_comes_back_with_a_new_nonce(
    case: OpenStackCase, deployment: str, spec: ServerSpec
) -> None:
    cloud = case.cloud(deployment, when_stopped=WhenStopped.SHELVE)
    await cloud.create_server(spec)
    server = await reach(case, cloud, spec, ServerStatus.ACTIVE)
    await cloud.stop_server(server.id)
    stopped = await reach(case, cloud, spec, ServerStatus.SHUTOFF)
    assert (stopped.id, stopped.remedy) == (server.id, Remedy.WAIT)
    with eyes() as sdk:
        assert sdk.compute.get_server(nova_id(server.id)).compute_host is None
        await cloud.stop_server(server.id)
        await cloud.start_server(server.id, replace(spec, nonce="after-shelving"))
        again = await reach(case, cloud, spec, ServerStatus.ACTIVE)
        assert (again.id, again.created_at) == (server.id, server.created_at)
        for _ in range(100):
            if sdk.compute.get_server(nova_id(server.id)).metadata.get(NONCE_KEY) == "after-shelving":
                break
            await case.pause()
        else:
            pytest.fail("the nonce does not follow")
    await clear(case, cloud)


async def test_operators_can_shelve_rebuild_resize_and_snapshot(
    case: OpenStackCase, cloud: OpenStackCloud, spec: ServerSpec
) -> None:
    assert isinstance(cloud, ServerOperations)
    await cloud.create_server(spec)
    server = await reach(case, cloud, spec, ServerStatus.ACTIVE)
    await cloud.shelve_server(server.id)
    await reach(case, cloud, spec, ServerStatus.SHUTOFF)
    await settle(case, server.id)
    await cloud.start_server(server.id, spec)
    await reach(case, cloud, spec, ServerStatus.ACTIVE)
    await settle(case, server.id)
    await cloud.rebuild_server(server.id, replace(spec, nonce="after-rebuild"))
    await settle(case, server.id)
    again = await reach(case, cloud, spec, ServerStatus.ACTIVE)
    assert (again.id, again.created_at) == (server.id, server.created_at)
    image = await cloud.snapshot_server(server.id, "of-a-test")
    await settle(case, server.id)
    with eyes(BEAMDESK) as sdk:
        assert sdk.image.get_image(image).name == "of-a-test"
        sdk.image.delete_image(image)
    assert not await cloud.confirm_resize(server.id)


async def test_a_resize_is_confirmed(case: OpenStackCase, deployment: str, spec: ServerSpec) -> None:
    cloud = case.cloud(deployment, flavors={"small": "desk-small", "medium": "desk-medium"})
    server = await cloud.create_server(spec)
    await reach(case, cloud, spec, ServerStatus.ACTIVE)
    await cloud.resize_server(server.id, replace(spec, flavor_ref="medium"))
    for _ in range(200):
        if await cloud.confirm_resize(server.id):
            break
        await case.pause()
    await settle(case, server.id)
    with eyes(BEAMDESK) as sdk:
        assert sdk.compute.get_server(nova_id(server.id)).flavor["original_name"] == "desk-medium"
    await clear(case, cloud)


async def test_the_console_has_an_address_with_a_token_and_a_stopped_server_has_none(
    case: OpenStackCase, cloud: OpenStackCloud, spec: ServerSpec
) -> None:
    server = await cloud.create_server(spec)
    await reach(case, cloud, spec, ServerStatus.ACTIVE)
    first, second = [await cloud.console_url(server.id) for _ in range(2)]
    assert first.startswith("http://127.0.0.1:6080/vnc_lite.html?")
    assert "token" in first
    assert first != second, "each asks for a token of its own"
    stranger = case.cloud(uuid.uuid4().hex)
    with pytest.raises(CloudRefused, match="does not belong"):
        await stranger.console_url(server.id)
    await stranger.close()
    await cloud.stop_server(server.id)
    await reach(case, cloud, spec, ServerStatus.SHUTOFF)
    with pytest.raises(CloudRefused, match="Start the desktop"):
        await cloud.console_url(server.id)


async def test_changes_of_many_desktops_are_seen(case: OpenStackCase, cloud: OpenStackCloud, deployment: str) -> None:
    specs = [case.spec(uuid.uuid4().hex[:16]) for _ in range(6)]
    servers = await asyncio.gather(*(cloud.create_server(one) for one in specs))

    async def states() -> list[ServerStatus | None]:
        seen = await asyncio.gather(*(cloud.find_servers(one.desktop_id) for one in specs))
        return [one.servers[0].status if one.servers else None for one in seen]

    async def become(wanted: list[ServerStatus | None]) -> None:
        for _ in range(300):
            if await states() == wanted:
                return
            await case.pause()
        pytest.fail(str(await states()))

    await become([ServerStatus.ACTIVE] * 6)
    await cloud.stop_server(servers[0].id)
    await cloud.delete_server(servers[1].id)
    await become([ServerStatus.SHUTOFF, None, *[ServerStatus.ACTIVE] * 4])
    seen = await asyncio.gather(*(cloud.find_servers(one.desktop_id) for one in specs[2:]))
    assert all(one.servers[0].address for one in seen)


async def settle(case: OpenStackCase, server_id: ServerId) -> None:
    """Wait until Nova does nothing more with a server."""
    with eyes() as sdk:
        for _ in range(300):
            if sdk.compute.get_server(nova_id(server_id)).task_state is None:
                return
            await case.pause()
    pytest.fail("Nova does not get done")
