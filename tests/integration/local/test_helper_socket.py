"""The helper's socket under attack: strangers, nonsense, and requests that ask for what the configuration does not allow."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from beamdesk.protocol.helper import Op, Reply, Request
from integration.local.helper_world import IMAGE, SOCKET_GID, HelperWorld

pytestmark = pytest.mark.root

START: dict[str, Any] = {
    "desktop_id": "attacker01",
    "deployment_id": "tests",
    "image": IMAGE,
    "account": {"login": "ada", "uid": 20001, "gid": 20001, "gids": [30001]},
    "mounts": [{"experiment": "exp-a", "area": "raw", "writable": False}],
    "vcpus": 1,
    "memory_mib": 256,
    "disk_gib": 1,
    "gpus": [],
    "nonce": "n" * 43,
}


def send(world: HelperWorld, payload: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(world.socket_path))
        connection.sendall(payload)
        with connection.makefile("rb") as file:
            return dict(json.loads(file.readline()))


def ask(world: HelperWorld, message: dict[str, Any]) -> dict[str, Any]:
    return send(world, json.dumps(message).encode() + b"\n")


def started(world: HelperWorld, **changes: object) -> dict[str, Any]:
    return ask(world, {"op": "start", "start": {**START, **changes}})


def as_other(uid: int, gid: int, work: Callable[[], str]) -> str:
    """Run ``work`` in a child with another identity and return what it says."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        try:
            os.write(write_end, work().encode())
        except OSError as error:
            os.write(write_end, error.__class__.__name__.encode())
        os._exit(0)
    os.close(write_end)
    with open(read_end, encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
        said = file.read()
    os.waitpid(child, 0)
    return said


@pytest.fixture(autouse=True)
def nothing_was_started_and_the_helper_lives(world: HelperWorld) -> Any:
    yield
    assert world.call(Request(op=Op.LIST)) == Reply(servers=())
    assert world.process
    assert world.process.poll() is None


def test_an_account_outside_the_sockets_group_cannot_connect(world: HelperWorld) -> None:
    assert as_other(64000, 64000, lambda: ask(world, {"op": "hello"})["error"]) == "PermissionError"


def test_another_account_in_the_sockets_group_is_refused(world: HelperWorld) -> None:
    assert as_other(64000, SOCKET_GID, lambda: str(ask(world, {"op": "hello"})["error"])) == "not_allowed"


def test_the_socket_is_for_root_and_its_group(world: HelperWorld) -> None:
    status = world.socket_path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (0, SOCKET_GID, 0o660)


@pytest.mark.parametrize(
    "payload",
    [
        b"\n",
        b"hello\n",
        b"[]\n",
        b"{}\n",
        b"null\n",
        b"\xff\xfe\x00\n",
        b'{"op":"become_root"}\n',
        b'{"op":"hello","extra":1}\n',
        b'{"op":1}\n',
        b'{"op":"start"}\n',
        b'{"op":"stop"}\n',
        b'{"op":"hello","desktop":{"desktop_id":"attacker01"}}\n',
        b'{"op":"open_file","desktop":{"desktop_id":"attacker01"}}\n',
        b'{"op":"stop","desktop":{"desktop_id":"../../etc"}}\n',
        b'{"op":"console","desktop":{"desktop_id":"attacker01/../x"}}\n',
        b"[" * 50_000 + b"\n",
        b'{"op":"stop","desktop":{"desktop_id":"attacker01"},"file":{}}\n',
    ],
)
def test_nonsense_is_malformed(world: HelperWorld, payload: bytes) -> None:
    reply = send(world, payload)
    assert reply["error"] == "malformed"
    assert reply["detail"]


def test_an_oversized_request_is_refused_and_the_connection_closed(world: HelperWorld) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(world.socket_path))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.sendall(b"x" * (16 << 20))


def test_half_a_request_and_many_idle_connections_harm_nobody(world: HelperWorld) -> None:
    idle = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    try:
        for connection in idle:
            connection.connect(str(world.socket_path))
            connection.sendall(b'{"op":')
        assert ask(world, {"op": "hello"})["error"] == ""
    finally:
        for connection in idle:
            connection.close()


