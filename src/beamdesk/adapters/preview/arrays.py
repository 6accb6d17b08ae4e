"""Datasets as pictures, curves and text, reading no more than is shown. Runs in the sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from beamdesk.adapters.preview import pictures
from beamdesk.adapters.preview.wire import Answer, Curve, Unshowable
from beamdesk.ports.previews import PreviewRequest

Dataset = Any
"""An h5py dataset; h5py ships no types."""

_MAX_CHUNK_BYTES: Final = 256 * 1024 * 1024
_MAX_PLANE_BYTES: Final = 192 * 1024 * 1024
_MAX_STRIDED_BYTES: Final = 1024 * 1024 * 1024
_MAX_CURVE_BYTES: Final = 64 * 1024 * 1024
_MAX_SMALL_BYTES: Final = 64 * 1024
_BINS: Final = 900
_PIECES: Final = 256
_PIECE: Final = 256
_MAX_ROWS: Final = 2000


@dataclass(frozen=True, slots=True)
class Labels:
    """What a dataset is called."""

    path: str
    title: str = ""
    units: str = ""
    name: str = ""

    @property
    def axis(self) -> str:
        """Return the text beside an axis: the long name, or the name and the units."""
        if self.name:
            return self.name
        name = self.path.rpartition("/")[2]
        return f"{name} ({self.units})" if self.units else name


def plain(value: object) -> str:
    """Return any value as text that can be sent: bytes decoded, arrays in brackets, nothing that is not Unicode."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    elif isinstance(value, np.ndarray):
        if value.ndim == 0 or value.size == 1:
            return plain(value.reshape(-1)[0])
        items = ", ".join(plain(item) for item in value.reshape(-1)[:32])
        return f"[{items}{', …' if value.size > 32 else ''}]"
    elif isinstance(value, np.generic):
        value = value.item()
        return plain(value) if isinstance(value, bytes) else f"{value:.10g}" if isinstance(value, float) else plain(str(value))
    return str(value).encode("utf-8", "replace").decode()


def type_name(dataset: Dataset) -> str:
    """Return a readable name of a dataset's type."""
    kind = dataset.dtype
    if (kind.kind in "OS" and kind.metadata and ("vlen" in kind.metadata)) or kind.kind == "S":
        return "text"
    return "compound" if kind.names else str(kind)


def check_readable(dataset: Dataset) -> None:
    """Refuse data that lie outside the file, and chunks that unpack to more than a preview's memory.

    Raises:
        Unshowable: so it is.
    """
    if dataset.is_virtual or dataset.external:
        raise Unshowable("external", "These data lie in another file; open that file instead.")
    if dataset.chunks and prod(dataset.chunks) * dataset.dtype.itemsize > _MAX_CHUNK_BYTES:
        raise Unshowable("too_large", "These data are stored in blocks too large for a preview.")


def is_small(dataset: Dataset) -> bool:
    """Tell whether reading all of a dataset is cheap and safe."""
    try:
        check_readable(dataset)
    except Unshowable:
        return False
    return dataset.shape is not None and dataset.size * dataset.dtype.itemsize <= _MAX_SMALL_BYTES


def is_long(dataset: Dataset) -> bool:
    """Tell whether :func:`as_text` shows only a part."""
    return bool(dataset.shape and dataset.shape[0] > _MAX_ROWS)


