"""A container's console: its output in a file of bounded size, read no faster than the helper can bear."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

MAX_BYTES = 256 * 1024
_CHUNK = 16 * 1024
_BYTES_PER_PAUSE = 64 * 1024
_PAUSE_S = 0.1
"""640 KiB/s: more stays in the pipe and slows down who writes it, not the helper."""


class Console:
    """Copies the read end of a pipe to ``path``; when the file is full its older half goes."""

    def __init__(self, path: Path, read_end: int) -> None:
        self._path = path
        self._read_end = read_end
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        self._size = 0
        self._since_pause = 0
        self._closed = False
        os.set_blocking(read_end, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(read_end, self._read)

    def _read(self) -> None:
        try:
            chunk = os.read(self._read_end, _CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            self.close()
            return
        self._append(chunk)
        self._since_pause += len(chunk)
        if self._since_pause >= _BYTES_PER_PAUSE:
            self._since_pause = 0
            self._loop.remove_reader(self._read_end)
            self._loop.call_later(_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._read_end, self._read)

    def _append(self, chunk: bytes) -> None:
        if self._size + len(chunk) > MAX_BYTES:
            kept = os.pread(self._file, MAX_BYTES // 2, self._size - MAX_BYTES // 2)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, kept, 0)
            self._size = len(kept)
        try:
            self._size += os.pwrite(self._file, chunk, self._size)
        except OSError:  # a full disk must not end the helper; the console is lost, the desktop is not
            return

    def close(self) -> None:
        """Take what is still in the pipe, and stop; calling it again is fine."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._read_end)
        with contextlib.suppress(BlockingIOError):
            self._append(os.read(self._read_end, MAX_BYTES // 4))
        os.close(self._read_end)
        os.close(self._file)


def tail(path: Path, limit: int = 32 * 1024) -> str:
    """Return the last ``limit`` bytes of a console as text without control characters; absent is empty."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "".join(char for char in text if char in "\n\t" or char.isprintable())


def last_words(path: Path) -> str:
    """Return the last line of a console, cut to what fits into a sentence."""
    lines = [line.strip() for line in tail(path, 2048).splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
