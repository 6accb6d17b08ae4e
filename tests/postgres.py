"""A private PostgreSQL from Debian's binaries: an unprivileged user, a Unix socket in a temporary directory, no durability."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

_FAST = "fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB", "max_connections=60", "autovacuum=off"


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if not found:
        pytest.fail("PostgreSQL is missing: install the packages of deploy/packages.txt (postgresql)")
    return found[-1].parent


def _account() -> dict[str, int]:
    """PostgreSQL refuses to run as root: use Debian's account for it there."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        pytest.fail("the account 'postgres' of Debian's package is missing")
    return {"user": entry.pw_uid, "group": entry.pw_gid}


class Postgres:
    """A running server. `database` makes a fresh database and returns its URL."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0

    def database(self) -> str:
        self._count += 1
        name = f"test{self._count}"
        with psycopg.connect(f"host={self._directory} user=beamdesk dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://beamdesk@/{name}?host={self._directory}"


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server, and stop it and remove all of it in the end."""
    binaries, account = _binaries(), _account()
    directory = Path(tempfile.mkdtemp(prefix="bd-pg-"))
    if account:
        os.chown(directory, account["user"], account["group"])
    quiet = {"cwd": directory, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "extra_groups": [] if account else None}
    data = directory / "data"
    initdb = [binaries / "initdb", "-D", data, "-U", "beamdesk", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
    process: subprocess.Popen[bytes] | None = None
    try:
        subprocess.run(initdb, check=True, **account, **quiet)
        options = [
            part for setting in (*_FAST, "listen_addresses=", f"unix_socket_directories={directory}") for part in ("-c", setting)
        ]
        process = subprocess.Popen([binaries / "postgres", "-D", data, *options], **account, **quiet)
        _wait_until_up(directory, process)
        yield Postgres(directory)
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
        shutil.rmtree(directory, ignore_errors=True)


def _wait_until_up(directory: Path, process: subprocess.Popen[bytes]) -> None:
    import time

    for _ in range(200):
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(f"host={directory} user=beamdesk dbname=postgres").close()
            return
        if process.poll() is not None:
            pytest.fail(f"PostgreSQL did not start: {process.communicate()[1].decode()[-500:]}")
        time.sleep(0.05)
    pytest.fail("PostgreSQL did not come up within 10 s")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests of a process that ask."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, on each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/store.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()
