"""Reconstruct slices of a scan in several processes: which slices, in what blocks, with what settings. Writes nothing."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from beamdesk_science import numerics
from beamdesk_science.scan import Scan, ScanError

ALGORITHMS = ("auto", "fbp", "gridrec")
_FEW_SLICES = 4
"""Up to here the set-up of gridrec costs more than it saves."""
_BLOCK_BYTES = 192 * 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """How to reconstruct. ``centre``: column of the rotation axis, None = find it. ``workers``: 0 = as many as CPUs."""

    slices: tuple[int, ...]
    centre: float | None = None
    algorithm: str = "auto"
    filter_name: str = "shepp-logan"
    rings: bool = True
    workers: int = 0

    def chosen_algorithm(self) -> str:
        """Return the algorithm that is used."""
        if self.algorithm != "auto":
            return self.algorithm
        return "fbp" if len(self.slices) <= _FEW_SLICES else "gridrec"


def parse_slices(text: str, rows: int) -> tuple[int, ...]:
    """Return slice numbers for ``centre``, ``all``, ``N``, ``FIRST:LAST`` (last not included) or several with commas.

    Raises:
        ValueError: not of this form, or outside the scan; the text is for people.
    """
    if text in ("centre", "center"):
        return (rows // 2,)
    if text == "all":
        return tuple(range(rows))
    numbers: set[int] = set()
    for part in text.split(","):
        first, colon, last = part.strip().partition(":")
        try:
            start = int(first) if first or not colon else 0
            end = (int(last) if last else rows) if colon else start + 1
        except ValueError:
            raise ValueError(f'"{text}" names no slices; write centre, all, 200, 200:220 or 10,20,30') from None
        if not 0 <= start < end <= rows:
            raise ValueError(f"slices are numbered 0 to {rows - 1}; {part.strip()} is outside")
        numbers |= set(range(start, end))
    return tuple(sorted(numbers))


def centre_of(scan: Scan) -> float:
    """Find the rotation axis's column from the pair of projections that is nearest to 180 degrees apart.

    Raises:
        ScanError: there is no such pair.
    """
    turn = np.abs((scan.angles - scan.angles[0]) % 360 - 180)
    opposite = int(np.argmin(turn))
    if turn[opposite] > 0.75:
        raise ScanError("no two projections are 180 degrees apart; give the axis's column by --centre")
    return numerics.find_centre(scan.projection(0), scan.projection(opposite))


def reconstruct(scan: Scan, settings: Settings, centre: float) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (slice number, slice) in ascending order; attenuation per mm where the pixel size is known, else per pixel."""
    workers = min(settings.workers or os.cpu_count() or 1, len(settings.slices))
    make = _maker(scan, settings)
    per_mm = np.float32(1 / scan.pixel_mm if scan.pixel_mm else 1)
    with ExitStack() as stack:
        run: Callable[..., Iterator[np.ndarray]] = map
        if workers > 1:
            # fork: the children share the gridding matrix instead of each making its own.
            context = multiprocessing.get_context("fork")
            pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=context, initializer=_share, initargs=(make,)))
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            run, task = pool.map, _shared
        else:
            task = make
        for block in _blocks(scan, settings.slices):
            integrals = numerics.line_integrals(scan.read(block[0], block[-1] + 1))
            sinograms = (integrals[:, number - block[0]] for number in block)
            for number, slice_ in zip(block, run(task, sinograms, [centre] * len(block)), strict=True):
                yield number, slice_ * per_mm


class _Maker:
    """Makes a slice of a sinogram; what all slices share is made once."""

    def __init__(self, angles: np.ndarray, rings: bool, back_project: Callable[[np.ndarray], np.ndarray]) -> None:
        self._angles, self._rings, self._back_project = angles, rings, back_project

    def __call__(self, sinogram: np.ndarray, centre: float) -> np.ndarray:
        clean = numerics.remove_rings(sinogram) if self._rings else sinogram
        return self._back_project(numerics.centred(clean, centre))


def _maker(scan: Scan, settings: Settings) -> _Maker:
    if settings.chosen_algorithm() == "gridrec":
        return _Maker(scan.angles, settings.rings, numerics.Gridder(scan.columns, scan.angles, settings.filter_name))
    return _Maker(scan.angles, settings.rings, _Fbp(scan.angles, settings.filter_name))


class _Fbp:
    def __init__(self, angles: np.ndarray, filter_name: str) -> None:
        self._angles, self._filter_name = angles, filter_name

    def __call__(self, sinogram: np.ndarray) -> np.ndarray:
        return numerics.back_project(sinogram, self._angles, self._filter_name)


_process_maker: list[_Maker] = []


def _share(make: _Maker) -> None:
    _process_maker[:] = [make]


def _shared(sinogram: np.ndarray, centre: float) -> np.ndarray:
    return _process_maker[0](sinogram, centre)


def _blocks(scan: Scan, slices: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Cut the slices into runs of neighbours that fit in memory, so that each part of the file is read once."""
    most = max(1, _BLOCK_BYTES // (4 * len(scan.angles) * scan.columns))
    run: list[int] = []
    for number in slices:
        if run and (number != run[-1] + 1 or len(run) == most):
            yield tuple(run)
            run = []
        run.append(number)
    if run:
        yield tuple(run)
