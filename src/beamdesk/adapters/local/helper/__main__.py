"""Start the privileged helper: ``python -m beamdesk.adapters.local.helper --config FILE [--lifeline FD]``.

Ends, and ends every container, on SIGTERM, SIGINT or when the other end of the lifeline closes.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import hashlib
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from beamdesk.adapters.local.helper import children, cleanup, machine, server
from beamdesk.adapters.local.helper.cgroup import Cgroups
from beamdesk.adapters.local.helper.config import Config, load, require_root_only
from beamdesk.adapters.local.helper.errors import BadConfig
from beamdesk.adapters.local.helper.log import say
from beamdesk.adapters.local.helper.notify import Leaders
from beamdesk.adapters.local.helper.service import Service
from beamdesk.adapters.local.helper.state import Records

_LOCK_TIMEOUT_S = 6.0
"""Longer than the janitor of a dead helper takes."""


def main() -> int:
    """Run the helper until it is told to end; the exit status is 2 for a bad configuration."""
    parser = argparse.ArgumentParser(prog="beamdesk-helper", description="Starts desktop containers for Beamdesk. Runs as root.")
    parser.add_argument("--config", type=Path, required=True, help="configuration file, root's alone")
    parser.add_argument(
        "--lifeline", dest="lifeline_fd", type=int, metavar="FD", help="end when the other end of this descriptor closes"
    )
    arguments = parser.parse_args()
    os.umask(0o077)
    try:
        config = load(arguments.config)
        if arguments.lifeline_fd is not None:
            config = replace(config, lifeline_fd=arguments.lifeline_fd)
        make_folders(config)
        lock = take_lock(config)
    except BadConfig as error:
        say(str(error))
        return 2
    cgroups = Cgroups.of_this_machine(hashlib.sha256(str(config.state_dir).encode()).hexdigest()[:12])
    cleanup.sweep(config, cgroups)
    start_janitor(config, cgroups)
    try:
        asyncio.run(run(config, cgroups))
    finally:
        os.close(lock)
    return 0


def make_folders(config: Config) -> None:
    """Make the helper's own folders and check that nobody else can exchange them.

    Raises:
        BadConfig: naming the folder.
    """
    for folder, mode, gid in (
        (config.run_dir, 0o750, config.socket_gid),
        (config.streams_dir, 0o710, config.socket_gid),
        (config.stage_dir, 0o700, 0),
        (config.state_dir, 0o700, 0),
        (config.console_dir, 0o700, 0),
        (config.records_dir, 0o700, 0),
        (config.homes_dir, 0o700, 0),
        (config.images_index_dir, 0o755, 0),
    ):
        _make_folder(folder, mode, gid)
    for folder in (config.data_root, config.socket.parent):
        require_root_only(folder)


def _make_folder(folder: Path, mode: int, gid: int) -> None:
    if not folder.exists():
        if not folder.parent.exists():
            _make_folder(folder.parent, 0o755, 0)
        require_root_only(folder.parent)
        folder.mkdir()
        os.chown(folder, 0, gid)
        folder.chmod(mode)
    require_root_only(folder)


def take_lock(config: Config) -> int:
    """Take the lock of this configuration's only helper; waits for the janitor of a dead one.

    Raises:
        BadConfig: another helper runs.
    """
    fd = os.open(config.state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise BadConfig(f"{config.state_dir}: another helper runs with this folder") from None
            time.sleep(0.05)
        else:
            return fd


def start_janitor(config: Config, cgroups: Cgroups) -> None:
    """Fork a process that does nothing until this one is gone, however it died, and then removes what is left of it."""
    read_end, write_end = os.pipe()  # the helper keeps the write end open for life and never hands it on

    def work() -> None:
        os.close(write_end)
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.read(read_end, 1)
        cleanup.sweep(config, cgroups)

    children.fork(work, die_with_parent=False)
    os.close(read_end)


async def run(config: Config, cgroups: Cgroups) -> None:
    """Serve until told to end, then stop every container."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, ending.set)
    if config.lifeline_fd >= 0:
        os.set_inheritable(config.lifeline_fd, False)
        loop.add_reader(config.lifeline_fd, lambda: _check_lifeline(config.lifeline_fd, ending))
    leaders = Leaders(config.notify_socket)
    service = Service(config, cgroups, Records.load(config.records_dir), leaders, time.time)
    service.missing = await machine.find_missing(config, cgroups)
    for name in service.missing:
        say(f"this machine lacks {name}: no desktop can start")
    listener = server.listen(str(config.socket), config.socket_gid)
    serving = asyncio.create_task(server.Server(service, config.allowed_uid).serve(listener))
    say(f"listening on {config.socket}")
    await ending.wait()
    serving.cancel()
    listener.close()
    config.socket.unlink(missing_ok=True)
    await service.close()
    leaders.close()


def _check_lifeline(fd: int, ending: asyncio.Event) -> None:
    if not os.read(fd, 4096):
        asyncio.get_running_loop().remove_reader(fd)
        ending.set()


if __name__ == "__main__":
    sys.exit(main())
