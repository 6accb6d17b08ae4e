"""Write a tomography scan as the camera of an imaging beamline would: an NXtomo file of darks, flats and projections.

Physics: Beer-Lambert attenuation of a parallel beam, Poisson counts, a structured beam (multilayer stripes, scintillator dust),
a camera offset, columns whose gain changes after the flats (they make ring artefacts), hot pixels and an axis off the centre.
"""

from __future__ import annotations

import multiprocessing
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from beamdesk.adapters.demo import nexus
from beamdesk.adapters.demo.phantom import Phantom, sandstone

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all)."""

PROJECTION: Final = 0
FLAT: Final = 1
DARK: Final = 2
"""Values of NXtomo's image_key."""

_COMPRESSION_LEVEL = 2
_PIXEL_MM = 0.00325


@dataclass(frozen=True, slots=True)
class Scan:
    """What to measure. ``axis_offset``: how far the rotation axis is right of the detector's centre, in pixels."""

    size: int = 512
    projections: int = 360
    flats: int = 20
    darks: int = 10
    axis_offset: float = 3.7
    counts: float = 7000.0
    seed: int = 147

    @property
    def keys(self) -> NDArray[np.int32]:
        """image_key of every frame: darks, half the flats, the projections, the other flats."""
        before = self.flats // 2
        order = ((DARK, self.darks), (FLAT, before), (PROJECTION, self.projections), (FLAT, self.flats - before))
        return np.concatenate([np.full(count, key, np.int32) for key, count in order])

    @property
    def angles(self) -> NDArray[np.float64]:
        """Rotation in degrees of every frame; the first and last projection are 180 degrees apart."""
        turned = np.linspace(0, 180, self.projections)
        keys = self.keys
        last = int(np.flatnonzero(keys == PROJECTION)[-1])
        angles = np.where(np.arange(len(keys)) > last, 180.0, 0.0)
        angles[keys == PROJECTION] = turned
        return angles

    @property
    def axis_column(self) -> float:
        """Column of the detector on which the rotation axis falls (0 = middle of the first pixel)."""
        return (self.size - 1) / 2 + self.axis_offset

    @property
    def chunk_rows(self) -> int:
        """Rows in a chunk: a quarter frame, so that one slice needs a quarter of the file and a frame four chunks."""
        return max(1, self.size // 4)


class Camera:
    """The beam and the detector of one scan, and what they record."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        rng = np.random.default_rng(scan.seed)
        self._phantom: Phantom = sandstone(scan.size, scan.seed)
        self._angles = np.deg2rad(scan.angles)
        self._keys = scan.keys
        self._beam = _beam(scan, rng)
        self._offset = rng.normal(102, 2.5, (scan.size, scan.size)).astype(np.float32)
        self._late_gain = _late_gain(scan.size, rng)
        self.ring_current = _ring_current(len(self._keys))

    def frame(self, index: int) -> NDArray[np.uint16]:
        """Return frame ``index`` of the scan; always the same for the same scan."""
        rng = np.random.default_rng([self._scan.seed, index])
        key = int(self._keys[index])
        expected = np.zeros_like(self._beam) if key == DARK else self._beam * np.float32(self.ring_current[index] / 200)
        if key == PROJECTION:
            shape = (self._scan.size, self._scan.size)
            expected = (
                expected * self._late_gain * np.exp(-self._phantom.project(self._angles[index], shape, self._scan.axis_column))
            )
        counts = rng.poisson(expected) + self._offset + rng.normal(0, 2.2, expected.shape)
        hot = rng.integers(0, self._scan.size, (2, 6))
        counts[hot[0], hot[1]] += rng.uniform(200, 5000, 6)
        return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


def _beam(scan: Scan, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return expected counts without a sample: a broad beam, the multilayer's horizontal stripes, dust on the scintillator."""
    rows, columns = np.mgrid[0 : scan.size, 0 : scan.size] / scan.size - 0.5
    stripes = 1 + 0.06 * np.cumsum(rng.standard_normal(scan.size))[:, None] / np.sqrt(scan.size)
    beam = scan.counts * np.exp(-((rows / 0.75) ** 2) - (columns / 1.4) ** 2) * stripes
    for row, column, radius in zip(rng.random(24) - 0.5, rng.random(24) - 0.5, rng.uniform(0.003, 0.012, 24), strict=True):
        beam *= 1 - rng.uniform(0.05, 0.25) * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / radius**2)
    return np.asarray(beam, np.float32)


