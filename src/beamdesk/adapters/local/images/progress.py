"""Says how far a build is: lines for a person, or one JSON object a line for a program that draws its own progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import TextIO

QUIET_S = 8.0
"""At most one line in so many seconds while a step goes on, so that a log stays readable."""


class Progress:
    """Reports of one image build. Times are seconds since the layer was begun."""

    def __init__(self, *, as_json: bool, out: TextIO = sys.stdout, clock: Callable[[], float] = time.monotonic) -> None:
        self._as_json = as_json
        self._out = out
        self._clock = clock
        self._image = ""
        self._layer = ""
        self._started = clock()
        self._said = 0.0

    def begin(self, image: str, layer: str) -> None:
        """Name the image and the layer that the next reports are about."""
        self._image, self._layer, self._started = image, layer, self._clock()

    def step(self, detail: str) -> None:
        """Report a new step of the current layer."""
        self._emit("building", detail)

    def tick(self, detail: str) -> None:
        """Report an advance within a step; most calls say nothing."""
        if self._clock() - self._said >= QUIET_S:
            self._emit("building", detail)

    def done(self, detail: str) -> None:
        """Report the current layer as complete."""
        self._emit("done", detail)

    def image(self, image: str, state: str, detail: str) -> None:
        """Report on a whole image: ``ready``, ``failed`` or ``waiting``."""
        self._image, self._layer, self._started = image, "", self._clock()
        self._emit(state, detail)

    def _emit(self, state: str, detail: str) -> None:
        self._said = self._clock()
        elapsed = self._said - self._started
        if self._as_json:
            report = {"image": self._image, "layer": self._layer, "state": state, "detail": detail, "elapsed_s": round(elapsed, 1)}
            line = json.dumps(report, ensure_ascii=False)
        elif self._layer:
            line = f"[image {self._image}] layer {self._layer}: {detail} ... {elapsed:.0f} s"
        else:
            line = f"[image {self._image}] {detail}"
        print(line, file=self._out, flush=True)
