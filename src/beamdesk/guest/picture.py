"""A small picture of the screen: the X server itself scales it down (RENDER), the agent only packs the few pixels as PNG.

Costs about 15 ms of CPU a picture; a copy of the whole screen to the agent would cost ten times that.
"""

from __future__ import annotations

import struct
import zlib

from beamdesk.guest.errors import DisplayError
from beamdesk.guest.x11 import Display
from beamdesk.protocol.guest import MAX_THUMBNAIL_BYTES

WIDTH = 320
_MAX_HEIGHT = 480
_QUERY_FORMATS, _CREATE_PICTURE, _FREE_PICTURE, _COMPOSITE, _SET_TRANSFORM, _SET_FILTER = 1, 4, 7, 8, 28, 30
_SRC = 1
_INCLUDE_INFERIORS = 1
_ALL_PLANES = 0xFFFFFFFF


class Camera:
    """Takes pictures of the root window of ``display``."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._render = display.extension("RENDER")
        display.call(self._render, 0, struct.pack("<II", 0, 6))
        self._format = _root_format(display, self._render)

    def take(self) -> tuple[int, int, bytes]:
        """Return width, height and the pixels as RGB bytes, ``WIDTH`` wide at most."""
        display = self._display
        width, height = display.size(display.root)
        if not 16 <= width <= 16384 or not 16 <= height <= 16384:
            raise DisplayError("the screen has an unusual size")
        picture = display.new_id()
        display.send(
            self._render, _CREATE_PICTURE, struct.pack("<IIIII", picture, display.root, self._format, 1 << 8, _INCLUDE_INFERIORS)
        )
        drawables: list[int] = []
        for step in scaling_steps(width, height):
            picture = self._scaled(picture, (width, height), step, drawables)
            width, height = step
        try:
            pixels = self._pixels(drawables[-1] if drawables else display.root, width, height)
        finally:
            display.send(self._render, _FREE_PICTURE, struct.pack("<I", picture))
            for drawable in drawables:
                display.send(54, 0, struct.pack("<I", drawable))
        return width, height, rgb(pixels)

    def _scaled(self, source: int, size: tuple[int, int], step: tuple[int, int], drawables: list[int]) -> int:
        display = self._display
        width, height = step
        transform = (size[0] * 65536 // width, 0, 0, 0, size[1] * 65536 // height, 0, 0, 0, 65536)
        display.send(self._render, _SET_TRANSFORM, struct.pack("<I9i", source, *transform))
        display.send(self._render, _SET_FILTER, struct.pack("<IHxx", source, 8) + b"bilinear")
        pixmap, picture = display.new_id(), display.new_id()
        display.send(53, display.root_depth, struct.pack("<IIHH", pixmap, display.root, width, height))
        drawables.append(pixmap)
        display.send(self._render, _CREATE_PICTURE, struct.pack("<IIII", picture, pixmap, self._format, 0))
        display.send(
            self._render, _COMPOSITE, struct.pack("<B3xIIIhhhhhhHH", _SRC, source, 0, picture, 0, 0, 0, 0, 0, 0, width, height)
        )
        display.send(self._render, _FREE_PICTURE, struct.pack("<I", source))
        return picture

    def _pixels(self, drawable: int, width: int, height: int) -> bytes:
        answer = self._display.call(73, 2, struct.pack("<IhhHHI", drawable, 0, 0, width, height, _ALL_PLANES))
        pixels = answer[32 : 32 + 4 * width * height]
        if len(pixels) != 4 * width * height:
            raise DisplayError("the X server's picture is too small")
        return pixels


def scaling_steps(width: int, height: int) -> list[tuple[int, int]]:
    """Return the sizes to go through: halves, which bilinear filtering averages exactly, then the last bit to ``WIDTH``."""
    target = (min(WIDTH, width), max(1, min(_MAX_HEIGHT, round(height * min(WIDTH, width) / width))))
    steps: list[tuple[int, int]] = []
    while width >= 2 * target[0] and height >= 2 * target[1]:
        width, height = width // 2, height // 2
        steps.append((width, height))
    if (width, height) != target:
        steps.append(target)
    return steps


def rgb(pixels: bytes) -> bytes:
    """Turn the server's BGRX pixels into RGB."""
    packed = bytearray(len(pixels) // 4 * 3)
    packed[0::3], packed[1::3], packed[2::3] = pixels[2::4], pixels[1::4], pixels[0::4]
    return bytes(packed)


def png(width: int, height: int, pixels: bytes) -> bytes:
    """Pack RGB pixels as PNG of at most ``MAX_THUMBNAIL_BYTES``, dropping low bits of the colours if it must."""
    for mask in (0xFF, 0xFC, 0xF8, 0xF0, 0xE0, 0xC0, 0x80):
        data = _png(width, height, pixels if mask == 0xFF else pixels.translate(bytes(value & mask for value in range(256))))
        if len(data) <= MAX_THUMBNAIL_BYTES:
            return data
    raise DisplayError("the picture of the screen is too large")


def _png(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(_filtered(3 * width, height, pixels), 6)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(name, data) for name, data in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _filtered(stride: int, height: int, pixels: bytes) -> bytes:
    """Apply PNG's "up" filter: each byte minus the one above, all at once as one long number (a loop takes 20 times longer)."""
    above = bytes(stride) + pixels[:-stride]
    high = int.from_bytes(b"\x80" * len(pixels), "little")
    a, b = int.from_bytes(pixels, "little"), int.from_bytes(above, "little")
    # bytewise subtraction without borrow between bytes (Hacker's Delight, 2-18)
    difference = ((a | high) - (b & ~high)) ^ ((a ^ ~b) & high)
    rows = (difference & ((1 << (8 * len(pixels))) - 1)).to_bytes(len(pixels), "little")
    return b"".join(b"\x02" + rows[at : at + stride] for at in range(0, stride * height, stride))


def _root_format(display: Display, render: int) -> int:
    """Return RENDER's format of the root window's visual (RENDER protocol, QueryPictFormats)."""
    answer = display.call(render, _QUERY_FORMATS)
    try:
        formats, screens, _depths, _visuals, _subpixels = struct.unpack_from("<IIIII", answer, 8)
        at = 32 + 28 * formats
        for _screen in range(screens):
            (depths,) = struct.unpack_from("<I", answer, at)
            at += 8
            for _depth in range(depths):
                (visuals,) = struct.unpack_from("<H", answer, at + 2)
                at += 8
                for _visual in range(visuals):
                    visual, picture_format = struct.unpack_from("<II", answer, at)
                    at += 8
                    if visual == display.root_visual:
                        return int(picture_format)
    except struct.error as error:
        raise DisplayError("the X server's answer is too short") from error
    raise DisplayError("the X server cannot draw on its root window")
