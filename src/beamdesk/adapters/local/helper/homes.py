"""Home volumes: one sparse ext4 image a desktop, which outlives its containers.

``<homes>/<desktop id>.img`` with ``<desktop id>.json`` beside it (deployment and size). An image is mounted by one container at a
time.
"""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from beamdesk.adapters.local.helper import loop, syscalls
from beamdesk.adapters.local.helper.errors import HelperError
from beamdesk.protocol.codec import MalformedMessage, decode, encode

_MKFS = ("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard")
"""Lazy initialisation keeps the image sparse and makes it in 15 ms."""
_GROW_S = 600
"""Checking a home of millions of files takes minutes on slow storage."""
_INCOMPAT_64BIT = 0x80
_DAMAGED = frozenset({errno.EINVAL, errno.EUCLEAN, errno.EBADMSG, errno.EIO})
_FOLDER = "home"
"""The home is a folder in the volume, so that lost+found is not in it."""


@dataclass(frozen=True, slots=True)
class Home:
    """A home volume as recorded beside its image."""

    desktop_id: str
    deployment_id: str
    disk_gib: int


@dataclass(frozen=True, slots=True)
class Homes:
    """The home volumes under ``folder``, which only root can enter."""

    folder: Path

    def image(self, desktop_id: str) -> Path:
        """Return where the image of ``desktop_id`` is, or would be."""
        return self.folder / f"{desktop_id}.img"

    def find(self, desktop_id: str) -> Home | None:
        """Return the volume of a desktop, or None; the size is the image's own, the owner is empty if the record is damaged."""
        try:
            size = self.image(desktop_id).lstat().st_size
        except FileNotFoundError:
            return None
        try:
            record = decode(Home, (self.folder / f"{desktop_id}.json").read_bytes())
        except (FileNotFoundError, MalformedMessage):
            return Home(desktop_id, "", -(-size // 2**30))
        return Home(desktop_id, record.deployment_id, -(-size // 2**30))

    def all(self) -> tuple[Home, ...]:
        """List every volume."""
        names = sorted(path.stem for path in self.folder.glob("*.img") if not path.name.startswith("."))
        return tuple(home for name in names if (home := self.find(name)))

    def record(self, home: Home) -> None:
        """Write the record of a volume that is about to be made."""
        write_atomically(self.folder / f"{home.desktop_id}.json", encode(home))

    def delete(self, desktop_id: str) -> None:
        """Delete the volume; absent is fine.

        Raises:
            HelperError: ``in_use``, while a container has it mounted.
        """
        if loop.is_attached(self.image(desktop_id)):
            raise HelperError("in_use", "The home is still mounted by the desktop's server; stop or delete it first.")
        self.image(desktop_id).unlink(missing_ok=True)
        (self.folder / f"{desktop_id}.json").unlink(missing_ok=True)


def prepare(image: Path, disk_gib: int) -> None:
    """Make the image if there is none: complete, or not at all. A smaller one is made larger."""
    if image.is_symlink():
        raise HelperError("failed", "The home volume is not a file.")
    if image.exists():
        _grow(image, disk_gib)
        return
    fresh = image.with_name(f".{image.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, disk_gib * 2**30)
    finally:
        os.close(fd)
    _run((*_MKFS, str(fresh)), "The home volume cannot be made")
    fresh.rename(image)


def mount(image: Path, target: Path, uid: int, gid: int) -> Path:
    """Mount the volume at ``target`` in the caller's mount namespace and return the home folder in it, of ``uid`` and mode 0700.

    Raises:
        HelperError: ``in_use``, or ``failed`` when the volume is damaged beyond what e2fsck repairs by itself.
    """
    if loop.is_attached(image):
        raise HelperError("in_use", "The home is still mounted by another server of this desktop.")
    try:
        _mount_once(image, target)
    except OSError as error:
        if error.errno not in _DAMAGED:
            raise
        _run(("e2fsck", "-p", str(image)), "The home volume is damaged", accept=(0, 1))
        _mount_once(image, target)
    home = target / _FOLDER
    if not home.exists():
        home.mkdir(mode=0o700)
        os.chown(home, uid, gid)
    return home


def _grow(image: Path, disk_gib: int) -> None:
    """Let the volume fill ``disk_gib``, as after a desktop got a larger size; broken off anywhere, it goes on the next time.

    Offline: to grow what is mounted asks for a capability that root lacks in many containers.
    """
    size = max(image.stat().st_size, disk_gib * 2**30)
    held = filesystem_size(image)
    if held is None or held == size:
        return
    os.truncate(image, size)
    _run(("e2fsck", "-f", "-p", str(image)), "The home volume is damaged", accept=(0, 1), timeout_s=_GROW_S)
    _run(("resize2fs", str(image)), "The home volume cannot be made larger", timeout_s=_GROW_S)


def filesystem_size(image: Path) -> int | None:
    """Return the size of an image's file system in bytes, None where it has none (Linux kernel, ext4: the super block)."""
    with image.open("rb") as file:
        file.seek(1024)
        block = file.read(1024)
    if len(block) < 1024 or block[0x38:0x3A] != b"\x53\xef":
        return None
    low, log_size, features, high = (struct.unpack_from("<I", block, at)[0] for at in (0x4, 0x18, 0x60, 0x150))
    blocks = low + (high << 32 if features & _INCOMPAT_64BIT else 0)
    return int(blocks * (1024 << log_size))


def _mount_once(image: Path, target: Path) -> None:
    device, fd = loop.attach(image)
    try:
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOATIME
        syscalls.mount(device, str(target), "ext4", flags, "discard,errors=remount-ro")
    finally:
        os.close(fd)


def _run(command: tuple[str, ...], failure: str, accept: tuple[int, ...] = (0,), timeout_s: float = 60) -> None:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=timeout_s
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HelperError("failed", f"{failure}: {command[0]} does not run.") from error
    if done.returncode not in accept:
        last = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-1:]
        raise HelperError("failed", f"{failure}: {' '.join(last) or done.returncode}.")


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace ``path`` by ``content`` (mode 0600), whole or not at all; ``durable`` also across a power cut."""
    fresh = path.with_name(f".{path.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(content)
        if durable:
            file.flush()
            os.fsync(fd)
    fresh.rename(path)
