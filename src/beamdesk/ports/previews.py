"""The port to previews: what a file looks like, without leaving the portal.

A file is hostile until proven otherwise: an implementation works on an open descriptor in a process that can do nothing but read it
and answer, within bounds of memory and time. It never raises for a bad file; it answers :class:`NoPreview` with the reason.
Everything textual in an answer comes from the file and must be escaped where it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from beamdesk.ports.files import OpenedFile


class View(StrEnum):
    """What to show. ``auto``: an HDF5 file's tree, a picture, the head of a text, whichever the content is."""

    AUTO = "auto"
    TREE = "tree"
    IMAGE = "image"
    PLOT = "plot"
    DATASET = "dataset"


class Colours(StrEnum):
    """Colour maps of data shown as a picture."""

    GRAY = "gray"
    VIRIDIS = "viridis"
    INFERNO = "inferno"


class Theme(StrEnum):
    """Colours of a plot's lines and text; ``auto`` follows the browser's preference."""

    AUTO = "auto"
    LIGHT = "light"
    DARK = "dark"


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """What to show of a file.

    ``dataset``: path of a dataset or group within an HDF5 file, empty = the file's default plot. ``axis`` and ``index``: which
    slice of an array of three or more dimensions (further axes: their middle); index None = the middle. Of a TIFF with pages
    ``index`` is the page. ``width``: longest side of a picture in pixels. ``log``: logarithmic colours or intensity axis.
    """

    view: View = View.AUTO
    dataset: str = ""
    axis: int = 0
    index: int | None = None
    colours: Colours = Colours.GRAY
    theme: Theme = Theme.AUTO
    width: int = 1024
    log: bool = False


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of an HDF5 object, its value as text."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Node:
    """An HDF5 object. ``kind``: group, dataset, link (shown, not followed) or more (the list was cut).

    ``show`` is the view that suits a dataset, None where there is nothing to draw. ``value`` is a small dataset's content as text,
    or a link's target.
    """

    path: str
    name: str
    kind: str
    depth: int
    shape: tuple[int, ...] = ()
    dtype: str = ""
    units: str = ""
    value: str = ""
    nx_class: str = ""
    show: View | None = None
    attributes: tuple[Attribute, ...] = ()


@dataclass(frozen=True, slots=True)
class TreePreview:
    """An HDF5 file's objects in depth-first order. ``default``: the dataset that the file's author wants plotted, or empty."""

    nodes: tuple[Node, ...]
    default: str
    truncated: bool


@dataclass(frozen=True, slots=True)
class ImagePreview:
    """A picture. ``low`` and ``high`` are the data values of the darkest and brightest colour, None for a photograph.

    There are ``count`` slices along ``axis``, this is number ``index``; ``shape`` is the data's, ``dataset`` its path in the file.
    """

    png: bytes
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
class PlotPreview:
    """A curve as SVG, drawn outside the sandbox from checked numbers; show it with ``<img>``. ``points`` counts the data."""

    svg: bytes
    dataset: str
    title: str
    x_label: str
    y_label: str
    points: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class TextPreview:
    """The head of a text file, or a dataset's values as text."""

    text: str
    truncated: bool


@dataclass(frozen=True, slots=True)
class NoPreview:
    """There is nothing to show. ``reason``: one plain sentence. ``code``: stable, for translation."""

    code: str
    reason: str


Preview = TreePreview | ImagePreview | PlotPreview | TextPreview | NoPreview


class Previewer(Protocol):
    """Makes previews."""

    async def preview(self, opened: OpenedFile, request: PreviewRequest) -> Preview:
        """Make the preview of an open regular file; the caller closes it."""

    async def close(self) -> None:
        """End what still runs."""
