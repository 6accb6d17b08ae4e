"""From counts to a slice: transmission, outliers, rings, centre of rotation, filtered back projection. Arrays in, arrays out.

A sinogram is (angles, columns) of line integrals. Slices are square, attenuation per pixel, row = y, column = x, where the detector
column of a point is ``centre + x cos(angle) + y sin(angle)``.
"""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage, sparse, special
from skimage.registration import phase_cross_correlation
from skimage.transform import iradon

from beamdesk_science.scan import Rows

FILTERS = ("ramp", "shepp-logan", "cosine", "hamming", "hann")
_SMALLEST_TRANSMISSION = 1e-3
_KERNEL_WIDTH = 5
_KERNEL_BETA = 11.0
"""Kaiser-Bessel kernel for twofold oversampling: aliasing below 1e-4 (Jackson et al., IEEE TMI 10, 1991)."""


def line_integrals(rows: Rows) -> np.ndarray:
    """Return -ln of the transmission (angles, rows, columns), with bright outliers (direct hits of the camera) removed."""
    beam = np.maximum(rows.flat - rows.dark, 1.0)
    transmission = (rows.projections - rows.dark) / beam
    if len(transmission) >= 3:
        _remove_hits(transmission)
    return -np.log(np.clip(transmission, _SMALLEST_TRANSMISSION, None))


def _remove_hits(transmission: np.ndarray, excess: float = 0.15) -> None:
    """Replace, in place, values far above their neighbours in angle by the larger neighbour."""
    before = np.concatenate([transmission[1:2], transmission[:-1]])
    after = np.concatenate([transmission[1:], transmission[-2:-1]])
    expected = np.maximum(before, after)
    hit = transmission > expected + excess
    transmission[hit] = expected[hit]


def find_centre(first: Rows, opposite: Rows) -> float:
    """Return the rotation axis's column from two projections 180 degrees apart (one is the mirror image of the other)."""
    images = [_detail(line_integrals(rows)[0]) for rows in (first, opposite)]
    shift = phase_cross_correlation(images[0], images[1][:, ::-1], upsample_factor=50, normalization=None)[0]
    return float((first.flat.shape[1] - 1) / 2 + shift[1] / 2)


def _detail(image: np.ndarray) -> np.ndarray:
    """Keep structures of a few pixels and fade out at the sides, so that neither noise nor borders decide."""
    band = ndimage.gaussian_filter(image, 1.0) - ndimage.gaussian_filter(image, 12.0)
    return band * np.hanning(image.shape[1])[None, :]


def remove_rings(sinogram: np.ndarray, width: int = 5) -> np.ndarray:
    """Return the sinogram without stripes: what the mean over all angles has and its running median has not.

    Boin and Haibel, Optics Express 14, 12071 (2006), with a median over few columns: a bad column is narrow, and a capillary's wall
    (which is the same at all angles, too) must survive.
    """
    profile = sinogram.mean(axis=0)
    return sinogram - (profile - ndimage.median_filter(profile, width, mode="nearest"))[None, :]


def centred(sinogram: np.ndarray, centre: float) -> np.ndarray:
    """Return the sinogram moved so that the rotation axis is at column ``columns // 2``; outside is air."""
    columns = sinogram.shape[1]
    source = np.arange(columns) - columns // 2 + centre
    grid = np.arange(columns)
    return np.stack([np.interp(source, grid, line, left=0.0, right=0.0) for line in sinogram])


def back_project(sinogram: np.ndarray, angles: np.ndarray, filter_name: str = "shepp-logan") -> np.ndarray:
    """Filtered back projection of a centred sinogram (angles in degrees) by scikit-image."""
    # scikit-image's y runs against the rows; the axis stays at row columns // 2 of an even number, too.
    flipped = np.flipud(iradon(sinogram.T, theta=angles, filter_name=filter_name, circle=True))
    return (np.roll(flipped, 1, axis=0) if len(flipped) % 2 == 0 else flipped).astype(np.float32)


