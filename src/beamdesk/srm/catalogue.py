"""Cards by PCI id: what a card bound to vfio-pci is, which no driver can be asked then. Data with its sources: `cards.csv`.

Memory is as sold (48 GB = 49152 MiB), the same for a card in whatever mode: NVML's number is smaller by what the driver keeps, and
a request for 48 GiB must not depend on who drives the card.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from beamdesk.srm.errors import ConfigError

SHIPPED = Path(__file__).with_name("cards.csv")
COLUMNS = (
    "vendor", "device", "subsystem", "model", "memory_gib", "cores", "bandwidth_gbs", "clock_mhz", "fp32_gflops",
    "nvenc", "ecc", "source",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Known:
    """One row. ``subsystem`` is empty where the device id alone says what it is; ``clock_mhz`` is the boost clock."""

    vendor: str
    device: str
    subsystem: str
    model: str
    memory_mib: int
    cores: int
    bandwidth_gbs: int
    clock_mhz: int
    fp32_gflops: int
    nvenc: bool
    ecc: bool
    source: str


class Catalogue:
    """Rows by PCI id."""

    def __init__(self, rows: tuple[Known, ...]) -> None:
        self.rows = rows
        self._by_id = {(row.vendor, row.device, row.subsystem): row for row in rows}

    def find(self, vendor: str, device: str, subsystem: str) -> Known | None:
        """Return the row of a card, by its subsystem's device id where that matters."""
        return self._by_id.get((vendor, device, subsystem)) or self._by_id.get((vendor, device, ""))


@lru_cache(maxsize=4)
def load(own: Path | None = None) -> Catalogue:
    """Read the shipped catalogue, and a site's own after it: its rows win.

    Raises:
        ConfigError: names the file and the line.
    """
    rows = {(row.vendor, row.device, row.subsystem): row for row in _read(SHIPPED)}
    if own is not None:
        rows |= {(row.vendor, row.device, row.subsystem): row for row in _read(own)}
    return Catalogue(tuple(rows.values()))


def _read(path: Path) -> list[Known]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(line for line in file if not line.startswith("#"))
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ConfigError(f"{path}: the first line must be {','.join(COLUMNS)}")
            return [_row(path, number, row) for number, row in enumerate(reader, 1)]
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _row(path: Path, number: int, row: dict[str, str]) -> Known:
    try:
        return Known(
            vendor=row["vendor"],
            device=row["device"],
            subsystem=row["subsystem"],
            model=row["model"],
            memory_mib=1024 * int(row["memory_gib"]),
            cores=int(row["cores"]),
            bandwidth_gbs=int(row["bandwidth_gbs"]),
            clock_mhz=int(row["clock_mhz"]),
            fp32_gflops=int(row["fp32_gflops"]),
            nvenc={"yes": True, "no": False}[row["nvenc"]],
            ecc={"yes": True, "no": False}[row["ecc"]],
            source=row["source"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: row {number} is malformed") from error
