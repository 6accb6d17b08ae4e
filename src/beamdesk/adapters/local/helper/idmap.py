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


Line = tuple[int, int, int]
"""First id on disk, first id on the host, how many."""


def choose_base(desktop_id: str, first: int, last: int, taken: Collection[int]) -> int:
    """Choose the first host uid of the desktop's range, distinct from ``taken`` and from the range at ``first`` itself.

    The id decides where the search starts, so that a desktop keeps its range and two helpers on one machine hardly ever meet. The
    range at ``first`` is the quarantine of :func:`person_lines`: no container ever gets it.

    Raises:
        HelperError: ``no_capacity``, when no range is left between ``first`` and ``last``.
    """
    slots = (last - first + 1) // RANGE - 1
    start = int.from_bytes(hashlib.sha256(desktop_id.encode()).digest()[:8]) % slots
    for offset in range(slots):
        base = first + (1 + (start + offset) % slots) * RANGE
        if base not in taken:
            return base
    raise HelperError("no_capacity", "All uid ranges of this machine are in use; stop a desktop first.")


def whole_lines(base: int) -> tuple[Line, ...]:
    """Map every id of a volume that only this container can see (its root file system, its home)."""
    return ((0, base, RANGE),)


def person_lines(base: int, quarantine: int, own: Collection[int]) -> tuple[Line, ...]:
    """Map the ids of a volume that others see too: ``own`` ids into the container, all others into a range that no container has.

    So a container's root, which can become any uid of its range, can still neither create nor chown a file on the host as root or
    as a colleague. Files of others stay usable as their permissions for the group say (an unmapped owner would forbid writing).
    """
    lines: list[Line] = []
    at = 0
    for number in sorted(own):
        lines += [(at, quarantine + at, number - at)] if number > at else []
        lines.append((number, base + number, 1))
        at = number + 1
    if at < RANGE:
        lines.append((at, quarantine + at, RANGE - at))
    return tuple(lines)


def open_mapping(uids: Collection[Line], gids: Collection[Line]) -> int:
    """Return a descriptor of a new user namespace with these mappings; its only process is gone already."""
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
        for name, lines in (("uid_map", uids), ("gid_map", gids)):
            text = "".join(f"{disk} {host} {count}\n" for disk, host, count in lines)
            Path(f"/proc/{pid}/{name}").write_text(text)
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
