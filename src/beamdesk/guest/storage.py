"""The storage a desktop must show: checks what the host mounted, mounts the rest, and says truthfully what is missing."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from beamdesk.guest import home_disk, mount_units
from beamdesk.guest.accounts import Person
from beamdesk.guest.errors import SetupError
from beamdesk.protocol.guest import Mount

_UNITS = Path("/run/systemd/system")
"""Units of this boot; the folder above it is there exactly where systemd is the init."""
_SECRETS = Path("/run/beamdesk/storage")
_MOUNT_TIMEOUT_S = mount_units.TIMEOUT_S + 30.0
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
    mounts = tuple(map(_checked, mounts))
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


def _checked(mount: Mount) -> Mount:
    """Return the mount with its true source, once it is known to be allowed."""
    if mount.kind == "bind":
        if not mount.target.startswith(("/data/", "/home/")) or ".." in mount.target.split("/"):
            raise SetupError("a mount has a target that is not allowed: it must lie below /data or /home")
        return mount
    if mount.kind == "disk" and mount.source == "auto":
        mount = replace(mount, source=home_disk.find())
    mount_units.options(mount)
    return mount


def _mount(mount: Mount) -> None:
    secret = _secret_file(mount) if mount.secret else ""
    Path(mount.target).mkdir(parents=True, exist_ok=True)
    if _UNITS.parent.is_dir():  # sd_booted(3)
        _mount_by_unit(mount, secret)
    else:
        command = ["mount", "-t", mount_units.fs_type(mount), "-o", mount_units.options(mount, secret), "--"]
        _run(mount, [*command, mount.source, mount.target])


def _mount_by_unit(mount: Mount, secret: str) -> None:
    unit = mount_units.unit_name(mount.target)
    _UNITS.mkdir(exist_ok=True)
    (_UNITS / unit).write_text(mount_units.render(mount, secret), encoding="utf-8")
    _run(mount, ["systemctl", "daemon-reload"])
    try:
        _run(mount, ["systemctl", "start", "--", unit])
    except SetupError as error:
        said = _last_words(unit)
        if not said:
            raise
        raise SetupError(f"{mount.target} cannot be mounted: {said}") from error


def _last_words(unit: str) -> str:
    """Return what the mount program said last, from the journal; empty if it said nothing."""
    command = ["journalctl", "--no-pager", "--quiet", "--output=cat", "--lines=20", f"--unit={unit}"]
    try:
        said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next((line.strip() for line in reversed(said) if line.startswith("mount")), "")


def _secret_file(mount: Mount) -> str:
    """Write the secret where only root can read it, in memory."""
    _SECRETS.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = _SECRETS / mount_units.unit_name(mount.target)
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(mount.secret)
    return str(path)


def _run(mount: Mount, command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_MOUNT_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{mount.target}: the storage does not answer") from error
    except (OSError, subprocess.CalledProcessError) as error:
        cause = getattr(error, "stderr", "") or str(error)
        raise SetupError(f"{mount.target} cannot be mounted: {cause.strip()}") from error
