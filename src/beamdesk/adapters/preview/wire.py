"""What the portal and a preview worker say to each other over their socket.

Portal to worker: one line of JSON (:class:`Job`) with the file's descriptor as SCM_RIGHTS. Worker to portal: two lengths
(big-endian 32 bit), a JSON :class:`Answer`, and a picture's PNG. Standard library only, so that the worker starts quickly.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from beamdesk.ports.previews import NoPreview, PreviewRequest, TextPreview, TreePreview

LENGTHS: Final = struct.Struct("!II")
MAX_HEADER: Final = 6 * 1024 * 1024
MAX_PAYLOAD: Final = 24 * 1024 * 1024
PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Job:
    """What to make of the descriptor that comes along; ``size`` of the file in bytes."""

    request: PreviewRequest
    size: int


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything of an ImagePreview but the PNG."""

    width: int
    height: int
    dataset: str = ""
    title: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    units: str = ""
    low: float | None = None
    high: float | None = None
    axis: int = 0
    index: int = 0
    count: int = 1
    note: str = ""


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve's points (None = not a number) and labels; ``points`` counts those of the data."""

    x: tuple[float, ...]
    y: tuple[float | None, ...]
    dataset: str
    title: str
    x_label: str
    y_label: str
    points: int
    log: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """Exactly one is set; ``picture`` comes with a payload."""

    tree: TreePreview | None = None
    picture: Picture | None = None
    curve: Curve | None = None
    text: TextPreview | None = None
    none: NoPreview | None = None


class Unshowable(Exception):
    """The file cannot be shown, and why."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.answer = Answer(none=NoPreview(code, reason))