def _late_gain(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return gains that hold for the projections only: what the flats cannot correct becomes rings in the slices."""
    gain = np.ones((size, size), np.float32)
    for column in rng.choice(size, 14, replace=False):
        top = int(rng.integers(0, size // 2))
        gain[top : top + size // 2, column] *= np.float32(1 + rng.choice([-1, 1]) * rng.uniform(0.012, 0.04))
    return gain


def _ring_current(frames: int) -> NDArray[np.float64]:
    """Return the storage ring's current in mA: it decays and is topped up."""
    return np.asarray(200 - 1.6 * ((np.arange(frames) / 130) % 1), np.float64)


_camera: list[Camera] = []
"""The worker process's camera: making one takes longer than a frame."""


def _start_worker(scan: Scan) -> None:
    _camera[:] = [Camera(scan)]


def _packed_frame(index: int) -> list[bytes]:
    """Return a frame as HDF5 chunks: shuffled (bytes of equal weight together) and deflated, as the file's filters say."""
    frame = _camera[0].frame(index)
    rows = max(1, frame.shape[0] // 4)
    parts = (frame[top : top + rows] for top in range(0, frame.shape[0], rows))
    return [zlib.compress(part.view(np.uint8).reshape(-1, 2).T.tobytes(), _COMPRESSION_LEVEL) for part in parts]


@contextmanager
def _workers(scan: Scan, count: int) -> Iterator[Executor | None]:
    """Start ``count`` processes; none for one, which this process does itself."""
    if count <= 1:
        _start_worker(scan)
        yield None
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=(scan,)) as pool:
        yield pool


def write_scan(path: str, scan: Scan, *, workers: int = 1, progress: Progress = lambda _done, _total: None) -> None:
    """Write ``scan`` to ``path`` (must not be in use); takes about 15 s of CPU at full size, spread over ``workers``."""
    frames = len(scan.keys)
    with nexus.new_file(path) as file:
        data = _describe(file["entry"], scan)
        with _workers(scan, workers) as pool:
            packed = map(_packed_frame, range(frames)) if pool is None else pool.map(_packed_frame, range(frames), chunksize=4)
            for index, parts in enumerate(packed):
                for part, chunk in enumerate(parts):
                    data.id.write_direct_chunk((index, part * scan.chunk_rows, 0), chunk)
                progress(index + 1, frames)


def _describe(entry: Any, scan: Scan) -> Any:
    """Write everything but the frames; return the dataset that takes them."""
    frames, size = len(scan.keys), scan.size
    for name, value in _ENTRY.items():
        nexus.field(entry, name, value)
    instrument = nexus.group(entry, "instrument", "NXinstrument", name="B7 Hard X-ray imaging")
    nexus.group(
        instrument, "source", "NXsource", name="HEPS", type="Synchrotron X-ray Source", probe="x-ray", current=(200.0, "mA")
    )
    detector = nexus.group(
        instrument,
        "detector",
        "NXdetector",
        description="sCMOS camera, 10 um LuAG:Ce scintillator, 2x lens",
        x_pixel_size=(_PIXEL_MM, "mm"),
        y_pixel_size=(_PIXEL_MM, "mm"),
        distance=(18.0, "mm"),
        count_time=(0.05, "s"),
        image_key=scan.keys,
    )
    data = detector.create_dataset(
        "data", (frames, size, size), np.uint16, chunks=(1, scan.chunk_rows, size), compression=_COMPRESSION_LEVEL, shuffle=True
    )
    data.attrs.update({"units": "counts", "long_name": "Camera frames", "interpretation": "image"})
    sample = nexus.group(
        entry, "sample", "NXsample", name="sandstone core S3, dry", x_translation=(0.0, "mm"), z_translation=(0.0, "mm")
    )
    angles = nexus.field(sample, "rotation_angle", scan.angles, "degree", long_name="Rotation (degree)")
    energy = nexus.group(entry, "beam", "NXbeam", incident_energy=(25.0, "keV"), incident_energy_spread=(0.5, "keV"))
    nexus.field(energy, "extent", np.array([1.7, 1.7]), "mm")
    nexus.group(entry, "control", "NXmonitor", data=(_ring_current(frames), "mA"))
    nexus.group(entry, "user", "NXuser", name="Ada Lin", role="principal_investigator")
    shown = nexus.plot(entry, "data", "data", ["rotation_angle", ".", "."], "Sandstone core S3: camera frames")
    entry.attrs["default"] = "data"
    for name, target in (("data", data), ("rotation_angle", angles), ("image_key", detector["image_key"])):
        nexus.link(shown, name, target)
    return data


_ENTRY = {
    "definition": "NXtomo",
    "title": "Sandstone core S3, dry, 180 degree scan",
    "experiment_identifier": "HEPS-2026-0147",
    "start_time": "2026-09-14T10:02:11+08:00",
    "end_time": "2026-09-14T10:02:52+08:00",
}
