"""Read tomography scans: NXtomo files (https://manual.nexusformat.org/classes/applications/NXtomo.html).

Only the rows that are asked for are read. Nothing here computes or writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

PROJECTION, FLAT, DARK = 0, 1, 2
_SUFFIXES = (".nxs", ".nx", ".h5", ".hdf5", ".hdf")
_MM = {"m": 1000.0, "mm": 1.0, "um": 1e-3, "µm": 1e-3, "micron": 1e-3, "nm": 1e-6, "cm": 10.0}


class ScanError(Exception):
    """The file is not a scan that can be reconstructed; the text says what is missing, for people."""


@dataclass(frozen=True)
class Rows:
    """Detector rows of a scan, float32 counts: projections (angles, rows, columns), mean flat and median dark (rows, columns)."""

    projections: np.ndarray
    flat: np.ndarray
    dark: np.ndarray


class Scan:
    """An open scan; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open ``path``.

        Raises:
            ScanError: it cannot be read, or is no NXtomo.
        """
        self.path = path
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise ScanError(f"{path} cannot be read: {_short(error)}") from error
        try:
            self._entry = _tomo_entry(self._file)
            self._detector = _detector(self._entry)
            self._frames = self._detector["data"]
            keys = np.asarray(self._detector["image_key"][...])
            self._by_key = {key: np.flatnonzero(keys == key) for key in (PROJECTION, FLAT, DARK)}
            angles = _angles(self._entry, len(keys))
        except (OSError, KeyError, ValueError) as error:
            self._file.close()
            raise ScanError(f"{path} is damaged or incomplete: {_short(error)}") from error
        except ScanError:
            self._file.close()
            raise
        self.angles = angles[self._by_key[PROJECTION]]
        self._check(len(keys))

    def _check(self, keys: int) -> None:
        problem = ""
        if self._frames.ndim != 3 or len(self._frames) != keys:
            problem = "frames and image_key do not fit together"
        elif len(self._by_key[PROJECTION]) < 2:
            problem = "there are no projections"
        elif not len(self._by_key[FLAT]) or not len(self._by_key[DARK]):
            problem = "flat or dark frames are missing, so counts cannot become transmission"
        if problem:
            self._file.close()
            raise ScanError(f"{self.path}: {problem}")

    @property
    def rows(self) -> int:
        """Number of detector rows, which is the number of slices."""
        return int(self._frames.shape[1])

    @property
    def columns(self) -> int:
        """Number of detector columns."""
        return int(self._frames.shape[2])

    @property
    def title(self) -> str:
        """The scan's title, or its file name."""
        return _text(self._entry, "title") or self.path.stem

    @property
    def sample(self) -> str:
        """The sample's name, where it is known."""
        return _text(self._entry, "sample/name")

    @property
    def pixel_mm(self) -> float | None:
        """Size of a detector pixel in mm, None where the file does not say."""
        size = self._detector.get("x_pixel_size")
        if size is None or size.size != 1:
            return None
        unit = size.attrs.get("units", "m")
        factor = _MM.get(unit.decode() if isinstance(unit, bytes) else str(unit))
        value = float(np.ravel(size[()])[0])
        return value * factor if factor and value > 0 else None

    def read(self, first: int, last: int) -> Rows:
        """Read detector rows ``first`` to ``last`` - 1; projections are scaled to the flats' beam current where it is known."""
        try:
            return Rows(
                self._frames_of(PROJECTION, first, last) * self._current_factors()[:, None, None],
                self._frames_of(FLAT, first, last).mean(axis=0),
                np.median(self._frames_of(DARK, first, last), axis=0),
            )
        except OSError as error:
            raise ScanError(f"{self.path} is damaged: {_short(error)}") from error

    def projection(self, number: int) -> Rows:
        """Read one whole projection with flat and dark, as for :meth:`read`."""
        frame = int(self._by_key[PROJECTION][number])
        try:
            one = np.asarray(self._frames[frame], np.float32)[None] * self._current_factors()[number]
        except OSError as error:
            raise ScanError(f"{self.path} is damaged: {_short(error)}") from error
        flat, dark = self._frames_of(FLAT, 0, self.rows), self._frames_of(DARK, 0, self.rows)
        return Rows(one, flat.mean(axis=0), np.median(dark, axis=0))

    def _frames_of(self, key: int, first: int, last: int) -> np.ndarray:
        """Read frames of one kind as runs of neighbours: HDF5 reads lists of single frames slowly."""
        wanted = self._by_key[key]
        parts = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
        return np.concatenate([np.asarray(self._frames[int(run[0]) : int(run[-1]) + 1, first:last], np.float32) for run in parts])

    def _current_factors(self) -> np.ndarray:
        """Return, for each projection, the beam current of the flats over its own; ones where there is no monitor."""
        monitor = self._entry.get("control/data")
        if monitor is None or monitor.shape != (len(self._frames),):
            return np.ones(len(self._by_key[PROJECTION]), np.float32)
        current = np.asarray(monitor[...], np.float64)
        if not np.isfinite(current).all() or (current <= 0).any():
            return np.ones(len(self._by_key[PROJECTION]), np.float32)
        return (current[self._by_key[FLAT]].mean() / current[self._by_key[PROJECTION]]).astype(np.float32)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def find_newest(data_root: Path = Path("/data")) -> Path:
    """Return the newest NXtomo file in any experiment's raw folder.

    Raises:
        ScanError: there is none.
    """
    found = [path for raw in data_root.glob("*/raw") for path in _files(raw)]
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[:200]:
        try:
            with h5py.File(path, "r") as file:
                _tomo_entry(file)
                return path
        except (OSError, ScanError):
            continue
    raise ScanError(f"no tomography scan (NXtomo) found in {data_root}/*/raw; name the file to reconstruct")


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from (path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    except OSError:
        return


def _tomo_entry(file: Any) -> Any:
    for name in file:
        entry = file.get(name)
        if isinstance(entry, h5py.Group) and (_text(entry, "definition") == "NXtomo" or "instrument/detector/image_key" in entry):
            return entry
    raise ScanError(f"{file.filename} is no tomography scan: it has no NXtomo entry")


def _detector(entry: Any) -> Any:
    for name in ("instrument/detector", "instrument/tomo/detector", "data"):
        group = entry.get(name)
        if isinstance(group, h5py.Group) and "data" in group and "image_key" in group:
            return group
    raise ScanError("the entry has no detector with data and image_key")


def _angles(entry: Any, frames: int) -> np.ndarray:
    """Return the rotation of each frame in degrees."""
    field = entry["sample/rotation_angle"]
    angles = np.asarray(field[...], np.float64)
    if angles.shape != (frames,):
        raise ScanError("there is not one rotation_angle for each frame")
    unit = field.attrs.get("units", "degree")
    return np.rad2deg(angles) if str(unit).startswith("rad") else angles


def _text(group: Any, name: str) -> str:
    item = group.get(name)
    if not isinstance(item, h5py.Dataset) or item.size != 1:
        return ""
    value = np.ravel(item[()])[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _short(error: Exception) -> str:
    """Return an error's text without HDF5's internals."""
    text = str(error).strip("'\"")
    return getattr(error, "strerror", None) or text.split(" (")[-1].rstrip(")") or type(error).__name__
