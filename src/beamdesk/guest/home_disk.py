"""Finds the disk that is a desktop's home volume, and gives a new, empty one its file system.

It never touches a disk that holds anything.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from beamdesk.guest.errors import SetupError

LABEL = "beamdesk-home"
_TIMEOUT_S = 300.0
_NOTHING_FOUND = 2
"""Exit code of ``blkid --probe`` for a device without any signature (blkid(8))."""


def find(run: Callable[[list[str]], tuple[int, str]] | None = None, sys_block: Path = Path("/sys/block")) -> str:
    """Return the device of the home volume, made ready if it is new.

    Raises:
        SetupError: there is none, or more than one could be it.
    """
    run = run or _run
    code, device = run(["blkid", "-L", LABEL])
    if code == 0 and device.strip():
        return device.strip()
    empty = [name for name in _whole_disks(sys_block) if run(["blkid", "--probe", f"/dev/{name}"])[0] == _NOTHING_FOUND]
    if len(empty) != 1:
        raise SetupError("the home volume is missing" if not empty else "more than one empty disk could be the home volume")
    device = f"/dev/{empty[0]}"
    code, said = run(["mkfs.ext4", "-q", "-m", "0", "-L", LABEL, device])
    if code != 0:
        raise SetupError(f"the home volume cannot be prepared: {said.strip()}")
    return device


def _whole_disks(sys_block: Path) -> Iterable[str]:
    """Name writable disks of the cloud without partitions."""
    for disk in sorted(sys_block.iterdir()):
        is_disk = disk.name.startswith(("vd", "sd", "nvme")) and _number(disk / "size") > 0 and _number(disk / "ro") == 0
        if is_disk and not any(part.name.startswith(disk.name) for part in disk.iterdir()):
            yield disk.name


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _run(command: list[str]) -> tuple[int, str]:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{command[0]} does not work here: {error}") from error
    return result.returncode, result.stdout + result.stderr
