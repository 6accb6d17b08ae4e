"""Desktop workloads as JSON lines: a header with the site and its flavors, then one line per arrival in order of time.

    {"format": "beamdesk-workload", "version": 1, "load": 1.05, "warm": 1209600, "hosts": [...], "flavors": {...}}
    {"at": 3671.5, "lease": 21600, "flavor": "gpu-8-32-1"}

Times are seconds from the beginning. `docs/howto/replay-a-trace.md` describes every field. Everything read is checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beamdesk.domain.errors import Invalid
from beamdesk.scheduling.cards import Card
from beamdesk.scheduling.errors import SchedulingError
from beamdesk.scheduling.fragment import Mix, Task
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.replay import Arrival
from beamdesk.scheduling.request import CardDemand, Request

FORMAT, VERSION = "beamdesk-workload", 1


@dataclass(frozen=True, slots=True)
class Flavor:
    """A size on offer; ``share`` = its part of all GPU (or all CPU) requests."""

    name: str
    cpu_milli: int
    memory_mib: int
    cards: CardDemand | None
    share: float

    def request(self) -> Request:
        """Return a request of this size."""
        return Request(self.name, self.cpu_milli, self.memory_mib, cards=self.cards)


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload file. ``load`` names the point on a curve; arrivals before ``warm`` are played but not counted."""

    load: float
    warm: float
    hosts: tuple[HostFacts, ...]
    flavors: tuple[Flavor, ...]
    arrivals: tuple[Arrival, ...]

    def mix(self) -> Mix:
        """Return the typical requests for cards."""
        return tuple(
            Task(one.cpu_milli, one.memory_mib, one.cards, max(1, round(1000 * one.share)))
            for one in self.flavors
            if one.cards is not None
        )


def write(path: Path, workload: Workload) -> None:
    """Write a workload file."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "load": workload.load,
        "warm": workload.warm,
        "hosts": [_host_out(host) for host in workload.hosts],
        "flavors": {one.name: _flavor_out(one) for one in workload.flavors},
    }
    with path.open("w", encoding="utf-8") as lines:
        lines.write(json.dumps(header) + "\n")
        for one in workload.arrivals:
            row = {"at": round(one.at, 3), "lease": round(one.lease, 3), "flavor": one.request.id}
            lines.write(json.dumps(row) + "\n")


def _host_out(host: HostFacts) -> dict[str, object]:
    cards = [
        {name: getattr(card, name) for name in ("address", "model", "memory_mib", "cores", "bandwidth_gbs", "clock_mhz")}
        for card in host.cards
    ]
    return {"name": host.name, "cpu_milli": host.cpu_milli, "memory_mib": host.memory_mib, "cards": cards}


def _flavor_out(one: Flavor) -> dict[str, object]:
    data: dict[str, object] = {"cpu_milli": one.cpu_milli, "memory_mib": one.memory_mib, "share": one.share}
    if one.cards is not None:
        data |= {"cards": one.cards.count, "models": sorted(one.cards.models)}
    return data


def read(path: Path) -> Workload:
    """Read a workload file.

    Raises:
        Invalid: a missing file or a malformed line; the message names it.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            header = _object(path, 1, next(lines, ""))
            return _parse(path, header, lines)
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read: {error}") from error


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise Invalid(f"{path}, line {number}: this is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Invalid(f"{path}, line {number}: an object is expected.")
    return value


def _parse(path: Path, header: dict[str, Any], lines: Iterable[str]) -> Workload:
    if header.get("format") != FORMAT or header.get("version") != VERSION:
        raise Invalid(f"{path} is not a {FORMAT} file of version {VERSION}.", field="format")
    try:
        hosts = tuple(_host_in(host) for host in header["hosts"])
        flavors = {str(name): _flavor_in(str(name), data) for name, data in header["flavors"].items()}
    except (SchedulingError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"{path}, line 1: {error!r}") from error
    arrivals, last = [], 0.0
    for number, line in enumerate(lines, start=2):
        arrival = _arrival_in(f"{path}, line {number}", _object(path, number, line), flavors)
        if arrival.at < last:
            raise Invalid(f"{path}, line {number}: arrivals must be in order of time.", field="at")
        last = arrival.at
        arrivals.append(arrival)
    load, warm = (_seconds(f"{path}, line 1", header, field) for field in ("load", "warm"))
    return Workload(load, warm, hosts, tuple(flavors.values()), tuple(arrivals))


def _host_in(data: Mapping[str, Any]) -> HostFacts:
    cards = tuple(Card(**card) for card in data.get("cards", ()))
    return HostFacts(data["name"], data["cpu_milli"], data["memory_mib"], cards=cards)


def _flavor_in(name: str, data: Mapping[str, Any]) -> Flavor:
    demand = CardDemand(data["cards"], models=frozenset(data.get("models", ()))) if "cards" in data else None
    flavor = Flavor(name, data["cpu_milli"], data["memory_mib"], demand, _seconds(name, data, "share"))
    flavor.request()
    return flavor


def _arrival_in(place: str, data: Mapping[str, Any], flavors: Mapping[str, Flavor]) -> Arrival:
    name = data.get("flavor")
    if not isinstance(name, str) or name not in flavors:
        raise Invalid(f"{place}: there is no flavor {name!r}.", field="flavor")
    return Arrival(_seconds(place, data, "at"), _seconds(place, data, "lease"), flavors[name].request())


def _seconds(place: str, data: Mapping[str, Any], field: str) -> float:
    value = data.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise Invalid(f"{place}: {field} must be a number from 0 up, not {value!r}.", field=field)
    return float(value)
