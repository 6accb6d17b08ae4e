"""Write a reconstruction: slices as 32-bit TIFF, a NeXus file with provenance, a quick look as PNG.

Everything is written into a hidden folder beside the target and renamed at the end: a run that breaks leaves nothing that looks
like a result. Formats: NXtomoproc (https://manual.nexusformat.org/classes/applications/NXtomoproc.html), TIFF with float samples.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
from PIL import Image

from beamdesk_science import __version__

_DAY_S = 24 * 3600
_SPARE_BYTES = 8 * 1024 * 1024


class OutputError(Exception):
    """The result cannot be written; the text says why and what to do, for people."""


@dataclass(frozen=True)
class Provenance:
    """What a result was made from and how; ends up in the NeXus file."""

    raw_file: Path
    title: str
    sample: str
    columns: int
    slices: tuple[int, ...]
    pixel_mm: float | None
    parameters: dict[str, str | float | int | bool] = field(default_factory=dict)

    @property
    def units(self) -> str:
        """Units of a slice's values."""
        return "1/mm" if self.pixel_mm else "1/pixel"


def default_folder(scan: Path) -> Path:
    """Return where a scan's reconstruction belongs: the experiment's processed folder, or beside a scan that is elsewhere."""
    for parent in scan.resolve().parents:
        if parent.name == "raw":
            return parent.parent / "processed" / f"{scan.stem}-rec"
    return scan.resolve().parent / f"{scan.stem}-rec"


def free_folder(wanted: Path) -> Path:
    """Return ``wanted``, or the first of ``wanted-2``, ``wanted-3`` ... that does not exist."""
    number = 2
    candidate = wanted
    while candidate.exists():
        candidate = wanted.with_name(f"{wanted.name}-{number}")
        number += 1
    return candidate


