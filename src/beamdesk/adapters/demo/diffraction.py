"""Write a powder diffraction measurement of ceria: the detector's image and the pattern integrated from it (NXmonopd).

Peak positions and intensities are computed: fluorite structure (Fm-3m, a = 5.4113 A, NIST SRM 674), Cromer-Mann form factors
(International Tables C, 6.1.1.4), multiplicity, Lorentz factor, thermal motion. The image has Poisson noise, module gaps and a
beam stop; the pattern is its azimuthal mean with counting errors, not the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, Final, Self

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from beamdesk.adapters.demo import nexus

Floats = NDArray[np.float64]

LATTICE_ANGSTROM: Final = 5.4113
_CERIUM = ((21.1671, 19.7695, 11.8513, 3.33049), (2.81219, 0.226836, 17.6083, 127.113), 1.86264)
_OXYGEN = ((3.0485, 2.2868, 1.5463, 0.867), (13.2771, 5.7011, 0.3239, 32.9089), 0.2508)


@dataclass(frozen=True, slots=True)
class Setup:
    """Geometry: wavelength in angstrom, detector of ``size`` pixels of ``pixel`` mm at ``distance`` mm, beam at ``centre``."""

    wavelength: float = 0.4133
    size: int = 1024
    pixel: float = 0.172
    distance: float = 220.0
    centre: tuple[float, float] = (518.4, 505.7)
    seed: int = 212

    @classmethod
    def of_size(cls, size: int) -> Self:
        """Return the same detector with ``size`` coarser or finer pixels."""
        real = cls()
        factor = size / real.size
        return cls(size=size, pixel=real.pixel / factor, centre=(real.centre[0] * factor, real.centre[1] * factor))


def _form_factor(element: tuple[tuple[float, ...], tuple[float, ...], float], s: Floats) -> Floats:
    amplitudes, widths, constant = element
    terms = (a * np.exp(-b * s**2) for a, b in zip(amplitudes, widths, strict=True))
    return np.asarray(constant + sum(terms, np.zeros_like(s)))


def reflections(wavelength: float, highest: float) -> tuple[Floats, Floats]:
    """Return 2theta (degrees, ascending) and relative intensity of ceria's reflections up to ``highest`` degrees."""
    limit = int(2 * LATTICE_ANGSTROM * np.sin(np.deg2rad(highest / 2)) / wavelength) + 1
    indices = np.array([hkl for hkl in product(range(-limit, limit + 1), repeat=3) if len({h % 2 for h in hkl}) == 1])
    norms, inverse, multiplicity = np.unique((indices**2).sum(axis=1), return_inverse=True, return_counts=True)
    first = np.array([indices[np.flatnonzero(inverse.ravel() == n)[0]] for n in range(len(norms))])
    s = np.sqrt(norms) / (2 * LATTICE_ANGSTROM)
    oxygen_sign = np.cos(np.pi / 2 * first.sum(axis=1)).round()
    structure = 4 * (_form_factor(_CERIUM, s) + 2 * oxygen_sign * _form_factor(_OXYGEN, s))
    seen = (norms > 0) & (wavelength * s < np.sin(np.deg2rad(highest / 2)))
    theta = np.arcsin(wavelength * s[seen])
    lorentz = 1 / (np.sin(theta) ** 2 * np.cos(theta))
    intensity = multiplicity[seen] * structure[seen] ** 2 * lorentz * np.exp(-2 * 0.35 * s[seen] ** 2)
    return np.rad2deg(2 * theta), intensity / intensity.max()


def _model(two_theta: Floats, setup: Setup) -> Floats:
    """Return expected counts: pseudo-Voigt peaks whose width grows with the angle, on the capillary's diffuse scattering."""
    counts = 40 + 260 * np.exp(-two_theta / 4) + 55 * np.exp(-(((two_theta - 6.0) / 3.2) ** 2))
    for position, intensity in zip(*reflections(setup.wavelength, 34.0), strict=True):
        width = 0.055 + 0.0022 * position
        reduced = ((two_theta - position) / width) ** 2
        counts += 9000 * intensity * (0.55 * np.exp(-reduced / 2) + 0.45 / (1 + reduced))
    return np.asarray(counts)


def _angles(setup: Setup) -> Floats:
    rows, columns = np.mgrid[0 : setup.size, 0 : setup.size]
    radius = np.hypot(rows - setup.centre[0], columns - setup.centre[1]) * setup.pixel
    return np.asarray(np.rad2deg(np.arctan2(radius, setup.distance)))


