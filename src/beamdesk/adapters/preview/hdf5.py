"""HDF5 files: their tree, and which dataset to show how. Runs in the sandbox.

Links are resolved here, one name at a time: soft links within the file, external links never. Everything is bounded, since a
file can hold millions of objects, cycles of hard links and texts without end. Broken parts are left out, the rest is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any, Final

import h5py
import numpy as np

from beamdesk.adapters.preview import arrays
from beamdesk.adapters.preview.wire import Answer, Unshowable
from beamdesk.ports.previews import Attribute, Node, PreviewRequest, TextPreview, TreePreview, View

MAX_NODES: Final = 2000
_MAX_CHILDREN = 400
_MAX_DEPTH = 16
_MAX_ATTRIBUTES = 24
_MAX_TEXT = 300
_MAX_ATTRIBUTE_BYTES = 16 * 1024
_MAX_LINK_HOPS = 16

Broken = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)
"""What h5py raises for a damaged or exotic part of a file."""

Item = Any
"""An h5py group, dataset or committed type; h5py ships no types."""


def show(file: IO[bytes] | Any, request: PreviewRequest) -> tuple[Answer, bytes]:
    """Show the tree, or a dataset as picture, plot or text."""
    with h5py.File(file, "r") as root:
        if request.view in (View.AUTO, View.TREE):
            return Answer(tree=_tree(root)), b""
        path = request.dataset or default_dataset(root)
        if not path:
            raise Unshowable("no_default", "This file names no data to plot; choose a dataset.")
        found = resolve(root, path)
        if isinstance(found, h5py.Group):
            path = signal_of(found, path)
            found = resolve(root, path) if path else found
        if not isinstance(found, h5py.Dataset):
            raise Unshowable("no_default", "This group names no data to plot; choose a dataset.")
        return _dataset(root, found, path, request)


def _dataset(root: Item, dataset: Item, path: str, request: PreviewRequest) -> tuple[Answer, bytes]:
    suits = view_of(dataset)
    if request.view is View.DATASET and suits is None:
        return Answer(text=TextPreview(arrays.as_text(dataset), arrays.is_long(dataset))), b""
    wanted = request.view if request.view in (View.IMAGE, View.PLOT) and suits is View.IMAGE else suits
    if wanted is None:
        raise Unshowable("unsuitable", "This dataset holds nothing that can be drawn.")
    labels = arrays.Labels(path, title=_title(root, path), units=text_of(dataset, "units"), name=text_of(dataset, "long_name"))
    if wanted is View.PLOT:
        return arrays.curve(dataset, _axis(root, path, dataset), labels, request), b""
    return arrays.picture(dataset, labels, request)


def resolve(root: Item, path: str, hops: int = _MAX_LINK_HOPS) -> Item:
    """Return the object at an absolute or root-relative path without leaving the file.

    Raises:
        Unshowable: nothing there, or an external link on the way.
    """
    here: Item = root
    trail: list[str] = []
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for position, part in enumerate(parts):
        link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
        if isinstance(link, h5py.SoftLink):
            if hops == 0:
                raise Unshowable("not_found", "This file's links lead in a circle.")
            base = "" if link.path.startswith("/") else "/".join(trail)
            return resolve(root, "/".join([base, link.path, *parts[position + 1 :]]), hops - 1)
        if isinstance(link, h5py.ExternalLink):
            raise Unshowable("external", "This is a link to another file; open that file instead.")
        if link is None:
            raise Unshowable("not_found", "There is no such dataset in this file.")
        here = here[part]
        trail.append(part)
    return here


def view_of(dataset: Item) -> View | None:
    """Return how a dataset is best shown, None where there is nothing to draw."""
    if dataset.shape is None or dataset.dtype.kind not in "iufcb" or 0 in dataset.shape:
        return None
    if dataset.ndim >= 2 and min(dataset.shape[-2:]) > 1:
        return View.IMAGE
    return View.PLOT if dataset.size > 1 and dataset.ndim <= 2 else None


def text_of(item: Item, name: str) -> str:
    """Return an attribute as bounded text, empty where it is absent or strange."""
    try:
        if name not in item.attrs or item.attrs.get_id(name).get_storage_size() > _MAX_ATTRIBUTE_BYTES:
            return ""
        return arrays.plain(item.attrs[name])[:_MAX_TEXT]
    except Broken:
        return ""


def default_dataset(root: Item) -> str:
    """Return the path that NeXus's ``default`` attributes lead to, or the first NXdata's signal; empty where there is none."""
    here, path = root, ""
    for _step in range(_MAX_DEPTH):
        signal = signal_of(here, path)
        if signal:
            return signal
        name = text_of(here, "default") or _first_of_class(here, ("NXdata",)) or _first_of_class(here, ("NXentry", "NXsubentry"))
        try:
            below = resolve(root, f"{path}/{name}") if name else None
        except (Unshowable, *Broken):
            return ""
        if not isinstance(below, h5py.Group):
            return f"{path}/{name}" if isinstance(below, h5py.Dataset) else ""
        here, path = below, f"{path}/{name}"
    return ""


def signal_of(group: Item, path: str) -> str:
    """Return the path of an NXdata group's signal: its attribute, or the field that says ``signal=1``; else empty."""
    named = text_of(group, "signal")
    if named and "/" not in named and named in group:
        return f"{path}/{named}"
    if text_of(group, "NX_class") != "NXdata":
        return ""
    for name in islice(group, _MAX_CHILDREN):
        if isinstance(group.get(name, getlink=True), h5py.HardLink) and text_of(group[name], "signal") == "1":
            return f"{path}/{name}"
    return ""


