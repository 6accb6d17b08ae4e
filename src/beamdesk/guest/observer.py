"""Looks at a running desktop every few seconds: when there was input, what the screen looks like, whether the stream still answers.

Runs in a thread of its own with a display connection of its own: a display that hangs must not keep the heartbeat from being sent.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable

from beamdesk.guest import stream
from beamdesk.guest.client import GuestApi
from beamdesk.guest.components import DISPLAY_NUMBER
from beamdesk.guest.console import Console
from beamdesk.guest.errors import ApiError, DisplayError
from beamdesk.guest.picture import Camera, png
from beamdesk.guest.session import Session
from beamdesk.guest.silence import STREAM_S, Silence
from beamdesk.guest.x11 import Display

_IDLE_EVERY_S = 2.0
_PICTURE_EVERY, _STREAM_EVERY = 5, 1
"""In multiples of ``_IDLE_EVERY_S``."""


class Observer:
    """Watches ``session``; :meth:`idle_s` is the latest finding."""

    def __init__(self, session: Session, listen: str, api: GuestApi, console: Console, clock: Callable[[], float]) -> None:
        self._session = session
        self._listen = listen
        self._api = api
        self._console = console
        self._clock = clock
        self._ready = threading.Event()
        self._closed = threading.Event()
        self._display: Display | None = None
        self._camera: Camera | None = None
        self._last_input = clock()
        self._last_picture = 0
        self._silence = Silence(clock, in_use_s=STREAM_S)
        self._pictured = False

    def idle_s(self) -> float:
        """Return the seconds since the last input."""
        return max(0.0, self._clock() - self._last_input)

    def start(self) -> None:
        """Begin to observe; call when the desktop is up."""
        threading.Thread(target=self._run, name="observer", daemon=True).start()

    def close(self) -> None:
        """Stop observing."""
        self._closed.set()

    def _run(self) -> None:
        turn = 0
        while not self._closed.wait(_IDLE_EVERY_S if turn else 0.5):
            try:
                self._look(turn)
            except DisplayError:
                self._forget_display()
            except Exception as error:  # noqa: BLE001 - the outermost frame: whatever it was, observing goes on
                self._console.say("observer", error=repr(error))
                self._forget_display()
            turn += 1

    def _look(self, turn: int) -> None:
        if turn % _STREAM_EVERY == 0:
            self._check_stream()
        if self._display is None:
            self._display = Display(DISPLAY_NUMBER, self._session.cookie)
        self._last_input = self._clock() - self._display.idle_s()
        if turn % _PICTURE_EVERY == 0 or (self._session.is_up() and not self._pictured):
            self._take_picture(self._display)
            self._pictured = self._session.is_up()

    def _check_stream(self) -> None:
        if not self._session.stream_is_up() or stream.answers(self._listen):
            self._silence.answered()
        elif self._silence.missed():
            self._session.report_stuck("stream")

    def _take_picture(self, display: Display) -> None:
        self._camera = self._camera or Camera(display)
        width, height, pixels = self._camera.take()
        checksum = zlib.crc32(pixels)
        if checksum == self._last_picture:
            return
        try:
            self._api.thumbnail(png(width, height, pixels), "image/png")
            self._last_picture = checksum
        except ApiError as error:
            self._console.say("thumbnail", refused=error)

    def _forget_display(self) -> None:
        if self._display:
            self._display.close()
        self._display = self._camera = None