def test_several_requests_on_one_connection_are_answered_in_order(world: HelperWorld) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(world.socket_path))
        connection.sendall(b'{"op":"hello"}\n{"op":"nonsense"}\n{"op":"list"}\n')
        with connection.makefile("rb") as file:
            first, second, third = (json.loads(file.readline()) for _ in range(3))
    assert first["host"]["missing"] == []
    assert second["error"] == "malformed"
    assert third["servers"] == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"account": {"login": "root", "uid": 0, "gid": 0, "gids": []}}, "out_of_range"),
        ({"account": {"login": "ada", "uid": 20001, "gid": 0, "gids": []}}, "out_of_range"),
        ({"account": {"login": "ada", "uid": 1000, "gid": 20001, "gids": []}}, "out_of_range"),
        ({"account": {"login": "ada", "uid": 20001, "gid": 20001, "gids": [0]}}, "out_of_range"),
        ({"account": {"login": "ada", "uid": 20001, "gid": 20001, "gids": list(range(30000, 30100))}}, "out_of_range"),
        ({"account": {"login": "../etc", "uid": 20001, "gid": 20001, "gids": []}}, "malformed"),
        ({"account": {"login": "a:b", "uid": 20001, "gid": 20001, "gids": []}}, "malformed"),
        ({"account": {"login": "ada", "uid": -1, "gid": 20001, "gids": []}}, "out_of_range"),
        ({"account": {"login": "ada", "uid": True, "gid": 20001, "gids": []}}, "malformed"),
        ({"mounts": [{"experiment": "../exp-a", "area": "raw", "writable": False}]}, "malformed"),
        ({"mounts": [{"experiment": "exp-a/raw", "area": "raw", "writable": False}]}, "malformed"),
        ({"mounts": [{"experiment": "..", "area": "raw", "writable": False}]}, "malformed"),
        ({"mounts": [{"experiment": "exp-a", "area": "../exp-b", "writable": False}]}, "malformed"),
        ({"mounts": [{"experiment": "exp-a", "area": "raw", "writable": True}]}, "malformed"),
        ({"mounts": [{"experiment": "exp-a", "area": "raw", "writable": False}] * 2}, "malformed"),
        ({"mounts": [{"experiment": "exp-none", "area": "raw", "writable": False}]}, "unknown_data"),
        ({"mounts": [{"experiment": "exp-link", "area": "raw", "writable": False}]}, "unknown_data"),
        ({"image": "../../etc/passwd"}, "malformed"),
        ({"image": "f" * 16}, "unknown_image"),
        ({"image": "a" * 16}, "unknown_image"),
        ({"image": "b" * 16}, "unknown_image"),
        ({"image": "c" * 16}, "unknown_image"),
        ({"desktop_id": "../../../x"}, "malformed"),
        ({"desktop_id": "short"}, "malformed"),
        ({"deployment_id": "a/b"}, "malformed"),
        ({"nonce": "short"}, "malformed"),
        ({"nonce": "n" * 40 + '"\n'}, "malformed"),
        ({"gpus": ["nvidia0; rm"]}, "out_of_range"),
        ({"gpus": ["any"] * 65}, "out_of_range"),
        ({"gpus": ["any"] * 60}, "no_capacity"),
        ({"vcpus": 1024}, "no_capacity"),
        ({"vcpus": 0}, "malformed"),
        ({"vcpus": 1.5}, "malformed"),
        ({"memory_mib": 16 * 1024 * 1024}, "no_capacity"),
        ({"memory_mib": 1}, "malformed"),
        ({"disk_gib": 65536}, "no_capacity"),
        ({"unknown": 1}, "malformed"),
    ],
)
def test_a_start_beyond_the_configuration_is_refused(world: HelperWorld, changes: dict[str, Any], error: str) -> None:
    link = world.folder / "data/exp-link"
    if not link.exists():
        link.symlink_to("exp-b")
        good = (world.folder / "images" / f"{IMAGE}.json").read_text()
        for name, content, mode in (
            ("a" * 16, good, 0o666),
            ("b" * 16, '{"layers": ["/etc/../etc"]}', 0o644),
            ("c" * 16, '{"layers": ["/tmp"]}', 0o644),
        ):
            index = world.folder / "images" / f"{name}.json"
            index.write_text(content)
            index.chmod(mode)
    reply = started(world, **changes)
    assert reply["error"] == error, reply
    assert reply["detail"].endswith(".")


def test_a_home_image_that_is_a_link_is_not_followed(world: HelperWorld) -> None:
    target = world.folder / "precious"
    target.write_bytes(b"precious" * 512)
    link = world.folder / "homes/attacker01.img"
    link.symlink_to(target)
    try:
        assert started(world)["error"] == "failed"
    finally:
        link.unlink()
        (world.folder / "homes/attacker01.json").unlink(missing_ok=True)
    assert target.read_bytes() == b"precious" * 512


def test_what_belongs_to_another_deployment_is_refused(world: HelperWorld) -> None:
    try:
        assert started(world)["error"] == ""
        assert started(world, deployment_id="others")["error"] == "foreign"
        for op in ("stop", "delete", "delete_home", "console"):
            assert ask(world, {"op": op, "desktop": {"desktop_id": "attacker01", "deployment_id": "others"}})["error"] == "foreign"
    finally:
        for op in ("delete", "delete_home"):
            assert ask(world, {"op": op, "desktop": {"desktop_id": "attacker01", "deployment_id": "tests"}})["error"] == ""


def test_the_machines_capacity_counts_what_runs(world: HelperWorld) -> None:
    offered = ask(world, {"op": "hello"})["host"]["memory_mib"]
    try:
        assert started(world)["error"] == ""
        reply = started(world, desktop_id="attacker02", memory_mib=offered - 100)
        assert reply["error"] == "no_capacity"
        assert "memory" in reply["detail"]
    finally:
        for op in ("delete", "delete_home"):
            ask(world, {"op": op, "desktop": {"desktop_id": "attacker01"}})
