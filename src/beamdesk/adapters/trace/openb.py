"""The openb trace (Alibaba, cluster-trace-gpu-v2023): hosts and pods as CSV.

Q. Weng et al., USENIX ATC'23. The files are for research use and are not part of Beamdesk: give their folder on the command line.
Cards may be shared in thousandths; memory of cards is public for some models and assumed for those that the trace hides (G2, G3).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from beamdesk.domain.errors import Invalid
from beamdesk.scheduling.cards import Card, CardMode
from beamdesk.scheduling.errors import SchedulingError
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.request import CardDemand, Request

SPEC_SHEETS = {
    # model: memory MiB, CUDA cores, GB/s, boost MHz
    "P100": (16384, 3584, 732, 1303),
    "T4": (16384, 2560, 320, 1590),
    "V100M16": (16384, 5120, 900, 1530),
    "V100M32": (32768, 5120, 900, 1530),
    "A10": (24576, 9216, 600, 1695),
    "G2": (20480, 4096, 600, 1500),  # undisclosed: assumed
    "G3": (30720, 6912, 1200, 1410),  # undisclosed: assumed
}


def read_hosts(path: Path) -> list[HostFacts]:
    """Read a node list.

    Raises:
        Invalid: a missing file or a malformed line; the message names it.
    """
    hosts = []
    for place, row in _rows(path, {"sn", "cpu_milli", "memory_mib", "gpu", "model"}):
        model, count = row["model"], _number(place, row, "gpu")
        if count and model not in SPEC_SHEETS:
            raise Invalid(f"{place}: unknown model {model!r}.", field="model")
        cards = tuple(_card(number, model) for number in range(count))
        try:
            hosts.append(HostFacts(row["sn"], _number(place, row, "cpu_milli"), _number(place, row, "memory_mib"), cards=cards))
        except SchedulingError as error:
            raise Invalid(f"{place}: {error.message}", field=error.field) from error
    return hosts


def _card(number: int, model: str) -> Card:
    memory, cores, bandwidth, clock = SPEC_SHEETS[model]
    return Card(f"gpu-{number:02d}", model, memory, cores, bandwidth, clock, mode=CardMode.HOST)


def read_requests(path: Path) -> list[Request]:
    """Read a pod list. A pod that asks for cards but for no part of them asks for none.

    Raises:
        Invalid: a missing file or a malformed line; the message names it.
    """
    requests = []
    for place, row in _rows(path, {"name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"}):
        count, share = _number(place, row, "num_gpu"), min(_number(place, row, "gpu_milli"), 1000)
        models = frozenset(filter(None, (row.get("gpu_spec") or "").split("|")))
        try:
            demand = CardDemand(count, share, models=models, container=True) if count and share else None
            requests.append(Request(row["name"], _number(place, row, "cpu_milli"), _number(place, row, "memory_mib"), cards=demand))
        except SchedulingError as error:
            raise Invalid(f"{place}: {error.message}", field=error.field) from error
    return requests


def _rows(path: Path, needed: set[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines)
            if missing := needed - set(reader.fieldnames or ()):
                raise Invalid(f"{path}: the header lacks {', '.join(sorted(missing))}.")
            for row in reader:
                yield f"{path}, line {reader.line_num}", row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Invalid(f"{path} cannot be read: {error}") from error


def _number(place: str, row: Mapping[str, str], field: str) -> int:
    text = row[field] or "0"
    if not (text.isascii() and text.isdigit()):
        raise Invalid(f"{place}: {field} must be a whole number, not {text!r}.", field=field)
    return int(text)