class Gridder:
    """Direct Fourier reconstruction by gridding: the same result as filtered back projection, an order of magnitude sooner.

    Each projection's spectrum is a line through the slice's spectrum; samples, weighted by the filter, are spread on a twice
    oversampled grid by a Kaiser-Bessel kernel, transformed, and divided by the kernel's own transform. The spreading depends on
    geometry only, so it is a sparse matrix made once for all slices. (Method of gridrec: Dowd et al., SPIE 3772, 1999.)
    """

    def __init__(self, columns: int, angles: np.ndarray, filter_name: str = "shepp-logan") -> None:
        self._columns = columns
        self._size = size = 2 * columns
        self._weights = _filter(size, filter_name) * (np.pi / (2 * len(angles)))
        self._matrix = self._spreading(np.deg2rad(angles))
        self._deapodise = self._kernel_transform()

    def _spreading(self, radians: np.ndarray) -> sparse.csr_matrix:
        size = self._size
        radius = fft.fftfreq(size, 1 / size)
        x = np.outer(np.cos(radians), radius).ravel()
        y = np.outer(np.sin(radians), radius).ravel()
        reach = np.arange(_KERNEL_WIDTH) - _KERNEL_WIDTH // 2
        columns, weight_x = _neighbours(x, reach)
        rows, weight_y = _neighbours(y, reach)
        cells = (rows[:, :, None] % size) * size + columns[:, None, :] % size
        weights = (weight_y[:, :, None] * weight_x[:, None, :]).astype(np.float32)
        samples = np.repeat(np.arange(len(x), dtype=np.int32), len(reach) ** 2)
        return sparse.csr_matrix((weights.ravel(), (cells.ravel().astype(np.int32), samples)), shape=(size * size, len(x)))

    def _kernel_transform(self) -> np.ndarray:
        at = (np.arange(self._columns) - self._columns // 2) / self._size
        inside = np.sqrt((_KERNEL_BETA**2 - (np.pi * _KERNEL_WIDTH * at) ** 2).astype(complex))
        one = np.real(np.sinh(inside) / inside) * _KERNEL_WIDTH / special.i0(_KERNEL_BETA)
        return np.outer(one, one)

    def __call__(self, sinogram: np.ndarray) -> np.ndarray:
        """Reconstruct a centred sinogram."""
        columns, size = self._columns, self._size
        padded = np.zeros((len(sinogram), size), np.float32)
        padded[:, : columns - columns // 2] = sinogram[:, columns // 2 :]
        padded[:, size - columns // 2 :] = sinogram[:, : columns // 2]
        spectrum = (fft.fft(padded, axis=1) * self._weights).astype(np.complex64)
        grid = (self._matrix @ spectrum.ravel()).reshape(size, size)
        image = np.real(fft.fftshift(fft.ifft2(grid)))
        start = size // 2 - columns // 2
        slice_ = image[start : start + columns, start : start + columns] * size / self._deapodise
        return _circle(slice_).astype(np.float32)


def _neighbours(at: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the grid lines around each position and the kernel's weight on them."""
    near = np.rint(at).astype(np.int64)[:, None] + reach
    distance = 2 * (at[:, None] - near) / _KERNEL_WIDTH
    return near, special.i0(_KERNEL_BETA * np.sqrt(np.clip(1 - distance**2, 0, None))) / special.i0(_KERNEL_BETA)


def _filter(size: int, name: str) -> np.ndarray:
    """Return the ramp (from its band-limited kernel, so that the mean is right: Kak and Slaney, 3.3) times a window."""
    odd = np.arange(1, size, 2)
    kernel = np.zeros(size)
    kernel[0] = 0.25
    kernel[odd] = -1 / (np.pi * np.minimum(odd, size - odd)) ** 2
    ramp = 2 * np.real(fft.fft(kernel))
    frequency = np.abs(fft.fftfreq(size))
    windows = {
        "ramp": np.ones(size),
        "shepp-logan": np.sinc(frequency),
        "cosine": np.cos(np.pi * frequency),
        "hamming": 0.54 + 0.46 * np.cos(2 * np.pi * frequency),
        "hann": 0.5 + 0.5 * np.cos(2 * np.pi * frequency),
    }
    return ramp * windows[name]


def _circle(image: np.ndarray) -> np.ndarray:
    """Set what no projection saw to zero."""
    middle = image.shape[0] // 2
    span = np.arange(image.shape[0]) - middle
    return np.where(span[:, None] ** 2 + span[None, :] ** 2 <= middle**2, image, 0)