class Result:
    """A reconstruction being written; a context manager that makes it appear at the end, or leaves nothing."""

    def __init__(self, target: Path, provenance: Provenance) -> None:
        self._target = target
        self._about = provenance
        self._folder = target.with_name(f".{target.name}.part-{os.getpid()}")
        self._middle = provenance.slices[len(provenance.slices) // 2]
        self._nexus = -1
        self._offset = 0

    def __enter__(self) -> Self:
        try:
            with plain_errors(self._target):
                self._prepare()
        except BaseException:
            self._give_up()
            raise
        return self

    def _prepare(self) -> None:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(self._target)
        self._require_space()
        (self._folder / "slices").mkdir(parents=True)
        self._reserve()
        path = self._folder / f"{self._target.name}.nxs"
        with h5py.File(path, "w") as file:
            self._offset = self._describe(file)
        self._nexus = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.posix_fallocate(self._nexus, 0, self._offset + self._slice_bytes * len(self._about.slices))

    @property
    def _slice_bytes(self) -> int:
        return 4 * self._about.columns**2

    @property
    def _needed_bytes(self) -> int:
        """Slices are written twice, as TIFF and in the NeXus file."""
        return 2 * self._slice_bytes * len(self._about.slices) + _SPARE_BYTES

    def _require_space(self) -> None:
        """Refuse at once what cannot fit."""
        needed, free = self._needed_bytes, shutil.disk_usage(self._target.parent).free
        if free < needed:
            raise OutputError(f"{needed / 1e6:.0f} MB are needed in {self._target.parent} and {free / 1e6:.0f} MB are free")

    def _reserve(self) -> None:
        """Make sure of the space before HDF5 writes: a quota shows only now, and HDF5 crashes where its own writes fail."""
        path = self._folder / "reserve"
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self._needed_bytes)
        path.unlink()

    def add(self, number: int, slice_: np.ndarray) -> None:
        """Write one slice."""
        with plain_errors(self._target):
            values = np.ascontiguousarray(slice_, "<f4")
            Image.fromarray(values).save(self._folder / "slices" / f"slice_{number:05d}.tif", format="TIFF")
            _write_all(self._nexus, values.tobytes(), self._offset + self._about.slices.index(number) * self._slice_bytes)
            if number == self._middle:
                _quick_look(values).save(self._folder / "quicklook.png", format="PNG")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                with plain_errors(self._target):
                    os.fsync(self._nexus)
                    self._folder.rename(self._target)
                    _sync(self._target.parent)
        finally:
            self._give_up()

    def _give_up(self) -> None:
        """Close, and remove what was not renamed."""
        if self._nexus >= 0:
            os.close(self._nexus)
            self._nexus = -1
        shutil.rmtree(self._folder, ignore_errors=True)

    def _describe(self, file: h5py.File) -> int:
        """Write everything but the slices; return where in the file they belong."""
        about = self._about
        file.attrs.update({"NX_class": "NXroot", "default": "entry", "creator": "beamdesk-reconstruct"})
        entry = _group(file, "entry", "NXentry", definition="NXtomoproc", title=f"{about.title}, reconstructed")
        entry.attrs["default"] = "data"
        instrument = _group(entry, "instrument", "NXinstrument")
        _group(instrument, "source", "NXsource", type="Synchrotron X-ray Source", probe="x-ray")
        _group(entry, "sample", "NXsample", name=about.sample or about.title)
        process = _group(
            entry,
            "reconstruction",
            "NXprocess",
            program="beamdesk-reconstruct",
            version=__version__,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        facts = about.raw_file.stat()
        changed = datetime.fromtimestamp(facts.st_mtime, UTC).isoformat(timespec="seconds")
        raw = {"raw_file": str(about.raw_file), "raw_file_size": facts.st_size, "raw_file_changed": changed}
        _group(process, "parameters", "NXparameters", **raw, **about.parameters)
        return self._data_group(entry)

    def _data_group(self, entry: h5py.Group) -> int:
        about = self._about
        group = _group(entry, "data", "NXdata")
        group.attrs.update({"signal": "data", "axes": ["slice", "y", "x"]})
        size = (len(about.slices), about.columns, about.columns)
        data = _allocated(group, "data", size)
        long_name = f"Attenuation ({about.units})"
        data.attrs.update({"units": about.units, "interpretation": "image", "long_name": long_name})
        data.attrs.update({"transform": "none", "offset": 0.0, "scaling": 1.0})
        group["slice"] = np.array(about.slices, np.int32)
        group["slice"].attrs["long_name"] = "Detector row"
        position = (np.arange(about.columns) - about.columns // 2) * (about.pixel_mm or 1.0)
        for axis in ("y", "x"):
            group[axis] = position
            group[axis].attrs["units"] = "mm" if about.pixel_mm else "pixel"
        return int(data.id.get_offset())


@contextmanager
def plain_errors(target: Path) -> Iterator[None]:
    """Turn operating system errors into sentences.

    Raises:
        OutputError: instead of the OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise OutputError(f"the disk is full: nothing was left in {target.parent}; free some space and try again") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputError(f"{target.parent} is not writable for you; choose another place with --out") from error
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error


def _allocated(group: h5py.Group, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
    """Create a dataset of float32 in one piece whose place in the file is fixed at once, to be filled without HDF5."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    return h5py.Dataset(h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F32LE, space, layout))


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _group(parent: h5py.Group, name: str, nx_class: str, /, **fields: object) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    for key, value in fields.items():
        group[key] = value
    return group


def _quick_look(slice_: np.ndarray) -> Image.Image:
    low, high = np.percentile(slice_, (1, 99.8))
    scaled = np.clip((slice_ - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
    return Image.fromarray((scaled * 255).round().astype(np.uint8))


def _remove_abandoned(target: Path) -> None:
    """Remove what a killed run left a day ago or longer; a younger one may be at work on another machine."""
    for part in target.parent.glob(f".{target.name}.part-*"):
        if time.time() - part.stat().st_mtime > _DAY_S:
            shutil.rmtree(part, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
