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
_MAX_CURVE_BYTES: Final = 64 * 1024 * 1024
_MAX_SMALL_BYTES: Final = 64 * 1024
_BINS: Final = 900
_SAMPLES: Final = 4096
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
    rows, columns = (side for position, side in enumerate(dataset.shape) if not isinstance(selection[position], int))
    step = max(1, int(np.ceil(np.sqrt(rows * columns * dataset.dtype.itemsize / _MAX_PLANE_BYTES))))
    if step > 1:
        step = max(step, -(-max(rows, columns) // (2 * request.width)))
        selection = tuple(part if isinstance(part, int) else slice(None, None, step) for part in selection)
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
        note=f"Every {step}th point of each side is shown." if step > 1 else "",
    )


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
    y, positions, note = _line(dataset)
    x, x_label = positions.astype(np.float64), "index"
    if axis is not None:
        check_readable(axis[0])
        x, x_label = axis[0][...][positions].astype(np.float64), axis[1]
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
            note=note,
        )
    )


def _line(dataset: Dataset) -> tuple[NDArray[np.float64], NDArray[np.int64], str]:
    """Read a line of numbers, the middle row of a plane; of a very long one, evenly spread samples."""
    row = (dataset.shape[0] // 2,) if dataset.ndim == 2 and dataset.shape[1] > 1 else ()
    column = (0,) if dataset.ndim == 2 and dataset.shape[1] == 1 else ()
    length = dataset.shape[1] if row else dataset.shape[0]
    note = f"Row {row[0]} of {dataset.shape[0]}." if row and dataset.shape[0] > 1 else ""
    step = 1
    if length * dataset.dtype.itemsize > _MAX_CURVE_BYTES:
        step = -(-length // _SAMPLES)
        note = f"Every {step}th point is shown."
    with np.errstate(over="ignore"):
        values = dataset[(*row, slice(None, None, step), *column)]
        line = np.abs(values) if np.iscomplexobj(values) else values
        return line.astype(np.float64), np.arange(0, length, step), note


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
