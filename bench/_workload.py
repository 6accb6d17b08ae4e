"""A moving desktop with a machine-readable barcode, drawn by plain X11: ``python -m bench._workload DISPLAY MODE WIDTH HEIGHT``.

MODE ``still``: nothing changes but on input. ``moving``: noisy slices on a third of the screen, 30 a second. The barcode at
(32, 32) has 40 cells of 16x16 pixels: 1010, 24 bits of wall clock in ms, 8 bits of input events, 4 bits of checksum.
``bench/_probe.js`` reads it.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time

import numpy as np

CELL, LEFT, TOP, CELLS = 16, 32, 32, 40
RATE = 30
_STRIP_BYTES = 240_000  # a request holds at most 256 kB


class Screen:
    """One window over the whole screen of an X server that lets everybody in."""

    def __init__(self, display: str, width: int, height: int) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(f"/tmp/.X11-unix/X{display.removeprefix(':')}")
        self.socket.sendall(struct.pack("<BxHHHHxx", 0x6C, 11, 0, 0, 0))
        status, _, _, length = struct.unpack("<BBHxxH", self._receive(8))
        if status != 1:
            raise RuntimeError("the X server refuses")
        setup = self._receive(4 * length)
        base, vendor, formats = struct.unpack_from("<4xI8xH3xB", setup)
        root = struct.unpack_from("<I", setup, 32 + (vendor + 3) // 4 * 4 + 8 * formats)[0]
        self.window, self.gc = base + 1, base + 2
        events = 0x8005  # key press, button press, exposure
        self.send(1, 0, struct.pack("<IIhhHHHHIIII", self.window, root, 0, 0, width, height, 0, 1, 0, 0x0802, 0x3A4048, events))
        self.send(55, 0, struct.pack("<III", self.gc, self.window, 0))
        self.send(8, 0, struct.pack("<I", self.window))

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                sys.exit(0)  # the X server ended
            data += part
        return data

    def send(self, opcode: int, detail: int, body: bytes) -> None:
        self.socket.sendall(struct.pack("<BBH", opcode, detail, (len(body) + 4) // 4) + body)

    def put(self, picture: np.ndarray, left: int, top: int) -> None:
        """Draw an array of height x width x 4 bytes (blue, green, red, unused)."""
        height, width = picture.shape[:2]
        rows = max(1, _STRIP_BYTES // (4 * width))
        for start in range(0, height, rows):
            part = picture[start : start + rows]
            head = struct.pack("<IIHHhhBBxx", self.window, self.gc, width, len(part), left, top + start, 0, 24)
            self.send(72, 2, head + part.tobytes())

    def events(self, timeout_s: float) -> list[int]:
        """Wait; returns the kinds of events that came: 2 key, 4 button, 12 exposure."""
        kinds = []
        while select.select([self.socket], [], [], timeout_s)[0]:
            kinds.append(self._receive(32)[0] & 127)
            timeout_s = 0
        return kinds


def barcode(events: int) -> np.ndarray:
    value = (int(time.time() * 1000) & 0xFFFFFF) << 8 | (events & 255)
    check = 0
    for index in range(8):
        check ^= value >> (4 * index) & 15
    bits = 0b1010 << 36 | value << 4 | check
    row = np.array([255 * (bits >> (CELLS - 1 - index) & 1) for index in range(CELLS)], np.uint8)
    return np.broadcast_to(np.repeat(row, CELL)[None, :, None], (CELL, CELL * CELLS, 4))


def slices(size: int) -> list[np.ndarray]:
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j].astype(np.float32)
    random = np.random.default_rng(1)
    noise = random.normal(0, 9, (size, size)).astype(np.float32)
    frames = []
    for index in range(20):
        turn = index / 20 * 2 * np.pi
        picture = 90.0 * (x * x + y * y < 0.9) + np.roll(noise, (index * 37, index * 91), (0, 1)) + 20
        for blob in range(8):
            at = 0.55 * np.cos(turn / 2 + blob), 0.55 * np.sin(turn / 2 + blob * 1.3)
            picture += (40 if blob % 2 else -45) * (
                ((x - at[0]) / 0.16) ** 2 + ((y - at[1]) / 0.11) ** 2 < 1 + 0.5 * np.sin(turn + blob)
            )
        frames.append(np.repeat(np.clip(picture, 0, 255).astype(np.uint8)[:, :, None], 4, 2))
    return frames


def main() -> None:
    display, mode, width, height = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    screen, events, size = Screen(display, width, height), 0, int(height * 0.8) & ~15
    frames = slices(size) if mode == "moving" else []
    index, due = 0, time.monotonic()
    screen.put(barcode(events), LEFT, TOP)
    while True:
        kinds = screen.events(max(0.0, due - time.monotonic()) if frames else 3600)
        events += sum(kind in {2, 4} for kind in kinds)
        if frames and time.monotonic() >= due:
            index, due = index + 1, max(due + 1 / RATE, time.monotonic() - 0.2)
            screen.put(frames[abs(index % 38 - 19)], (width - size) // 2 + 120, (height - size) // 2 + 40)
            screen.put(barcode(events), LEFT, TOP)
        elif kinds:
            screen.put(barcode(events), LEFT, TOP)


if __name__ == "__main__":
    main()
