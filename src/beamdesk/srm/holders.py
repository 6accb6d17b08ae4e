"""Which server holds a card that is passed through: the process that has its `/dev/vfio` file open, and the server's id.

Reading other accounts' open files needs root (CAP_SYS_PTRACE). Without it nothing is known and nothing is claimed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from beamdesk.srm.files import names, read

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_PREFIX = "/dev/vfio/"
_CONTROL = "/dev/vfio/vfio"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process with a card; ``server`` is its server's id (libvirt's domain UUID), empty where it has none."""

    pid: int
    server: str


def find(proc: Path) -> dict[str, Holder]:
    """Return who has which file under `/dev/vfio` open, by the rest of its path."""
    found: dict[str, Holder] = {}
    for name in names(proc):
        if not name.isdecimal():
            continue
        files = _vfio_files(proc / name / "fd")
        if files:
            holder = Holder(int(name), server_of(read(proc / name / "cmdline")))
            found.update(dict.fromkeys(files, holder))
    return found


def _vfio_files(folder: Path) -> set[str]:
    found = set()
    for name in names(folder):
        try:
            target = str((folder / name).readlink())
        except OSError:
            continue
        if target.startswith(_PREFIX) and target != _CONTROL:
            found.add(target.removeprefix(_PREFIX))
    return found


def server_of(cmdline: str) -> str:
    """Return the server's id from a QEMU command line, its arguments separated by NUL."""
    arguments = cmdline.split("\0")
    for option, value in itertools.pairwise(arguments):
        if option == "-uuid" and _UUID.match(value.lower()):
            return value.lower()
    return ""


def of(files: Iterable[str], holders: dict[str, Holder]) -> Holder | None:
    """Return the holder of any of these files."""
    return next((holders[name] for name in files if name in holders), None)