def _first_of_class(group: Item, classes: tuple[str, ...]) -> str:
    for name in islice(group, _MAX_CHILDREN):
        try:
            if isinstance(group.get(name, getlink=True), h5py.HardLink) and text_of(group[name], "NX_class") in classes:
                return str(name)
        except Broken:
            continue
    return ""


def _title(root: Item, path: str) -> str:
    """Return the title of the data group or of the entry above a dataset."""
    parts = path.strip("/").split("/")
    for depth in range(len(parts) - 1, 0, -1):
        try:
            title = resolve(root, "/".join([*parts[:depth], "title"]))
            if isinstance(title, h5py.Dataset) and title.size == 1 and arrays.is_small(title):
                return arrays.plain(title[()])[:_MAX_TEXT]
        except (Unshowable, *Broken):
            continue
    return ""


def _axis(root: Item, path: str, dataset: Item) -> tuple[Item, str] | None:
    """Return the numbers along a curve and their label, as the NXdata group above it says; None = count."""
    above = path.rpartition("/")[0]
    try:
        group = resolve(root, above)
        axes = group.attrs["axes"] if "axes" in group.attrs else dataset.attrs.get("axes", "")
        name = arrays.plain(axes[0] if isinstance(axes, np.ndarray) and axes.size else axes).split(":")[0]
        axis = resolve(root, f"{above}/{name}") if name and "/" not in name and name != "." else None
    except (Unshowable, *Broken):
        return None
    if isinstance(axis, h5py.Dataset) and axis.shape == (dataset.size,) and axis.dtype.kind in "iuf":
        return axis, arrays.Labels(f"{above}/{name}", units=text_of(axis, "units"), name=text_of(axis, "long_name")).axis
    return None


@dataclass(slots=True)
class _Walk:
    """A depth-first walk: what it found, and which groups it has seen (hard links make cycles)."""

    root: Item
    nodes: list[Node] = field(default_factory=list)
    seen: dict[tuple[int, int], str] = field(default_factory=dict)
    truncated: bool = False

    def group(self, group: Item, path: str, depth: int) -> None:
        names: list[str] = []

        def take(name: bytes) -> bool | None:
            names.append(name.decode("utf-8", "replace"))
            return True if len(names) > _MAX_CHILDREN else None

        group.id.links.iterate(take)
        for name in names[:_MAX_CHILDREN]:
            if len(self.nodes) >= MAX_NODES:
                self.truncated = True
                return
            self.child(group, name, f"{path}/{name}", depth)
        if len(names) > _MAX_CHILDREN:
            self.truncated = True
            left = group.id.get_num_objs() - _MAX_CHILDREN
            self.nodes.append(Node(path, f"{left} more", "more", depth))

    def child(self, group: Item, name: str, path: str, depth: int) -> None:
        try:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                self.nodes.append(Node(path, name, "link", depth, value=_target(link)))
                return
            item = group[name]
            if isinstance(item, h5py.Dataset):
                self.nodes.append(_dataset_node(item, name, path, depth))
            elif isinstance(item, h5py.Group):
                self.subgroup(item, name, path, depth)
        except Broken as error:
            self.nodes.append(Node(path, name, "link", depth, value=f"damaged ({type(error).__name__})"))

    def subgroup(self, group: Item, name: str, path: str, depth: int) -> None:
        info = h5py.h5o.get_info(group.id)
        first = self.seen.setdefault((info.fileno, info.addr), path)
        if first != path:
            self.nodes.append(Node(path, name, "link", depth, value=first))
            return
        self.nodes.append(Node(path, name, "group", depth, nx_class=text_of(group, "NX_class"), attributes=_attributes(group)))
        if depth < _MAX_DEPTH:
            self.group(group, path, depth + 1)
        else:
            self.truncated = True


def _tree(root: Item) -> TreePreview:
    walk = _Walk(root)
    info = h5py.h5o.get_info(root.id)
    walk.seen[info.fileno, info.addr] = "/"
    walk.group(root, "", 0)
    return TreePreview(tuple(walk.nodes), default_dataset(root), walk.truncated)


def _target(link: Item) -> str:
    if isinstance(link, h5py.ExternalLink):
        return arrays.plain(f"{link.filename}:{link.path}")[:_MAX_TEXT]
    return arrays.plain(getattr(link, "path", "unknown"))[:_MAX_TEXT]


def _dataset_node(dataset: Item, name: str, path: str, depth: int) -> Node:
    small = dataset.shape is not None and dataset.size <= 8 and arrays.is_small(dataset)
    return Node(
        path,
        name,
        "dataset",
        depth,
        shape=tuple(int(side) for side in dataset.shape or ()),
        dtype=arrays.type_name(dataset),
        units=text_of(dataset, "units"),
        value=arrays.as_text(dataset)[:_MAX_TEXT] if small else "",
        show=view_of(dataset),
        attributes=_attributes(dataset),
    )


def _attributes(item: Item) -> tuple[Attribute, ...]:
    try:
        names = [h5py.h5a.open(item.id, index=index).name for index in range(min(_MAX_ATTRIBUTES, h5py.h5a.get_num_attrs(item.id)))]
    except Broken:
        return ()
    texts = ((name.decode("utf-8", "replace"), text_of(item, name.decode("utf-8", "replace"))) for name in names)
    return tuple(Attribute(arrays.plain(name)[:_MAX_TEXT], text) for name, text in texts)
