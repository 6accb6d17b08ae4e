"""Reaching a socket in a directory that an attacker owns."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from beamdesk.domain.errors import StreamUnavailable
from beamdesk.domain.ids import SessionId
from beamdesk.gateway.upstream import connect_socket, open_socket_path, session_token


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "run" / "d1").mkdir(parents=True)
    return tmp_path / "run"


def listen(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def test_a_socket_is_opened(run_dir: Path):
    with listen(run_dir / "d1" / "stream.sock"):
        os.close(open_socket_path(run_dir / "d1" / "stream.sock", run_dir))


def test_a_link_to_another_socket_is_refused(run_dir: Path, tmp_path: Path):
    with listen(tmp_path / "secret.sock"):
        (run_dir / "d1" / "stream.sock").symlink_to(tmp_path / "secret.sock")
        with pytest.raises(ValueError, match="not a socket"):
            open_socket_path(run_dir / "d1" / "stream.sock", run_dir)


def test_a_link_on_the_way_is_refused(run_dir: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    with listen(tmp_path / "elsewhere" / "stream.sock"):
        (run_dir / "d2").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError):
            open_socket_path(run_dir / "d2" / "stream.sock", run_dir)


@pytest.mark.parametrize("what", ["file", "directory", "fifo"])
def test_what_is_no_socket_is_refused(run_dir: Path, what: str):
    path = run_dir / "d1" / "stream.sock"
    {"file": path.touch, "directory": path.mkdir, "fifo": lambda: os.mkfifo(path)}[what]()
    with pytest.raises(ValueError, match="not a socket"):
        open_socket_path(path, run_dir)


@pytest.mark.parametrize("path", ["/etc/passwd", "/run/docker.sock", "relative.sock", "{run}/d1/../../secret.sock", "{run}"])
def test_a_path_outside_the_run_directory_is_refused(run_dir: Path, path: str):
    with pytest.raises(ValueError):
        open_socket_path(Path(path.format(run=run_dir)), run_dir)


def test_no_descriptor_is_left_open(run_dir: Path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in (run_dir / "d1", run_dir / "d1" / "missing", run_dir / "no" / "missing"):
        with pytest.raises((OSError, ValueError)):
            open_socket_path(path, run_dir)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.anyio
@pytest.mark.parametrize(
    "address", ["", "unix:", "unix:relative", "http://x", "tcp:", "tcp:localhost:22", "tcp:127.0.0.1:", "tcp:127.0.0.1:99999"]
)
async def test_a_strange_address_is_unavailable(run_dir: Path, address: str):
    with pytest.raises(StreamUnavailable):
        await connect_socket(address, run_dir, 1.0)


@pytest.mark.anyio
async def test_a_listener_on_tcp_is_reached(run_dir: Path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        (await connect_socket(f"tcp:127.0.0.1:{server.getsockname()[1]}", run_dir, 1.0)).close()


def test_tokens_differ_by_session_and_by_desktop():
    one, two = SessionId("s1"), SessionId("s2")
    assert session_token("k", one) == session_token("k", one)
    assert len({session_token("k", one), session_token("k", two), session_token("l", one)}) == 3
    assert session_token("k", one) != "k"
    assert len(session_token("k", one)) == 43
