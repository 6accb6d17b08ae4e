"""A rock-like sample whose parallel projections are known exactly.

The sample is a sum of ellipsoids (mineral grains, gas pores, needle-shaped fibres, a crack, dense specks) in a cylinder of clay
within a glass capillary. Line integrals through ellipsoids and cylinders have closed forms, so a projection carries no
discretisation error and needs no volume. Lengths are detector pixels; the rotation axis is the z axis. No files here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CLAY = 0.0017
_QUARTZ, _FELDSPAR, _CALCITE = 0.0009, 0.0014, 0.0024
"""Attenuation per pixel of the clay, and how much more the minerals that replace it have."""


@dataclass(frozen=True, slots=True)
class Phantom:
    """Ellipsoids at ``centres`` (n, 3) with surfaces x' S x = 1, ``shapes`` S (n, 3, 3), that add ``attenuation`` (n)."""

    centres: Floats
    shapes: Floats
    attenuation: Floats
    cylinders: tuple[tuple[float, float], ...]
    """(radius, added attenuation) of endless cylinders around the axis."""

    def project(self, angle: float, shape: tuple[int, int], axis_column: float) -> NDArray[np.float32]:
        """Return the line integrals at ``angle`` (radians) on a detector of ``shape``, the axis at ``axis_column``."""
        rows, columns = shape
        image = np.zeros(shape, np.float32)
        u = np.arange(columns) - axis_column
        for radius, attenuation in self.cylinders:
            image += (2 * attenuation * np.sqrt(np.maximum(radius**2 - u**2, 0))).astype(np.float32)
        across = np.array([np.cos(angle), np.sin(angle), 0.0])
        along = np.array([-np.sin(angle), np.cos(angle), 0.0])
        basis = np.stack([across, [0.0, 0.0, 1.0], along], axis=1)
        footprints = _footprints(basis.T @ self.shapes @ basis)
        middles = np.stack([self.centres @ across + axis_column, self.centres[:, 2] + (rows - 1) / 2], axis=1)
        for (cu, cv), (quu, quv, qvv, peak), weight in zip(middles, footprints, self.attenuation, strict=True):
            _add_footprint(image, cu, cv, quu, quv, qvv, weight * peak)
        return image

    def section(self, z: float, columns: int) -> NDArray[np.float32]:
        """Return the attenuation in the horizontal plane at height ``z``: the truth that a reconstruction should find."""
        middle = (columns - 1) / 2
        span = np.arange(columns) - middle
        x, y = np.meshgrid(span, span)
        plane = np.zeros((columns, columns), np.float32)
        for radius, attenuation in self.cylinders:
            plane[x**2 + y**2 <= radius**2] += attenuation
        for centre, shape, weight in zip(self.centres, self.shapes, self.attenuation, strict=True):
            reach = np.sqrt(np.diag(np.linalg.inv(shape)))
            if abs(z - centre[2]) > reach[2]:
                continue
            first = np.maximum(np.floor(centre[:2] - reach[:2] + middle), 0).astype(int)
            last = np.maximum(np.ceil(centre[:2] + reach[:2] + middle) + 1, 0).astype(int)
            part = (slice(first[1], last[1]), slice(first[0], last[0]))
            offset = np.stack([x[part] - centre[0], y[part] - centre[1], np.full_like(x[part], z - centre[2])], axis=-1)
            plane[part][np.einsum("...i,ij,...j", offset, shape, offset) <= 1] += weight
        return plane


def _footprints(shapes: Floats) -> Floats:
    """Reduce ellipsoids in detector axes (u, v, beam) to ellipses (quu, quv, qvv) and the chord through their middle."""
    depth = shapes[:, 2, 2]
    quadric = shapes[:, :2, :2] - shapes[:, :2, 2, None] * shapes[:, None, 2, :2] / depth[:, None, None]
    return np.stack([quadric[:, 0, 0], quadric[:, 0, 1], quadric[:, 1, 1], 2 / np.sqrt(depth)], axis=1)


def _add_footprint(image: NDArray[np.float32], cu: float, cv: float, quu: float, quv: float, qvv: float, weight: float) -> None:
    determinant = quu * qvv - quv**2
    half_u, half_v = np.sqrt(qvv / determinant), np.sqrt(quu / determinant)
    left, right = max(0, int(np.ceil(cu - half_u))), min(image.shape[1], int(cu + half_u) + 1)
    top, bottom = max(0, int(np.ceil(cv - half_v))), min(image.shape[0], int(cv + half_v) + 1)
    if left >= right or top >= bottom:
        return
    du = (np.arange(left, right) - cu).astype(np.float32)
    dv = (np.arange(top, bottom) - cv).astype(np.float32)[:, None]
    inside = np.float32(1) - (np.float32(quu) * du * du + np.float32(qvv) * dv * dv)
    inside -= np.float32(2 * quv) * dv * du
    np.maximum(inside, 0, out=inside)
    image[top:bottom, left:right] += np.float32(weight) * np.sqrt(inside)