def as_text(dataset: Dataset) -> str:
    """Return the values, one item of the first axis a line, bounded."""
    check_readable(dataset)
    if dataset.shape is None or dataset.size == 0:
        return "(no values)"
    if dataset.ndim == 0:
        return plain(dataset[()])[:_MAX_SMALL_BYTES]
    row_bytes = dataset.dtype.itemsize * prod(dataset.shape[1:])
    rows = min(dataset.shape[0], _MAX_ROWS, max(1, _MAX_CURVE_BYTES // max(1, row_bytes)))
    if row_bytes > _MAX_CURVE_BYTES:
        raise Unshowable("too_large", "These data are too large to be shown as text.")
    return "\n".join(plain(row)[:1000] for row in dataset[:rows])


def picture(dataset: Dataset, labels: Labels, request: PreviewRequest) -> tuple[Answer, bytes]:
    """Colour a two-dimensional slice."""
    check_readable(dataset)
    axis, index, selection = _slice(dataset, request)
    window, note = _window(dataset, tuple(not isinstance(part, int) for part in selection), request.width)
    selection = tuple(part if isinstance(part, int) else window[position] for position, part in enumerate(selection))
    numbers = dataset[selection]
    return pictures.plane(
        numbers.astype(np.uint8) if numbers.dtype.kind == "b" else numbers,
        request,
        shape=tuple(int(side) for side in dataset.shape),
        index=index,
        count=int(dataset.shape[axis]) if dataset.ndim > 2 else 1,
        dataset=labels.path,
        title=labels.title,
        units=labels.units,
        note=note,
    )


def _window(dataset: Dataset, shown: tuple[bool, ...], width: int) -> tuple[dict[int, slice], str]:
    """Return what to read along the two shown axes, and a remark: everything, every n-th point, or the middle.

    Chunks must be unpacked whole and rows read whole, so that skipping points saves memory but hardly any time.
    """
    sides = {position: int(dataset.shape[position]) for position, is_shown in enumerate(shown) if is_shown}
    everything = dataset.dtype.itemsize * prod(sides.values())
    if everything <= _MAX_PLANE_BYTES:
        return {position: slice(None) for position in sides}, ""
    chunks = dataset.chunks or tuple(1 if number == 0 else side for number, side in enumerate(dataset.shape))
    depth = prod(chunk for position, chunk in enumerate(chunks) if not shown[position])
    if everything * depth <= _MAX_STRIDED_BYTES:
        step = max(2, -(-max(sides.values()) // (2 * width)))
        return {position: slice(None, None, step) for position in sides}, f"Every {step}th point of each side is shown."
    part = min(2 * width, int(np.sqrt(_MAX_PLANE_BYTES / dataset.dtype.itemsize)))
    middle = {position: slice(max(0, (side - part) // 2), max(0, (side - part) // 2) + part) for position, side in sides.items()}
    return middle, f"Only the middle is shown, {' x '.join(str(min(part, side)) for side in sides.values())} points."


def _slice(dataset: Dataset, request: PreviewRequest) -> tuple[int, int, tuple[int | slice, ...]]:
    """Return the axis and index that were chosen, and the selection: two whole axes, every other fixed."""
    if dataset.ndim == 2:
        return 0, 0, (slice(None), slice(None))
    if not 0 <= request.axis < dataset.ndim:
        raise Unshowable("not_found", f"These data have {dataset.ndim} axes, counted from 0.")
    index = dataset.shape[request.axis] // 2 if request.index is None else request.index
    if not 0 <= index < dataset.shape[request.axis]:
        raise Unshowable("not_found", f"Slices along this axis are counted from 0 to {dataset.shape[request.axis] - 1}.")
    fixed: dict[int, int] = {request.axis: int(index)}
    for position, side in enumerate(dataset.shape):
        if len(fixed) < dataset.ndim - 2 and position not in fixed:
            fixed[position] = side // 2
    return request.axis, int(index), tuple(fixed.get(position, slice(None)) for position in range(dataset.ndim))


def curve(dataset: Dataset, axis: tuple[Dataset, str] | None, labels: Labels, request: PreviewRequest) -> Answer:
    """Return a curve of at most a few thousand points that keeps every peak (minimum and maximum of each bin)."""
    check_readable(dataset)
    length, before, after, note = _line(dataset)
    parts, thinned = _parts(length, dataset.dtype.itemsize)
    y = _read(dataset, parts, before, after)
    if axis is None:
        x, x_label = np.concatenate([np.arange(part.start, part.stop, dtype=np.float64) for part in parts]), "index"
    else:
        check_readable(axis[0])
        x, x_label = _read(axis[0], parts, (), ()), axis[1]
    chosen = _peaks(y)
    y, x = y[chosen], x[chosen]
    keep = np.isfinite(x)
    return Answer(
        curve=Curve(
            x=tuple(float(value) for value in x[keep]),
            y=tuple(float(value) if np.isfinite(value) else None for value in y[keep]),
            dataset=labels.path,
            title=labels.title,
            x_label=x_label,
            y_label=labels.axis,
            points=int(dataset.size),
            log=request.log,
            note=" ".join(part for part in (note, thinned) if part),
        )
    )


def _line(dataset: Dataset) -> tuple[int, tuple[int, ...], tuple[int, ...], str]:
    """Return the length of the line to draw (a plane's middle row, or only column) and the indices around it."""
    if dataset.ndim == 1:
        return int(dataset.shape[0]), (), (), ""
    rows, columns = (int(side) for side in dataset.shape)
    if columns == 1:
        return rows, (), (0,), ""
    return columns, (rows // 2,), (), f"Row {rows // 2} of {rows}." if rows > 1 else ""


def _parts(length: int, itemsize: int) -> tuple[list[slice], str]:
    """Return what to read of a line: all of it, or short pieces at even distances."""
    if length * itemsize <= _MAX_CURVE_BYTES:
        return [slice(0, length)], ""
    starts = (number * (length - _PIECE) // (_PIECES - 1) for number in range(_PIECES))
    return [slice(start, start + _PIECE) for start in starts], f"{_PIECES * _PIECE} of {length} points are shown."


def _read(dataset: Dataset, parts: list[slice], before: tuple[int, ...], after: tuple[int, ...]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        pieces = [dataset[(*before, part, *after)] for part in parts]
        return np.concatenate([(np.abs(piece) if np.iscomplexobj(piece) else piece).astype(np.float64) for piece in pieces])


def _peaks(y: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the indices to draw: all of a short line, else the lowest and highest of each bin."""
    if len(y) <= 3 * _BINS:
        return np.arange(len(y))
    edges = np.linspace(0, len(y), _BINS + 1).astype(np.int64)
    filled = np.where(np.isfinite(y), y, np.nan)
    chosen: set[int] = {0, len(y) - 1}
    for start, end in pairwise(edges):
        part = filled[start:end]
        if np.isnan(part).all():
            chosen.add(int(start))
            continue
        chosen |= {int(start + np.nanargmin(part)), int(start + np.nanargmax(part))}
    return np.array(sorted(chosen))
