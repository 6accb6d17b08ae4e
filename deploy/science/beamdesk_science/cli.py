"""The command ``beamdesk-reconstruct``: arguments, progress and exit codes. 0 = done, 1 = failed, 2 = wrong use, 130 = stopped."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from beamdesk_science import __version__
from beamdesk_science.output import OutputError, Provenance, Result, default_folder, free_folder
from beamdesk_science.pipeline import ALGORITHMS, Settings, centre_of, parse_slices, reconstruct
from beamdesk_science.scan import Scan, ScanError, find_newest

_EXAMPLES = """examples:
  beamdesk-reconstruct                                   the central slice of the newest scan in /data
  beamdesk-reconstruct scan.nxs --slices 200:220         twenty slices
  beamdesk-reconstruct scan.nxs --slices all             everything
  beamdesk-reconstruct scan.nxs --centre 259.2 --out ~/rec"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="beamdesk-reconstruct",
        description="Reconstruct slices of a tomography scan (NXtomo) by filtered back projection.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scan", nargs="?", type=Path, help="the scan's file (default: the newest in /data/*/raw)")
    parser.add_argument("--slices", default="centre", help="centre, all, N, FIRST:LAST or several with commas (default: centre)")
    parser.add_argument(
        "--centre", "--center", default="auto", metavar="COLUMN", help="column of the rotation axis (default: auto)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="new folder for the result (default: processed/SCAN-rec)")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="auto", help="auto: fbp for a few slices, gridrec for many")
    parser.add_argument("--filter", choices=("ramp", "shepp-logan", "cosine", "hamming", "hann"), default="shepp-logan")
    parser.add_argument("--keep-rings", action="store_true", help="do not remove ring artefacts")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: one for each CPU)")
    parser.add_argument("--data", type=Path, default=Path("/data"), help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    os.umask(0o007)  # results belong to the team: the group may read and write, others nothing
    signal.signal(signal.SIGTERM, _stop)
    try:
        return _run(options)
    except ValueError as error:
        return _fail(str(error), 2)
    except (ScanError, OutputError) as error:
        return _fail(str(error), 1)
    except MemoryError:
        return _fail("not enough memory; choose fewer --workers or slices", 1)
    except KeyboardInterrupt:
        return _fail("stopped; nothing was left behind", 130)


def _stop(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"beamdesk-reconstruct: {text}\n")
    return code


def _run(options: argparse.Namespace) -> int:
    started = time.monotonic()
    path: Path = options.scan or find_newest(options.data)
    with Scan(path) as scan:
        slices = parse_slices(options.slices, scan.rows)
        _say(f"Scan    {path}\n        {scan.title}: {len(scan.angles)} projections of {scan.columns} x {scan.rows}")
        centre = _centre(options.centre, scan)
        _say(f"Axis    column {centre:.2f}{' (found)' if options.centre == 'auto' else ''}")
        settings = Settings(slices, centre, options.algorithm, options.filter, not options.keep_rings, options.workers)
        target = (options.out or free_folder(default_folder(path))).expanduser().absolute()
        if target.exists():
            raise OutputError(f"{target} exists already; name a new folder")
        _say(f"Slices  {_count(slices)}, {settings.chosen_algorithm()}, {settings.filter_name} filter")
        with Result(target, _provenance(scan, settings, centre)) as result:
            progress = Progress(len(slices))
            for number, slice_ in reconstruct(scan, settings, centre):
                result.add(number, slice_)
                progress.step()
    _say(f"Result  {target}\n        in {time.monotonic() - started:.1f} s")
    _say(f"Look    beamdesk-slices {target / target.name}.nxs")
    return 0


def _centre(text: str, scan: Scan) -> float:
    if text == "auto":
        return centre_of(scan)
    try:
        centre = float(text)
    except ValueError:
        raise ValueError(f'--centre takes a column or "auto", not "{text}"') from None
    if not 0 <= centre < scan.columns:
        raise ValueError(f"--centre must lie between 0 and {scan.columns - 1}")
    return centre


def _count(slices: tuple[int, ...]) -> str:
    return f"number {slices[0]}" if len(slices) == 1 else f"{len(slices)} of them, {slices[0]} to {slices[-1]}"


def _provenance(scan: Scan, settings: Settings, centre: float) -> Provenance:
    parameters: dict[str, str | float | int | bool] = {
        "algorithm": settings.chosen_algorithm(),
        "filter": settings.filter_name,
        "centre": centre,
        "centre_found": settings.centre is None,
        "ring_removal": settings.rings,
    }
    return Provenance(scan.path.absolute(), scan.title, scan.sample, scan.columns, settings.slices, scan.pixel_mm, parameters)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Progress:
    """A bar with the time that is left; on anything but a terminal, a line every tenth."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._started = total, 0, time.monotonic()
        self._bar = sys.stdout.isatty()
        self._draw()

    def step(self) -> None:
        """Count one more as done."""
        self._done += 1
        self._draw()

    def _draw(self) -> None:
        share = self._done / self._total
        left = (time.monotonic() - self._started) * (1 / share - 1) if share else 0
        text = f"{self._done}/{self._total}" + (f", {left:.0f} s left" if 0 < share < 1 else "")
        if self._bar:
            width = int(30 * share)
            sys.stdout.write(f"\r        [{'#' * width}{'.' * (30 - width)}] {text}   " + ("\n" if share == 1 else ""))
            sys.stdout.flush()
        elif self._done and (self._done * 10 // self._total > (self._done - 1) * 10 // self._total):
            _say(f"        {text}")


if __name__ == "__main__":
    sys.exit(main())