def sandstone(size: int, seed: int = 147) -> Phantom:
    """Return the demo sample, scaled so that its capillary fills a detector ``size`` pixels wide."""
    scale = size / 512
    rng = np.random.default_rng(seed)
    pieces = [*_grains(rng), *_pores(rng), *_fibres(rng), *_specks(rng), _crack()]
    centres = np.array([piece[0] for piece in pieces]) * scale
    shapes = np.array([_shape(piece[1], piece[2]) for piece in pieces]) / scale**2
    attenuation = np.array([piece[3] for piece in pieces]) / scale
    glass = 0.0021
    cylinders = ((236.0, glass), (222.0, -glass), (212.0, _CLAY))
    return Phantom(centres, shapes, attenuation, tuple((radius * scale, mu / scale) for radius, mu in cylinders))


_Piece = tuple[Floats, Floats, Floats, float]
"""Centre, half axes, rotation, added attenuation."""


def _shape(axes: Floats, rotation: Floats) -> Floats:
    return np.asarray(rotation @ np.diag(1 / axes**2) @ rotation.T, np.float64)


def _rotation(rng: np.random.Generator) -> Floats:
    """Return a random rotation from a random unit quaternion."""
    w, x, y, z = (quaternion := rng.standard_normal(4)) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _place(rng: np.random.Generator, reach: float) -> Floats:
    """Return a random centre in the core so that a ball of radius ``reach`` stays within the clay."""
    radius, turn = (208 - reach) * np.sqrt(rng.random()), rng.random() * 2 * np.pi
    return np.array([radius * np.cos(turn), radius * np.sin(turn), rng.uniform(-285, 285)])


def _grains(rng: np.random.Generator) -> list[_Piece]:
    """Pack grains by random sequential addition, large ones first; every third has a small pore inside."""
    grains: list[_Piece] = []
    balls = np.zeros((0, 4))
    for size in 46 * np.linspace(1, 0.38, 420) ** 1.6:
        for centre in (_place(rng, size) for _ in range(25)):
            if (np.linalg.norm(balls[:, :3] - centre, axis=1) >= 0.9 * (balls[:, 3] + size)).all():
                break
        else:
            continue
        balls = np.vstack([balls, [*centre, size]])
        mineral = float(rng.choice([_QUARTZ, _FELDSPAR, _CALCITE], p=[0.55, 0.3, 0.15]))
        grains.append((centre, size * np.array([1.0, rng.uniform(0.75, 1.0), rng.uniform(0.7, 0.95)]), _rotation(rng), mineral))
        if len(balls) % 3 == 0:
            hole = size * rng.uniform(0.12, 0.3) * np.array([1.0, 0.8, 0.6])
            grains.append((centre + rng.uniform(-0.2, 0.2, 3) * size, hole, _rotation(rng), -(mineral + _CLAY)))
    return grains


def _pores(rng: np.random.Generator) -> list[_Piece]:
    pores: list[_Piece] = []
    for size in rng.uniform(2.5, 9, 420):
        axes = size * np.array([1.0, rng.uniform(0.5, 1.0), rng.uniform(0.4, 0.8)])
        pores.append((_place(rng, size), axes, _rotation(rng), -0.8 * _CLAY))
    return pores


def _fibres(rng: np.random.Generator) -> list[_Piece]:
    fibres: list[_Piece] = []
    for length in rng.uniform(50, 120, 70):
        thickness = rng.uniform(1.6, 2.6)
        fibres.append((_place(rng, 0.75 * length), np.array([length, thickness, thickness]), _rotation(rng), 0.0028))
    return fibres


def _specks(rng: np.random.Generator) -> list[_Piece]:
    return [(_place(rng, size), np.full(3, size), np.eye(3), 0.011) for size in rng.uniform(1.2, 3.4, 110)]


def _crack() -> _Piece:
    turn, tilt = np.deg2rad(35), np.deg2rad(12)
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    return np.array([-48.0, 66.0, 6.0]), np.array([118.0, 1.8, 150.0]), about_z @ about_x, -0.8 * _CLAY
