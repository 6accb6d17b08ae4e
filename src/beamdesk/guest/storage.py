"""The storage a desktop must show: checks what the host mounted, mounts the rest, and says truthfully what is missing."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from beamdesk.guest.accounts import Person
from beamdesk.guest.errors import SetupError
from beamdesk.protocol.guest import Mount

_KINDS = frozenset({"bind", "nfs", "nfs4", "ceph", "lustre"})
_MOUNT_TIMEOUT_S = 30.0
_NEARLY_FULL = 0.01


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of ``/proc/self/mountinfo``."""

    target: str
    read_only: bool


def mounted(mountinfo: str) -> dict[str, Mounted]:
    """Parse ``/proc/self/mountinfo``; later mounts on the same folder hide earlier ones."""
    found: dict[str, Mounted] = {}
    for line in mountinfo.splitlines():
        before, _dash, after = line.partition(" - ")
        fields = before.split()
        super_options = after.split()[-1].split(",") if after else []
        target = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        found[target] = Mounted(target, "ro" in fields[5].split(",") or "ro" in super_options)
    return found


def ensure(mounts: tuple[Mount, ...], mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
    """Mount what the agent has to mount, then check all.

    Raises:
        SetupError: a folder is not there or not as writable as it must be.
    """
    for mount in mounts:
        _check(mount)
    present = mounted(mountinfo.read_text(encoding="utf-8"))
    for mount in mounts:
        if mount.kind != "bind" and mount.target not in present:
            _mount(mount)
    present = mounted(mountinfo.read_text(encoding="utf-8"))
    for mount in mounts:
        verify(mount, present.get(mount.target))


def verify(mount: Mount, found: Mounted | None) -> None:
    """Check one mount against what is there."""
    if found is None:
        raise SetupError(f"{mount.target} is not mounted")
    if found.read_only and mount.writable:
        raise SetupError(f"{mount.target} is mounted read-only but must be writable")
    if not found.read_only and not mount.writable:
        raise SetupError(f"{mount.target} is mounted writable but must be read-only")


def home_warning(person: Person) -> str:
    """Return a sentence for the person if the home has no room left."""
    space = os.statvfs(person.home)
    if space.f_blocks and space.f_bavail / space.f_blocks < _NEARLY_FULL:
        return "Your home folder is full: programs may fail to save. Delete something or move it to the processed folder."
    return ""


def _check(mount: Mount) -> None:
    parts = mount.target.split("/")
    if mount.kind not in _KINDS:
        raise SetupError(f"storage of kind {mount.kind!r} is not supported")
    if not mount.target.startswith(("/data/", "/home/")) or ".." in parts or "," in mount.source or mount.source.startswith("-"):
        raise SetupError("a mount has a target or source that is not allowed")


def _mount(mount: Mount) -> None:
    options = f"{'rw' if mount.writable else 'ro'},nosuid,nodev"
    Path(mount.target).mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", mount.kind, "-o", options, "--", mount.source, mount.target]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_MOUNT_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{mount.target}: the storage does not answer") from error
    except (OSError, subprocess.CalledProcessError) as error:
        cause = getattr(error, "stderr", "") or str(error)
        raise SetupError(f"{mount.target} cannot be mounted: {cause.strip()}") from error