def record(setup: Setup) -> NDArray[np.int32]:
    """Return the detector's counts; -1 marks pixels that see nothing (gaps between modules, the beam stop)."""
    rng = np.random.default_rng(setup.seed)
    two_theta = _angles(setup)
    counts = rng.poisson(_model(two_theta, setup) * np.cos(np.deg2rad(two_theta)) ** 3).astype(np.int32)
    for start in range(195, 1024, 212):
        counts[start * setup.size // 1024 : (start + 17) * setup.size // 1024] = -1
    counts[:, 487 * setup.size // 1024 : 494 * setup.size // 1024] = -1
    counts[two_theta < 1.0] = -1
    return np.asarray(counts, np.int32)


def integrate(image: NDArray[np.int32], setup: Setup, bins: int = 2000) -> tuple[Floats, Floats, Floats]:
    """Return 2theta, mean counts of the valid pixels in each bin (solid angle corrected) and their standard deviation."""
    two_theta = _angles(setup)
    valid = image >= 0
    edges = np.linspace(1.5, 24.0, bins + 1)
    solid = np.cos(np.deg2rad(two_theta[valid])) ** 3
    pixels, _ = np.histogram(two_theta[valid], edges)
    total, _ = np.histogram(two_theta[valid], edges, weights=image[valid] / solid)
    variance, _ = np.histogram(two_theta[valid], edges, weights=image[valid] / solid**2)
    pixels = np.maximum(pixels, 1)
    return (edges[1:] + edges[:-1]) / 2, total / pixels, np.sqrt(variance) / pixels


def write_scan(path: str, setup: Setup) -> None:
    """Write image and pattern as one NXmonopd file whose default plot is the pattern."""
    image = record(setup)
    two_theta, intensity, error = integrate(image, setup)
    with nexus.new_file(path) as file:
        _fill(file["entry"], setup, image, (two_theta, intensity, error))


def write_image(path: str, setup: Setup) -> None:
    """Write the detector's image as the TIFF that other programs read."""
    Image.fromarray(record(setup)).save(path, format="TIFF", description="CeO2, counts; -1 = no pixel")


def _fill(entry: Any, setup: Setup, image: NDArray[np.int32], pattern: tuple[Floats, Floats, Floats]) -> None:
    for name, value in _ENTRY.items():
        nexus.field(entry, name, value)
    instrument = nexus.group(entry, "instrument", "NXinstrument", name="B8 Powder diffraction and XAFS")
    source = {"name": "HEPS", "type": "Synchrotron X-ray Source", "probe": "x-ray"}
    nexus.group(instrument, "source", "NXsource", **source)
    nexus.group(instrument, "crystal", "NXcrystal", wavelength=(setup.wavelength, "angstrom"))
    area = nexus.group(
        instrument,
        "area_detector",
        "NXdetector",
        distance=(setup.distance, "mm"),
        x_pixel_size=(setup.pixel, "mm"),
        y_pixel_size=(setup.pixel, "mm"),
        beam_center_x=(setup.centre[1], "pixel"),
        beam_center_y=(setup.centre[0], "pixel"),
    )
    counts = nexus.field(area, "data", image, "counts", long_name="Detector counts", interpretation="image")
    detector = nexus.group(instrument, "detector", "NXdetector", description="azimuthal integration of area_detector")
    angle = nexus.field(detector, "polar_angle", pattern[0], "degree", long_name="2θ (degree)")
    signal = nexus.field(detector, "data", pattern[1], "counts", long_name="Mean counts per pixel")
    error = nexus.field(detector, "data_errors", pattern[2], "counts")
    sample = {
        "name": "CeO2 (SRM 674), 0.5 mm capillary",
        "chemical_formula": "CeO2",
        "unit_cell_abc": (np.full(3, 5.4113), "angstrom"),
    }
    nexus.group(entry, "sample", "NXsample", **sample, rotation_angle=(0.0, "degree"))
    nexus.group(entry, "control", "NXmonitor", mode="timer", preset=(30.0, "s"), integral=(1.284e9, "counts"))
    shown = nexus.plot(entry, "data", "data", ["polar_angle"], "CeO2 powder pattern")
    for name, target in (("data", signal), ("data_errors", error), ("polar_angle", angle)):
        nexus.link(shown, name, target)
    picture = nexus.plot(entry, "image", "data", [".", "."], "CeO2 detector image")
    nexus.link(picture, "data", counts)
    entry.attrs["default"] = "data"


_ENTRY = {
    "definition": "NXmonopd",
    "title": "CeO2 calibrant, 30 keV",
    "experiment_identifier": "HEPS-2026-0212",
    "start_time": "2026-10-08T21:40:03+08:00",
    "end_time": "2026-10-08T21:40:33+08:00",
}


def peak_positions(path: str) -> Floats:
    """Return 2theta of the five highest local maxima of a pattern written by :func:`write_scan`; for checks."""
    with h5py.File(path, "r") as file:
        angle, counts = file["entry/data/polar_angle"][...], file["entry/data/data"][...]
    inner = np.flatnonzero((counts[1:-1] > counts[:-2]) & (counts[1:-1] >= counts[2:])) + 1
    best = inner[np.argsort(counts[inner])[::-1][:5]]
    return np.sort(np.asarray(angle[best], np.float64))
