"""Make the demo's sample data: ``python -m beamdesk.adapters.demo.data --root DIR``.

Idempotent: what exists is left alone (folders get their owners and modes again), so a second run takes no time. Runs as root to
give files to the data acquisition and the experiments' groups; as a plain user it makes the same files and leaves them his own.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from beamdesk.adapters.demo import diffraction, tomography, xafs
from beamdesk.adapters.demo.layout import Owners, Place, clear_leftovers
from beamdesk.adapters.demo.people import DAQ_UID, DIFFRACTION, EXPERIMENTS, IMAGING
from beamdesk.domain.experiment import Experiment

Say = Callable[[str], None]

TOMOGRAPHY_NAME: Final = "scan_0001_sandstone.nxs"


def make(root: Path, owners: Owners, *, workers: int = 1, size: int = 512, say: Say) -> None:
    """Make everything that is missing beneath ``root``; ``size`` scales the tomography scan (512 is the real one)."""
    if not root.exists():
        root.mkdir(parents=True)
        root.chmod(0o755)
    clear_leftovers(root)
    scan = replace(tomography.Scan(), size=size, projections=max(8, 360 * size // 512))
    for experiment in EXPERIMENTS:
        place = Place(root, experiment, owners)
        place.make_folders()
        for folder, name, write in _files(experiment, place, scan, workers, say):
            started = time.monotonic()
            made = place.put(folder, name, write)
            size_mb = (folder / name).stat().st_size / 1e6
            how = f"made in {time.monotonic() - started:.1f} s" if made else "is there"
            say(f"[{experiment.folder}] {(folder / name).relative_to(place.folder)}: {how}, {size_mb:.1f} MB")


_File = tuple[Path, str, Callable[[str], None]]


def _files(experiment: Experiment, place: Place, scan: tomography.Scan, workers: int, say: Say) -> list[_File]:
    readme: _File = (place.folder, "README.txt", lambda path: _write_text(path, _README[experiment.id]))
    if experiment is IMAGING:
        progress = _progress(f"[{experiment.folder}] {TOMOGRAPHY_NAME}", say)
        return [
            readme,
            (place.raw, TOMOGRAPHY_NAME, lambda path: tomography.write_scan(path, scan, workers=workers, progress=progress)),
        ]
    if experiment is DIFFRACTION:
        setup, absorption = diffraction.Setup.of_size(2 * scan.size), xafs.measure()
        return [
            readme,
            (place.raw, "ceo2_0001.nxs", lambda path: diffraction.write_scan(path, setup)),
            (place.raw, "ceo2_0001_detector.tif", lambda path: diffraction.write_image(path, setup)),
            (place.raw, "cu_foil_0002.nxs", lambda path: xafs.write_scan(path, absorption)),
            (place.raw, "cu_foil_0002.xdi", lambda path: xafs.write_columns(path, absorption)),
        ]
    return [readme]


def _progress(name: str, say: Say) -> tomography.Progress:
    """Return a progress report: a line every tenth, with the time that is left."""
    started = time.monotonic()

    def report(done: int, total: int) -> None:
        if done * 10 // total > (done - 1) * 10 // total and done < total:
            left = (time.monotonic() - started) / done * (total - done)
            say(f"{name}: {100 * done // total} %, about {left:.0f} s left")

    return report


def _write_text(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8")


_README: Final = {
    IMAGING.id: f"""HEPS-2026-0147  Pore network of a fibre-bearing sandstone          Beamline B7, Hard X-ray imaging
含纤维砂岩的孔隙网络

raw/        what the instrument wrote; read only
  {TOMOGRAPHY_NAME}   NXtomo: 360 projections over 180 degrees, 20 flats, 10 darks, 512 x 512, 25 keV, 3.25 um pixels
processed/  yours and your team's; everyone in the experiment can write here

Reconstruct in a desktop of the image "Imaging beamline":
  beamdesk-reconstruct            the central slice of the newest scan
  beamdesk-slices                 look at projections and slices

These are sample data: a computed specimen with real physics (absorption, photon noise, rings, an axis that is off the centre).
""",
    DIFFRACTION.id: """HEPS-2026-0212  Copper on ceria: structure and oxidation state     Beamline B8, Powder diffraction and XAFS
铜/氧化铈的结构与价态

raw/        what the instruments wrote; read only
  ceo2_0001.nxs           NXmonopd: CeO2 pattern at 30 keV and the detector image that it was integrated from
  ceo2_0001_detector.tif  the same image for programs that read TIFF (counts; -1 = no pixel)
  cu_foil_0002.nxs        NXxas: copper foil, K edge, transmission
  cu_foil_0002.xdi        the same scan as text (XDI)
processed/  yours and your team's; everyone in the experiment can write here

These are sample data, computed with counting noise from crystal structure and the EXAFS equation.
""",
}


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="beamdesk.adapters.demo.data", description="Make the sample data of a demo deployment.")
    parser.add_argument("--root", type=Path, required=True, help="the data root; made where it does not exist")
    parser.add_argument("--owner-uid", type=int, default=DAQ_UID, help="who owns raw data (default: %(default)s)")
    parser.add_argument("--no-chown", action="store_true", help="leave everything to the account that runs this")
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1), help="processes (default: %(default)s)")
    parser.add_argument(
        "--size", type=int, default=512, help="columns of the tomography camera, a multiple of 4 (default: %(default)s)"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the program; 0 = all there, 1 = it could not be written, 2 = wrong arguments."""
    parser = _arguments()
    options = parser.parse_args(arguments)
    if options.size < 16 or options.size % 4:
        parser.error("--size must be a multiple of 4, at least 16")
    change = not options.no_chown and os.geteuid() == 0
    if not change:
        _say("Not root (or --no-chown): files stay with this account, groups are not set.")
    try:
        make(options.root, Owners(options.owner_uid, change), workers=options.workers, size=options.size, say=_say)
    except OSError as error:
        sys.stderr.write(f"The sample data could not be written: {error}\n")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
