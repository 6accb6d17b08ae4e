"""Pictures: image files, and planes of numbers coloured with a robust contrast. Runs in the sandbox."""

from __future__ import annotations

import io
import warnings
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from beamdesk.adapters.preview.wire import Answer, Picture, Unshowable
from beamdesk.ports.previews import Colours, PreviewRequest, View

MAX_PIXELS: Final = 64_000_000
_MAX_FILE = 320 * 1024 * 1024
_MAX_FRAMES = 100_000
_FORMATS = ("PNG", "JPEG", "TIFF")
_NUMERIC = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_DARKEST, _BRIGHTEST = 0.5, 99.7
"""Percentiles between which colours are spread: hot pixels and dead columns do not decide the contrast."""

_STOPS: Final = {
    Colours.VIRIDIS: "440154 482878 3e4a89 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725",
    Colours.INFERNO: "000004 1b0c41 4a0c6b 781c6d a52c60 cf4446 ed6925 fb9b06 f7d13d fcffa4",
}
"""Anchors of matplotlib's colour maps, between which colours are interpolated."""

Plane = NDArray[Any]


def show(file: io.RawIOBase, size: int, request: PreviewRequest) -> tuple[Answer, bytes]:
    """Show a PNG, JPEG or TIFF file: numbers (16 bit and more) coloured, photographs as they are."""
    if request.view not in (View.AUTO, View.IMAGE, View.DATASET):
        raise Unshowable("unsuitable", "This file cannot be shown in that way.")
    if size > _MAX_FILE:
        raise Unshowable("too_large", f"Pictures of more than {_MAX_FILE // 2**20} MiB are not shown; download it instead.")
    # Read whole: Pillow's decoders want a plain file or memory, and memory cannot be reopened.
    with warnings.catch_warnings(), _opened(io.BytesIO(file.read() or b"")) as image:
        warnings.simplefilter("ignore")
        if image.width * image.height > MAX_PIXELS:
            raise Unshowable("too_large", f"Pictures of more than {MAX_PIXELS // 1_000_000} million pixels are not shown.")
        count, index = _seek(image, request.index)
        if image.mode in _NUMERIC:
            return plane(np.asarray(image), request, index=index, count=count)
        return _photograph(image, request.width, index, count)


def _opened(memory: io.BytesIO) -> Image.Image:
    try:
        return Image.open(memory, formats=_FORMATS)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise Unshowable("damaged", "This picture is damaged or of an unusual kind.") from error


def _seek(image: Image.Image, wanted: int | None) -> tuple[int, int]:
    """Go to the wanted page of a file with pages; return how many there are and which one it is."""
    count = min(int(getattr(image, "n_frames", 1)), _MAX_FRAMES)
    index = min(max(0, wanted or 0), count - 1)
    if index:
        image.seek(index)
    return count, index


def _photograph(image: Image.Image, width: int, index: int, count: int) -> tuple[Answer, bytes]:
    kind, shape = image.mode, (image.height, image.width)
    image.draft("RGB", (width, width))
    image.thumbnail((width, width))
    small = ImageOps.exif_transpose(image) or image
    alpha = "A" in small.getbands() or "transparency" in small.info
    small = small.convert("RGBA" if alpha else "L" if kind in ("1", "L") else "RGB")
    return Answer(picture=Picture(small.width, small.height, shape=shape, dtype=kind, index=index, count=count)), _png(small)


def plane(
    numbers: Plane,
    request: PreviewRequest,
    *,
    shape: tuple[int, ...] = (),
    index: int = 0,
    count: int = 1,
    dataset: str = "",
    title: str = "",
    units: str = "",
    note: str = "",
) -> tuple[Answer, bytes]:
    """Colour a plane of numbers; ``shape`` is the whole data's."""
    kind, whole = str(numbers.dtype), shape or numbers.shape
    values = reduce(numbers, request.width)
    low, high, scaled = contrast(values, log=request.log)
    picture = _coloured(scaled, request.colours)
    facts = Picture(
        width=picture.width,
        height=picture.height,
        dataset=dataset,
        title=title,
        shape=tuple(whole),
        dtype=kind,
        units=units,
        low=low,
        high=high,
        axis=request.axis,
        index=index,
        count=count,
        note=note,
    )
    return Answer(picture=facts), _png(picture)


def reduce(numbers: Plane, longest: int) -> NDArray[np.float32]:
    """Return the plane as float32, averaged in blocks until no side is over ``longest``; NaN where a block has no number."""
    values = np.abs(numbers) if np.iscomplexobj(numbers) else numbers
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    step = -(-max(values.shape) // longest)
    if step <= 1:
        return values
    starts = [np.arange(0, side, step) for side in values.shape]
    finite = np.isfinite(values)
    values[~finite] = 0
    total = np.add.reduceat(np.add.reduceat(values, starts[0], axis=0), starts[1], axis=1)
    weight = np.add.reduceat(np.add.reduceat(finite.astype(np.float32), starts[0], axis=0), starts[1], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / weight, np.float32)


def contrast(values: NDArray[np.float32], *, log: bool) -> tuple[float | None, float | None, NDArray[np.float32]]:
    """Return the darkest and brightest value, and the values scaled to 0..1 between them (NaN stays NaN)."""
    usable = np.where(np.isfinite(values) & ((values > 0) | (not log)), values, np.float32(np.nan))
    numbers = usable[~np.isnan(usable)]
    if not numbers.size:
        return None, None, np.full_like(usable, np.nan)
    low, high = (float(edge) for edge in np.percentile(numbers.astype(np.float64), (_DARKEST, _BRIGHTEST)))
    if low == high:
        low, high = float(numbers.min()), float(numbers.max())
    if log:
        usable, bottom, top = np.log10(usable), np.log10(low), np.log10(high)
    else:
        bottom, top = low, high
    span = top - bottom if top > bottom else 1.0
    return low, high, np.asarray(np.clip((usable - bottom) / span, 0, 1), np.float32)


def _coloured(scaled: NDArray[np.float32], colours: Colours) -> Image.Image:
    missing = np.isnan(scaled)
    levels = np.where(missing, 0, scaled * 255 + 0.5).astype(np.uint8)
    if colours is Colours.GRAY and not missing.any():
        return Image.fromarray(levels)
    pixels = np.empty((*levels.shape, 4), np.uint8)
    pixels[..., :3] = _table(colours)[levels]
    pixels[..., 3] = np.where(missing, 0, 255)
    return Image.fromarray(pixels)


def _table(colours: Colours) -> NDArray[np.uint8]:
    """Return 256 colours."""
    if colours is Colours.GRAY:
        return np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    anchors = np.array([list(bytes.fromhex(stop)) for stop in _STOPS[colours].split()], np.float64)
    at = np.linspace(0, len(anchors) - 1, 256)
    return (
        np.stack([np.interp(at, np.arange(len(anchors)), anchors[:, band]) for band in range(3)], axis=1).round().astype(np.uint8)
    )


def _png(image: Image.Image) -> bytes:
    memory = io.BytesIO()
    image.save(memory, format="PNG", compress_level=3)
    return memory.getvalue()


def warm_up() -> None:
    """Load the decoders of every format and the code of every step."""
    Image.preinit()
    for form in _FORMATS:
        memory = io.BytesIO()
        Image.new("RGB" if form == "JPEG" else "F", (4, 4)).convert("RGB").save(memory, format=form)
        memory.seek(0)
        show(memory, 1, PreviewRequest(width=2))  # type: ignore[arg-type]
    plane(np.arange(16.0).reshape(4, 4), PreviewRequest(colours=Colours.VIRIDIS, width=2, log=True))
