"""Sets the size of the X screen before anybody has connected (RANDR 1.2), so that the desktop is laid out once for a common size.

From then on the streaming server follows the browser's size.
"""

from __future__ import annotations

import struct

from beamdesk.guest.errors import DisplayError
from beamdesk.guest.x11 import Display

_GET_RESOURCES, _CREATE_MODE, _ADD_OUTPUT_MODE, _SET_CRTC, _SET_SIZE = 8, 16, 18, 21, 7
_ROTATE_0 = 1
_MM_PER_INCH, _DPI = 25.4, 96


def resize(display: Display, width: int, height: int) -> None:
    """Make the screen ``width`` x ``height`` pixels, no larger than the server was started with.

    Raises:
        DisplayError: the server cannot do it.
    """
    randr = display.extension("RANDR")
    display.call(randr, 0, struct.pack("<II", 1, 3))
    timestamp, crtc, output = _resources(display, randr)
    mode = _create_mode(display, randr, width, height)
    display.send(randr, _ADD_OUTPUT_MODE, struct.pack("<II", output, mode))
    _set_crtc(display, randr, timestamp, crtc, ())
    millimetres = (round(width * _MM_PER_INCH / _DPI), round(height * _MM_PER_INCH / _DPI))
    display.send(randr, _SET_SIZE, struct.pack("<IHHII", display.root, width, height, *millimetres))
    _set_crtc(display, randr, timestamp, crtc, (output, mode))
    if display.size(display.root) != (width, height):
        raise DisplayError("the X server did not change its size")


def _resources(display: Display, randr: int) -> tuple[int, int, int]:
    answer = display.call(randr, _GET_RESOURCES, struct.pack("<I", display.root))
    _time, timestamp, crtcs, outputs = struct.unpack_from("<IIHH", answer, 8)
    if not crtcs or not outputs or len(answer) < 32 + 4 * (crtcs + outputs):
        raise DisplayError("the X server has no screen to resize")
    (crtc,) = struct.unpack_from("<I", answer, 32)
    (output,) = struct.unpack_from("<I", answer, 32 + 4 * crtcs)
    return timestamp, crtc, output


def _create_mode(display: Display, randr: int, width: int, height: int) -> int:
    name = f"{width}x{height}".encode()
    # a screen in memory has no timing: only size and a plausible rate are looked at
    clock = width * height * 60
    timing = struct.pack("<IHHIHHHHHHHHI", 0, width, height, clock, width, width, width, 0, height, height, height, len(name), 0)
    answer = display.call(randr, _CREATE_MODE, struct.pack("<I", display.root) + timing + name)
    return int(struct.unpack_from("<I", answer, 8)[0])


def _set_crtc(display: Display, randr: int, timestamp: int, crtc: int, picture: tuple[int, ...]) -> None:
    mode, outputs = (picture[1], picture[:1]) if picture else (0, ())
    body = struct.pack("<IIIhhIHxx", crtc, 0, timestamp, 0, 0, mode, _ROTATE_0)
    answer = display.call(randr, _SET_CRTC, body + struct.pack(f"<{len(outputs)}I", *outputs))
    if answer[1] != 0:
        raise DisplayError("the X server refused the screen's size")
