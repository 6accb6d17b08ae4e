"""Start sandboxed workers, give each one file, and turn what comes back into previews.

A worker serves one file and ends, so that nothing of one person's data can reach another's. One is kept ready, because starting
Python takes longer than a preview. A worker that dies, hangs or talks nonsense costs its own preview and nothing else.
"""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable
from dataclasses import asdict, dataclass, replace
from typing import Final

from beamdesk.adapters.preview.plot import draw
from beamdesk.adapters.preview.wire import LENGTHS, MAX_HEADER, MAX_PAYLOAD, PNG_MAGIC, Answer, Curve, Job
from beamdesk.ports.files import FileKind, OpenedFile
from beamdesk.ports.previews import ImagePreview, NoPreview, PlotPreview, Preview, PreviewRequest, Theme
from beamdesk.protocol.codec import MalformedMessage, decode, encode

WALL_S: Final = 12.0
"""Seconds a preview may take in all; CPU time is limited by the sandbox."""

_SMALLEST, _LARGEST = 16, 4096
_LONGEST_PATH = 4096


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    socket: socket.socket

    def end(self) -> int:
        """Kill it if it lives, and return its exit status."""
        self.socket.close()
        self.process.kill()
        return self.process.wait()


def _start() -> _Worker:
    """Start a worker that has nothing of this process but one end of a socket pair."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", "-m", "beamdesk.adapters.preview.worker"],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HDF5_PLUGIN_PATH": "/nonexistent", "LC_ALL": "C.UTF-8"},
        )
    return _Worker(process, ours)


class SandboxedPreviews:
    """Previews by one process each, at most ``concurrency`` at a time (see :class:`beamdesk.ports.previews.Previewer`)."""

    def __init__(self, *, concurrency: int = 4, wall_s: float = WALL_S) -> None:
        self._gate = asyncio.Semaphore(concurrency)
        self._wall_s = wall_s
        self._spare: _Worker | None = None
        self._closed = False

    async def preview(self, opened: OpenedFile, request: PreviewRequest) -> Preview:
        """Make the preview of an open regular file; the caller closes it."""
        if opened.kind is not FileKind.FILE:
            return NoPreview("unsuitable", "A folder has no preview.")
        if opened.size == 0:
            return NoPreview("empty", "This file is empty.")
        job = Job(
            replace(request, width=min(max(request.width, _SMALLEST), _LARGEST), dataset=request.dataset[:_LONGEST_PATH]),
            opened.size,
        )
        async with self._gate:
            worker, self._spare = self._spare or _start(), None
            try:
                return await self._ask(worker, job, opened.descriptor)
            finally:
                self._prepare()

    def _prepare(self) -> None:
        if self._spare is None and not self._closed:
            self._spare = _start()

    async def _ask(self, worker: _Worker, job: Job, descriptor: int) -> Preview:
        """Send the job, read the answer, and end the worker whatever happens."""
        answer: tuple[Answer, bytes] | None = None
        late = False
        try:
            async with asyncio.timeout(self._wall_s):
                socket.send_fds(worker.socket, [encode(job) + b"\n"], [descriptor])
                answer = await _receive(worker.socket)
        except TimeoutError:
            late = True
        except (OSError, asyncio.IncompleteReadError, MalformedMessage):
            pass
        finally:
            # A worker that has answered is about to end by itself: killing it then is as good, and its status says nothing.
            status = await _unless_cancelled(asyncio.to_thread(worker.end))
        if answer is None:
            return _failure(status, late=late)
        return _preview(*answer, job.request.theme)

    async def close(self) -> None:
        """End the spare worker; previews under way end theirs."""
        self._closed = True
        spare, self._spare = self._spare, None
        if spare is not None:
            await asyncio.to_thread(spare.end)


async def _unless_cancelled(ending: Awaitable[int]) -> int:
    """Wait for a worker's end even if the page was left meanwhile: it must not stay a zombie."""
    return await asyncio.shield(ending)


async def _receive(sock: socket.socket) -> tuple[Answer, bytes]:
    header_size, payload_size = LENGTHS.unpack(await _exactly(sock, LENGTHS.size))
    if header_size > MAX_HEADER or payload_size > MAX_PAYLOAD:
        raise MalformedMessage("answer too long")
    header = await _exactly(sock, header_size)
    return decode(Answer, header, limit=MAX_HEADER), await _exactly(sock, payload_size)


async def _exactly(sock: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    received = bytearray()
    while len(received) < count:
        block = await loop.sock_recv(sock, min(1 << 20, count - len(received)))
        if not block:
            raise asyncio.IncompleteReadError(bytes(received), count)
        received += block
    return bytes(received)


def _failure(status: int, *, late: bool) -> NoPreview:
    """Say why a worker gave no answer, as far as its end tells."""
    if late or status in (-signal.SIGXCPU, -signal.SIGKILL):
        return NoPreview("timeout", "Making the preview took too long and was stopped.")
    if status == 0 or status > 0:
        return NoPreview("unavailable", "Previews are not available on this machine now.")
    return NoPreview("crashed", "The preview failed: this file is damaged, or made to do harm.")


def _preview(answer: Answer, payload: bytes, theme: Theme) -> Preview:
    if answer.picture is not None:
        if not payload.startswith(PNG_MAGIC):
            return NoPreview("crashed", "The preview failed: this file is damaged, or made to do harm.")
        return ImagePreview(png=payload, **asdict(answer.picture))
    if answer.curve is not None:
        return _plot(answer.curve, theme)
    return answer.tree or answer.text or answer.none or NoPreview("crashed", "The preview failed.")


def _plot(curve: Curve, theme: Theme) -> Preview:
    numbers = (*curve.x, *(value for value in curve.y if value is not None))
    if len(curve.x) != len(curve.y) or not all(math.isfinite(value) for value in numbers):
        return NoPreview("crashed", "The preview failed: this file is damaged, or made to do harm.")
    svg = draw(curve, theme)
    return PlotPreview(svg, curve.dataset, curve.title, curve.x_label, curve.y_label, curve.points, curve.note)
