"""Nova's states as ours, and what is read from records."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from beamdesk.adapters.openstack.records import NovaServer, Port, Volume, when
from beamdesk.domain.errors import CloudError
from beamdesk.domain.server import HostState, ServerStatus


def server(**fields: object) -> NovaServer:
    return NovaServer.read({"id": "u", "status": "ACTIVE", "created": "2026-11-20T22:05:08Z", "tags": ["a"], **fields})


@pytest.mark.parametrize(
    ("status", "task", "ours"),
    [
        ("ACTIVE", None, ServerStatus.ACTIVE),
        ("BUILD", "scheduling", ServerStatus.BUILD),
        ("ACTIVE", "deleting", ServerStatus.DELETING),
        ("ERROR", "deleting", ServerStatus.DELETING),
        ("ERROR", None, ServerStatus.ERROR),
        ("ERROR", "spawning", ServerStatus.ERROR),
        ("SHUTOFF", None, ServerStatus.SHUTOFF),
        ("SHUTOFF", "powering-on", ServerStatus.BUILD),
        ("ACTIVE", "powering-off", ServerStatus.ACTIVE),
        ("SHELVED_OFFLOADED", None, ServerStatus.SHUTOFF),
        ("SHELVED_OFFLOADED", "unshelving", ServerStatus.BUILD),
        ("ACTIVE", "shelving_image_uploading", ServerStatus.ACTIVE),
        ("SHELVED", "shelving_offloading", ServerStatus.ACTIVE),
        ("SHELVED", None, ServerStatus.SHUTOFF),
        ("SHUTOFF", "shelving", ServerStatus.ACTIVE),
        ("PAUSED", None, ServerStatus.SHUTOFF),
        ("REBUILD", "rebuilding", ServerStatus.BUILD),
        ("MIGRATING", "migrating", ServerStatus.ACTIVE),
        ("SOFT_DELETED", None, ServerStatus.DELETING),
        ("SOMETHING_NEW", None, ServerStatus.UNKNOWN),
    ],
)
def test_a_state_of_nova_is_one_of_ours(status: str, task: str | None, ours: ServerStatus) -> None:
    assert server(status=status, **{"OS-EXT-STS:task_state": task}).status is ours


def test_a_server_in_a_cell_that_is_down_is_known_as_such() -> None:
    partial = NovaServer.read({"id": "u", "status": "UNKNOWN", "created": "2026-11-20T22:05:08Z", "tenant_id": "p", "links": []})
    assert partial.partial
    assert partial.status is ServerStatus.UNKNOWN
    assert not server().partial


def test_the_fault_and_the_time_are_read() -> None:
    read = server(status="ERROR", fault={"message": "No valid host was found.", "code": 500})
    assert read.fault == "No valid host was found."
    assert read.created_at == datetime(2026, 11, 20, 22, 5, 8, tzinfo=UTC)


def test_times_of_all_services_are_utc() -> None:
    assert when("2026-11-20T22:05:08Z") == when("2026-11-20T22:05:08.000000") == when("2026-11-20T22:05:08+00:00")
    with pytest.raises(CloudError):
        when("yesterday")


def test_a_port_and_a_volume_survive_missing_fields() -> None:
    assert Port.read({"id": "p", "fixed_ips": None, "device_id": None}) == Port("p", "", "", "", frozenset(), "")
    assert Volume.read({"id": "v", "metadata": None}).deployment == ""


def test_the_first_address_of_a_port_counts() -> None:
    port = Port.read({"id": "p", "fixed_ips": [{"ip_address": "10.0.0.7"}, {"ip_address": "fd00::7"}], "security_groups": ["g"]})
    assert (port.address, port.groups) == ("10.0.0.7", frozenset({"g"}))


def test_a_server_without_a_first_start_never_ran() -> None:
    assert not server(**{"OS-SRV-USG:launched_at": None}).launched
    assert server(**{"OS-SRV-USG:launched_at": "2026-11-20T22:06:00.000000"}).launched
    assert server().launched, "who is not told throws nothing away"


@pytest.mark.parametrize(
    ("told", "ours"),
    [
        ("UP", HostState.UP),
        ("UNKNOWN", HostState.SILENT),
        ("DOWN", HostState.DOWN),
        ("MAINTENANCE", HostState.UP),
        ("", HostState.UP),
        (None, HostState.UP),
    ],
)
def test_the_state_of_the_host_is_what_nova_tells(told: str | None, ours: HostState) -> None:
    assert server(host_status=told).host is ours
