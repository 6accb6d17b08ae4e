"""What a file contains, on a page: an HDF5 tree with its datasets drawn, a picture, a curve, the head of a text.

Pictures are embedded as data, so that a picture and the numbers beside it always belong together and a file is read once.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from dataclasses import dataclass, replace
from enum import StrEnum
from math import isfinite
from typing import TypeVar

from starlette.responses import Response

from beamdesk.app import data as use_cases
from beamdesk.portal.data import HDF5, crumbs, exact_path, link, reader, use_of_data
from beamdesk.portal.i18n import Words
from beamdesk.portal.say import remark
from beamdesk.portal.site import Visit, render
from beamdesk.ports.files import printable, split_path
from beamdesk.ports.previews import (
    Colours,
    ImagePreview,
    Node,
    NoPreview,
    PlotPreview,
    Preview,
    PreviewRequest,
    TextPreview,
    Theme,
    TreePreview,
    View,
)

Choice = TypeVar("Choice", bound=StrEnum)
_WIDTH = 960
_LONGEST_NAME = 1024


@dataclass(frozen=True, slots=True)
class Figure:
    """What is drawn, ready for a template. ``source`` is a data address; ``kind``: image, plot, text or none."""

    kind: str
    source: str = ""
    title: str = ""
    dataset: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    low: str = ""
    high: str = ""
    axis: int = 0
    axes: tuple[int, ...] = ()
    index: int = 0
    count: int = 1
    width: int = 0
    height: int = 0
    text: str = ""
    note: str = ""
    coloured: bool = False


async def show(visit: Visit) -> Response:
    """Show a file's page, or with htmx only the figure of a dataset."""
    right = await reader(visit)
    path = exact_path(visit)
    wanted = _request(visit)
    tree, shown = await _previews(visit, right, path, wanted, alone=visit.partial)
    figure = _figure(visit.words, shown, wanted) if shown else None
    parts = split_path(path)
    return render(
        visit,
        "data/figure.html" if visit.partial else "data/view.html",
        nav="data",
        experiment=right.experiment,
        crumbs=crumbs(parts),
        name=printable(parts[-1]) if parts else "",
        query=link(parts),
        path_text=path.encode(errors="replace").decode(),
        folder=link(parts[:-1]),
        tree=tree,
        figure=figure,
        node=_node(tree, figure),
        wanted=wanted,
        colour_maps=tuple(Colours),
    )


async def _previews(
    visit: Visit, right: use_cases.Reader, path: str, wanted: PreviewRequest, *, alone: bool
) -> tuple[TreePreview | None, Preview | None]:
    """Return the tree of an HDF5 file and what is drawn; of other files only the latter."""
    data = use_of_data(visit)

    async def tree_or_content() -> Preview:
        return await use_cases.preview(data, right, path, replace(wanted, view=View.AUTO))

    async def drawing() -> Preview:
        return await use_cases.preview(data, right, path, wanted)

    if alone:
        return None, await drawing()
    if path.lower().endswith(HDF5):
        first, drawn = await asyncio.gather(tree_or_content(), drawing())
    else:
        first, drawn = await tree_or_content(), None
    if not isinstance(first, TreePreview):
        return None, first
    drawn = drawn or await drawing()
    nothing_chosen = isinstance(drawn, NoPreview) and drawn.code == "no_default"
    return first, None if nothing_chosen else drawn


def _request(visit: Visit) -> PreviewRequest:
    index = visit.query("index")
    axis = visit.query("axis")
    return PreviewRequest(
        view=_choice(View, visit.query("view"), View.DATASET),
        dataset=visit.query("dataset")[:_LONGEST_NAME],
        axis=int(axis) if axis.isascii() and axis.isdigit() and len(axis) < 3 else 0,
        index=int(index) if index.isascii() and index.isdigit() and len(index) < 10 else None,
        colours=_choice(Colours, visit.query("colours"), Colours.GRAY),
        theme=_choice(Theme, visit.theme, Theme.AUTO),
        width=_WIDTH,
        log=visit.query("log") == "1",
    )


def _choice(kind: type[Choice], text: str, default: Choice) -> Choice:
    try:
        return kind(text)
    except ValueError:
        return default


def _node(tree: TreePreview | None, figure: Figure | None) -> Node | None:
    if tree is None or figure is None or not figure.dataset:
        return None
    return next((node for node in tree.nodes if node.path == figure.dataset), None)


def _figure(words: Words, shown: Preview, wanted: PreviewRequest) -> Figure | None:
    if isinstance(shown, ImagePreview):
        return _picture(words, shown)
    if isinstance(shown, PlotPreview):
        source = "data:image/svg+xml;base64," + b64encode(shown.svg).decode()
        facts = ((words("preview.points_label"), str(shown.points)),)
        return Figure("plot", source, shown.title, shown.dataset, facts, note=remark(words, shown.note))
    if isinstance(shown, TextPreview):
        note = words("preview.text_truncated") if shown.truncated else ""
        return Figure("text", text=shown.text, note=note, dataset=wanted.dataset)
    if isinstance(shown, NoPreview):
        key = f"preview.code.{shown.code}"
        return Figure("none", note=words(key) if words.has(key) and words.language != "en" else shown.reason)
    return None


def _picture(words: Words, shown: ImagePreview) -> Figure:
    facts = [(words("preview.shape"), words("preview.times").join(map(str, shown.shape)))] if shown.shape else []
    if shown.dtype:
        facts.append((words("preview.type"), shown.dtype))
    if shown.units:
        facts.append((words("preview.units"), shown.units))
    if not shown.dataset:
        facts.append((words("preview.scale"), words("preview.image_size", width=shown.width, height=shown.height)))
    return Figure(
        "image",
        "data:image/png;base64," + b64encode(shown.png).decode(),
        shown.title,
        shown.dataset,
        tuple(facts),
        _value(shown.low),
        _value(shown.high),
        shown.axis,
        tuple(range(len(shown.shape))) if len(shown.shape) > 2 and shown.dataset else (),
        shown.index,
        shown.count,
        shown.width,
        shown.height,
        note=remark(words, shown.note),
        coloured=shown.low is not None,
    )


def _value(value: float | None) -> str:
    """Return a data value with as many digits as tell something."""
    return f"{value:.4g}" if value is not None and isfinite(value) else ""
