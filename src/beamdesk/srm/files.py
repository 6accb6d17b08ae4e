"""Small files of `/sys` and `/proc`: what is not there, cannot be read or is no number is simply not known."""

from __future__ import annotations

import os
from pathlib import Path

_MOST = 1 << 20


def read(path: Path) -> str:
    """Return a file's text without white space around it; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def number(path: Path) -> int | None:
    """Return the whole number in a file, decimal or ``0x``."""
    try:
        return int(read(path), 0)
    except ValueError:
        return None


def link(path: Path) -> str:
    """Return the last part of what a symbolic link points to; empty when there is none."""
    try:
        return Path(os.readlink(path)).name  # noqa: PTH115  # readlink of Path resolves nothing either, and is no shorter
    except OSError:
        return ""


def names(path: Path) -> list[str]:
    """Return what a folder holds, sorted; empty when it cannot be read."""
    try:
        return sorted(os.listdir(path))  # noqa: PTH208
    except OSError:
        return []


def ranges(text: str) -> set[int]:
    """Return the numbers of a kernel list such as ``0-3,8``; nothing when it is none."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.strip().isdecimal() or (last and not last.strip().isdecimal()):
            continue
        low, high = int(first), int(last or first)
        if high - low > 1 << 16:
            continue
        found.update(range(low, high + 1))
    return found
