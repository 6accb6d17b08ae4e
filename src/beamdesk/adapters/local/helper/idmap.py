"""User namespaces as identity mappings: who a container's uid 0..65535 is on the host.

A mapping exists as a descriptor of a user namespace without processes; idmapped mounts (mount_setattr(2)) take it from there.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Collection
from pathlib import Path

from beamdesk.adapters.local.helper import syscalls
from beamdesk.adapters.local.helper.errors import HelperError

RANGE = 65536
"""Uids and gids of one container; all of a person's and an experiment's ids lie below it."""


def choose_base(desktop_id: str, first: int, last: int, taken: Collection[int]) -> int:
    """Choose the first host uid of the desktop's range, distinct from ``taken``.

    The id decides where the search starts, so that a desktop keeps its range and two helpers on one machine hardly ever meet.

    Raises:
        HelperError: ``no_capacity``, when no range is left between ``first`` and ``last``.
    """
    slots = (last - first + 1) // RANGE
    start = int.from_bytes(hashlib.sha256(desktop_id.encode()).digest()[:8]) % slots
    for offset in range(slots):
        base = first + (start + offset) % slots * RANGE
        if base not in taken:
            return base
    raise HelperError("no_capacity", "All uid ranges of this machine are in use; stop a desktop first.")


def open_mapping(base: int) -> int:
    """Return a descriptor of a new user namespace that maps 0..65535 to ``base``..; its only process is gone already."""
    ready_read, ready_write = os.pipe()
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _wait_in_namespace(ready_write, go_read, go_write)
    try:
        os.close(ready_write)
        os.close(go_read)
        if os.read(ready_read, 1) != b"1":
            raise OSError("cannot create a user namespace")
        line = f"0 {base} {RANGE}\n"
        Path(f"/proc/{pid}/uid_map").write_text(line)
        Path(f"/proc/{pid}/gid_map").write_text(line)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_read)
        os.close(go_write)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _wait_in_namespace(ready_write: int, go_read: int, go_write: int) -> None:
    try:
        os.close(go_write)
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        os.write(ready_write, b"1")
        os.read(go_read, 1)
    finally:
        os._exit(0)
