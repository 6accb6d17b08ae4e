"""Write an X-ray absorption scan of a copper foil at the Cu K edge: NXxas and the column file that XAFS programs read.

mu(E) = Victoreen-like background + edge step (arctangent and near-edge resonances) x (1 + chi(k)); chi(k) is the EXAFS equation
summed over the first shells of fcc copper with smooth amplitude and phase functions: plausible, not a FEFF calculation. I0 decays
with the ring current, It = I0 exp(-mu d), both with counting noise. Energies in eV, distances in angstrom.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from beamdesk.adapters.demo import nexus

Floats = NDArray[np.float64]

EDGE_EV: Final = 8979.0
_WAVENUMBER = 0.2624682843
"""2m/hbar^2 in 1/(eV A^2): k = sqrt(_WAVENUMBER * (E - E0))."""

_SHELLS = ((2.556, 12, 0.0086, 1.0), (3.615, 6, 0.0120, 0.9), (4.427, 24, 0.0125, 0.8), (5.112, 12, 0.0130, 1.5))
"""Distance, atoms, mean square displacement, weight (the fourth shell is enhanced by forward focusing)."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Energy, both ion chambers (counts) and the absorption that follows from them."""

    energy: Floats
    i0: Floats
    it: Floats

    @property
    def absorption(self) -> Floats:
        """The product of mu and thickness, ln(I0 / It)."""
        return np.asarray(np.log(self.i0 / self.it))


def energies() -> Floats:
    """Return the usual three-part grid: coarse before the edge, 0.4 eV across it, even in k up to 16 / angstrom."""
    far = np.arange(EDGE_EV - 180, EDGE_EV - 20, 5.0)
    near = np.arange(EDGE_EV - 20, EDGE_EV + 30, 0.4)
    k = np.arange(np.sqrt(30 * _WAVENUMBER), 16.0, 0.04)
    return np.concatenate([far, near, EDGE_EV + k**2 / _WAVENUMBER])


def chi(k: Floats) -> Floats:
    """Return the EXAFS of fcc copper for ``k`` > 0 in 1/angstrom."""
    safe = np.maximum(k, 0.3)
    amplitude = 0.85 * 0.9 / (1 + ((safe - 6.8) / 5.2) ** 2)
    phase = -0.55 * safe + 5.2 - 2.4 * np.exp(-safe / 3.0)
    path = safe / 0.9 + 4.0 * np.exp(-safe / 2.0)
    total = np.zeros_like(safe)
    for distance, atoms, displacement, weight in _SHELLS:
        damping = np.exp(-2 * displacement * safe**2 - 2 * distance / path)
        total += weight * atoms * amplitude * damping / (safe * distance**2) * np.sin(2 * safe * distance + phase)
    return np.asarray(total * (1 - np.exp(-((safe / 2.2) ** 4))))


def absorption(energy: Floats) -> Floats:
    """Return mu d of a 6 micrometre foil."""
    above = energy - EDGE_EV
    k = np.sqrt(np.maximum(above, 0) * _WAVENUMBER)
    edge = 0.5 + np.arctan((above - 3.0) / 1.9) / np.pi
    resonances = 0.24 * np.exp(-(((above - 1.2) / 1.6) ** 2)) + 0.33 * np.exp(-(((above - 15.5) / 4.2) ** 2))
    resonances += 0.20 * np.exp(-(((above - 23.5) / 4.8) ** 2)) - 0.10 * np.exp(-(((above - 8.0) / 3.0) ** 2))
    background = 0.42 * (EDGE_EV / energy) ** 2.8
    decline = (EDGE_EV / energy) ** np.where(above > 0, 2.6, 0.0)
    return np.asarray(background + 1.32 * decline * (edge + resonances * (above > -12) + chi(k) * (above > 0)))


def measure(seed: int = 212) -> Measurement:
    """Return one scan with counting noise and a storage ring that is topped up."""
    rng = np.random.default_rng(seed)
    energy = energies()
    step = np.arange(len(energy))
    i0 = 2.4e7 * (1 - 0.008 * ((step / 210) % 1)) * (1 + 0.04 * (energy - EDGE_EV) / 1000)
    it = rng.poisson(i0 * np.exp(-absorption(energy))).astype(np.float64)
    return Measurement(energy, rng.poisson(i0).astype(np.float64), it)


def write_scan(path: str, scan: Measurement) -> None:
    """Write an NXxas file whose default plot is the absorption over the energy."""
    with nexus.new_file(path) as file:
        entry = file["entry"]
        for name, value in _ENTRY.items():
            nexus.field(entry, name, value)
        instrument = nexus.group(entry, "instrument", "NXinstrument", name="B8 Powder diffraction and XAFS")
        source = {"name": "HEPS", "type": "Synchrotron X-ray Source", "probe": "x-ray"}
        nexus.group(instrument, "source", "NXsource", **source)
        mono = nexus.group(instrument, "monochromator", "NXmonochromator", description="Si(111) double crystal")
        energy = nexus.field(mono, "energy", scan.energy, "eV", long_name="Energy (eV)")
        incoming = nexus.group(instrument, "incoming_beam", "NXdetector", description="ion chamber I0, N2")
        i0 = nexus.field(incoming, "data", scan.i0, "counts")
        absorbed = nexus.group(instrument, "absorbed_beam", "NXdetector", description="ion chamber It, N2/Ar")
        it = nexus.field(absorbed, "data", scan.it, "counts")
        sample = {"name": "Cu foil, 6 um", "chemical_formula": "Cu"}
        nexus.group(entry, "sample", "NXsample", **sample)
        monitor = nexus.group(entry, "monitor", "NXmonitor", mode="timer", preset=(1.0, "s"))
        nexus.link(monitor, "data", i0)
        shown = nexus.plot(entry, "data", "mu", ["energy"], "Cu foil, K edge, transmission")
        nexus.field(shown, "mu", scan.absorption, long_name="μd = ln(I0/It)")
        nexus.field(shown, "mode", "Transmission")
        for name, target in (("energy", energy), ("absorbed_beam", it), ("incoming_beam", i0)):
            nexus.link(shown, name, target)
        entry.attrs["default"] = "data"


def write_columns(path: str, scan: Measurement) -> None:
    """Write the scan as text in the XAFS Data Interchange format (XDI 1.0)."""
    table = np.column_stack([scan.energy, scan.i0, scan.it, scan.absorption])
    np.savetxt(path, table, fmt=("%10.3f", "%12.0f", "%12.0f", "%10.6f"), header=_XDI, comments="# ", encoding="ascii")


_XDI = """XDI/1.0
Element.symbol: Cu
Element.edge: K
Mono.name: Si(111)
Beamline.name: B8
Facility.name: HEPS
Sample.name: Cu foil, 6 um
Scan.start_time: 2026-10-09T02:14:40+08:00
Column.1: energy eV
Column.2: i0
Column.3: itrans
Column.4: mutrans
///
 transmission, room temperature, 1 s a point
---
energy i0 itrans mutrans"""

_ENTRY = {
    "definition": "NXxas",
    "title": "Cu foil, K edge, transmission",
    "experiment_identifier": "HEPS-2026-0212",
    "start_time": "2026-10-09T02:14:40+08:00",
    "end_time": "2026-10-09T02:26:12+08:00",
}
