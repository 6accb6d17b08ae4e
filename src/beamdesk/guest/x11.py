"""A small client of the X protocol (version 11), enough to see whether a desktop is really there.

Written out because Xlib ends the process when the server dies, which the agent must survive, and because loading a library for
twelve requests costs more than it saves. The server runs as the person, so its answers are untrusted: everything read is bounded
by length and time.

Source: X Window System Protocol, X Version 11 Release 6.8; extensions by their own documents.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from beamdesk.guest.errors import DisplayError

TIMEOUT_S = 3.0
MAX_REPLY_BYTES = 4 * 1024 * 1024
SOCKETS = Path("/tmp/.X11-unix")  # noqa: S108 where X servers listen by convention; the agent makes it sticky and root's

_ERROR, _REPLY = 0, 1
_MAP_STATE_VIEWABLE = 2
_ANY_TYPE = 0
_MAX_WORDS = 1024


class XError(DisplayError):
    """The server answered a request with an error; often just that a window is gone."""


class Display:
    """A connection to the X server of ``number``, authenticated by ``cookie`` (MIT-MAGIC-COOKIE-1, 16 bytes).

    Not for use by several threads at once.

    Raises:
        DisplayError: nobody answers, or not with what the protocol says.
    """

    def __init__(self, number: int, cookie: bytes, *, timeout: float = TIMEOUT_S, sockets: Path = SOCKETS) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._sequence = 0
        self._atoms: dict[str, int] = {}
        self._extensions: dict[str, int] = {}
        self._next_id = 0
        try:
            self._socket.connect(str(sockets / f"X{number}"))
            self._setup(cookie)
        except OSError as error:
            self._socket.close()
            raise DisplayError(f"the X server does not answer ({error.strerror or error})") from error
        except DisplayError:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def new_id(self) -> int:
        """Return a resource id; they come around again after two million, long after those before were freed."""
        self._next_id = self._next_id % self._id_mask + 1
        return int(self._id_base) | self._next_id

    # -- requests and replies

    def send(self, opcode: int, data: int = 0, body: bytes = b"") -> int:
        """Send one request and return its sequence number; ``body`` is padded to words here."""
        body += bytes(-len(body) % 4)
        self._sequence = (self._sequence + 1) & 0xFFFF
        try:
            self._socket.sendall(struct.pack("<BBH", opcode, data, 1 + len(body) // 4) + body)
        except OSError as error:
            raise DisplayError(f"the X server does not answer ({error.strerror or error})") from error
        return self._sequence

    def reply(self, sequence: int) -> bytes:
        """Return the whole reply to the request ``sequence``, passing over what comes before it.

        Raises:
            XError: the server refused that request.
        """
        while True:
            kind, head, rest = self._read()
            answered = struct.unpack_from("<H", head, 2)[0]
            if kind == _REPLY and answered == sequence:
                return head + rest
            if kind == _ERROR and answered == sequence:
                raise XError(f"the X server refused request {head[10]} with error {head[1]}")

    def call(self, opcode: int, data: int = 0, body: bytes = b"") -> bytes:
        """Send one request and return its reply."""
        return self.reply(self.send(opcode, data, body))

    def sync(self) -> None:
        """Wait until the server has worked off everything sent; an error of an earlier request is dropped."""
        self.call(43)  # GetInputFocus

    # -- what the agent asks

    def atom(self, name: str) -> int:
        """Return the number of an atom, made if it does not exist."""
        if name not in self._atoms:
            encoded = name.encode("ascii")
            answer = self.call(16, 0, struct.pack("<HH", len(encoded), 0) + encoded)
            self._atoms[name] = struct.unpack_from("<I", answer, 8)[0]
        return self._atoms[name]

    def words(self, window: int, name: str) -> tuple[int, ...]:
        """Return a 32-bit property of a window (at most ``_MAX_WORDS``), empty if it has none."""
        answer = self.call(20, 0, struct.pack("<IIIII", window, self.atom(name), _ANY_TYPE, 0, _MAX_WORDS))
        if answer[1] != 32:
            return ()
        (count,) = struct.unpack_from("<I", answer, 16)
        if 32 + 4 * count > len(answer):
            raise DisplayError("the X server's answer is too short")
        return struct.unpack_from(f"<{count}I", answer, 32)

    def is_viewable(self, window: int) -> bool:
        """Tell whether a window and all above it are mapped."""
        return self.call(3, 0, struct.pack("<I", window))[26] == _MAP_STATE_VIEWABLE

    def size(self, drawable: int) -> tuple[int, int]:
        """Return width and height in pixels."""
        width, height = struct.unpack_from("<HH", self.call(14, 0, struct.pack("<I", drawable)), 16)
        return width, height

    def paint_root(self, colour: int) -> None:
        """Paint the root window in one colour (``0xRRGGBB``)."""
        self.send(2, 0, struct.pack("<III", self.root, 1 << 1, colour))
        self.send(61, 0, struct.pack("<IhhHH", self.root, 0, 0, 0, 0))

    def move_pointer(self, x: int, y: int) -> None:
        """Move the pointer to a place on the root window."""
        self.send(41, 0, struct.pack("<IIhhHHhh", 0, self.root, 0, 0, 0, 0, x, y))

    def extension(self, name: str) -> int:
        """Return the major opcode of an extension.

        Raises:
            DisplayError: the server does not have it.
        """
        if name not in self._extensions:
            encoded = name.encode("ascii")
            answer = self.call(98, 0, struct.pack("<HH", len(encoded), 0) + encoded)
            if not answer[8]:
                raise DisplayError(f"the X server lacks {name}")
            self._extensions[name] = answer[9]
        return self._extensions[name]

    def idle_s(self) -> float:
        """Return the seconds since the last input (MIT-SCREEN-SAVER, QueryInfo)."""
        answer = self.call(self.extension("MIT-SCREEN-SAVER"), 1, struct.pack("<I", self.root))
        return float(struct.unpack_from("<I", answer, 16)[0]) / 1000

    # -- connection

    def _setup(self, cookie: bytes) -> None:
        name = b"MIT-MAGIC-COOKIE-1"
        hello = struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(name), len(cookie)) + name + bytes(-len(name) % 4) + cookie
        self._socket.sendall(hello + bytes(-len(cookie) % 4))
        head = self._receive(8)
        (length,) = struct.unpack_from("<H", head, 6)
        body = self._receive(4 * length)
        if head[0] != 1:
            raise DisplayError("the X server refuses the connection")
        try:
            self._parse_setup(body)
        except (struct.error, IndexError) as error:
            raise DisplayError("the X server's greeting is malformed") from error

    def _parse_setup(self, body: bytes) -> None:
        _release, self._id_base, self._id_mask, _motion, vendor, _max_request, _screens, formats = struct.unpack_from(
            "<IIIIHHBB", body
        )
        at = 32 + vendor + (-vendor % 4) + 8 * formats
        self.root, _colormap, _white, _black = struct.unpack_from("<IIII", body, at)
        self.root_visual, _backing, _save, self.root_depth = struct.unpack_from("<IBBB", body, at + 32)

    def _read(self) -> tuple[int, bytes, bytes]:
        head = self._receive(32)
        kind = head[0] & 0x7F
        if kind not in (_REPLY, 35):
            return kind, head, b""
        (words,) = struct.unpack_from("<I", head, 4)
        if 4 * words > MAX_REPLY_BYTES:
            raise DisplayError("the X server's answer is too long")
        return kind, head, self._receive(4 * words)

    def _receive(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                chunk = self._socket.recv(count - len(data))
            except OSError as error:
                raise DisplayError(f"the X server does not answer ({error.strerror or error})") from error
            if not chunk:
                raise DisplayError("the X server closed the connection")
            data += chunk
        return bytes(data)


class DesktopProbe:
    """Finds out whether window manager, panel and desktop are on the screen."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def missing(self) -> str:
        """Return what is not there yet in plain words; empty when the desktop is complete."""
        if not self._has_window_manager():
            return "the window manager"
        kinds = self._kinds_on_screen()
        if self._display.atom("_NET_WM_WINDOW_TYPE_DESKTOP") not in kinds:
            return "the wallpaper and icons"
        if self._display.atom("_NET_WM_WINDOW_TYPE_DOCK") not in kinds:
            return "the panel"
        return ""

    def _has_window_manager(self) -> bool:
        display = self._display
        check = display.words(display.root, "_NET_SUPPORTING_WM_CHECK")
        if not check:
            return False
        try:
            # the property outlives a window manager that was killed: the window it names must name itself
            return display.words(check[0], "_NET_SUPPORTING_WM_CHECK") == check[:1]
        except XError:
            return False

    def _kinds_on_screen(self) -> set[int]:
        found: set[int] = set()
        for window in self._display.words(self._display.root, "_NET_CLIENT_LIST"):
            try:
                kinds = self._display.words(window, "_NET_WM_WINDOW_TYPE")
                if kinds and self._display.is_viewable(window):
                    found.update(kinds)
            except XError:
                continue
        return found
