"""What a storm gave, and how two of them compare. Figures only; no assertion."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from bench import _api_calls, _cloud_cpu
from controlplane.plane import ControlPlane


class Spent:
    """The CPU seconds of a control plane and of a client from now to the last time that somebody asked."""

    def __init__(self, plane: ControlPlane, client_s: Callable[[], float]) -> None:
        self._plane = plane
        self._client_s = client_s
        self._before, self._client_before, self._begun = _cloud_cpu.by_service(plane), client_s(), time.time()
        self.seconds, self.by_service, self.client_s = 0.0, Counter[str](), 0.0

    def note(self) -> None:
        """What counts goes up to this moment."""
        self.seconds = time.time() - self._begun
        self.by_service = _cloud_cpu.by_service(self._plane) - self._before
        self.client_s = self._client_s() - self._client_before


@dataclass(frozen=True, slots=True)
class Storm:
    """One storm.

    ``up_s``: seconds from its start (or from when each was wanted) to each server's being up, as its client saw it.
    ``took_s``: until the last one was up, ``ended_s``: or refused, which who tries again is told later. ``cpu_s``: CPU seconds by
    service until the last one was up, ``client_cpu_s``: of the client; ``calls``: API calls until all had ended.
    """

    name: str
    desktops: int
    up_s: tuple[float, ...]
    refused: Counter[str]
    took_s: float
    ended_s: float
    cpu_s: Counter[str]
    client_cpu_s: float
    calls: Counter[str]
    loads: tuple[float, float]
    notes: tuple[str, ...] = field(default=())
    piece_ms: float = float("nan")
    """How long the same piece of work took meanwhile (`_speed`), milliseconds of CPU."""

    def above(self, rest: Counter[str]) -> Storm:
        """Return it without what the cloud spends at rest, in CPU seconds a second by service: storms differ in length."""
        spent = {name: max(0.0, seconds - rest[name] * self.took_s) for name, seconds in self.cpu_s.items()}
        return replace(self, cpu_s=Counter(spent))

    @property
    def cloud_s(self) -> float:
        """CPU seconds of the whole control plane, database and broker included."""
        return sum(self.cpu_s.values())

    @property
    def nova_s(self) -> float:
        """CPU seconds of Nova and Placement."""
        return sum(self.cpu_s[name] for name in _cloud_cpu.NOVA_AND_PLACEMENT)

    def print(self, *, calls: bool = False) -> None:
        times = "  ".join(f"p{percent} {percentile(self.up_s, percent):6.1f} s" for percent in (50, 99, 100))
        cpu = f"Nova+Placement {self.nova_s:6.1f}  OpenStack {self.cloud_s:6.1f}  client {self.client_cpu_s:5.1f} CPU-s"
        loads = f"load {self.loads[0]:.1f} -> {self.loads[1]:.1f}"
        took = f"took {self.took_s:.0f} s, {self.ended_s:.0f} s with refusals"
        rest = f"{took}  calls {self.calls.total() / self.desktops:4.1f}/desktop  {loads}  piece {self.piece_ms:.2f} ms"
        print(f"{self.name:<9} up {len(self.up_s):4}  refused {self.refused.total():3}  {times}  {cpu}  {rest}")
        services = sorted(self.cpu_s.items(), key=lambda one: -one[1])
        print(f"{'':9} CPU-s by service: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in services if seconds >= 0.1))
        for reason, count in self.refused.items():
            print(f"{'':9} refused {count}: {reason}")
        for note in self.notes:
            print(f"{'':9} {note}")
        if calls:
            print("\n".join(f"{'':9} {line}" for line in _api_calls.told(self.calls, self.desktops)[:16]))
        print(flush=True, end="")


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))] if ranked else float("nan")


def told_after_launch(lags: Sequence[float]) -> str:
    """Say how long after Nova's own dates of the launches a client told of them; the dates are whole seconds."""
    return f"told after Nova's date of the launch: p50 {percentile(lags, 50):.1f} s  p99 {percentile(lags, 99):.1f} s"


def launched_at(record: Mapping[str, Any]) -> float | None:
    """Return when Nova says that a server was launched, in seconds since the epoch; None = it was not."""
    told = record.get("OS-SRV-USG:launched_at")
    return datetime.fromisoformat(told[:19]).replace(tzinfo=UTC).timestamp() if told else None


def compare(bare: Sequence[Storm], ours: Sequence[Storm]) -> list[str]:
    """Say what Beamdesk's storms add to the bare ones, in the mean; by how much storms of one client differ tells what is noise."""

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    def noise(theirs: Sequence[float], mine: Sequence[float], unit: str) -> str:
        if len(theirs) == len(mine) == 1:
            return "one storm of each: how much of it is noise is not known"
        share = 100 / mean(theirs) if unit == "%" else 1
        return f"storms of one client differ by {max(max(one) - min(one) for one in (theirs, mine)) * share:.1f} {unit}"

    lines = []
    for percent in (50, 99):
        theirs, times = ([percentile(one.up_s, percent) for one in storms] for storms in (bare, ours))
        told = f"bare {mean(theirs):.1f} s, {noise(theirs, times, 's')}"
        lines.append(f"up at p{percent}: {mean(times) - mean(theirs):+.1f} s ({told})")
    nova, nova_ours = [one.nova_s for one in bare], [one.nova_s for one in ours]
    cloud, cloud_ours = [one.cloud_s for one in bare], [one.cloud_s for one in ours]
    client, own = mean([one.client_cpu_s for one in bare]), mean([one.client_cpu_s for one in ours])
    base, all_base = mean(nova), mean(cloud)
    more = mean(nova_ours) - base
    piece, piece_ours = mean([one.piece_ms for one in bare]), mean([one.piece_ms for one in ours])
    in_all, cloud_more = (more + own) / base, mean(cloud_ours) / all_base - 1
    return [
        *lines,
        f"the same piece of work: {piece_ours / piece - 1:+.1%} CPU (bare {piece:.2f} ms): so much slower was the machine itself",
        f"Nova's and Placement's CPU: {more / base:+.1%} (bare {base:.1f} CPU-s, {noise(nova, nova_ours, '%')})",
        f"OpenStack's CPU in all: {cloud_more:+.1%} (bare {all_base:.1f} CPU-s, {noise(cloud, cloud_ours, '%')})",
        f"Beamdesk's own CPU beside Nova's and Placement's: {own / base:.1%} (bare script {client / base:.1%})",
        f"Beamdesk adds in all: {in_all:+.1%} of Nova's and Placement's CPU, {in_all - client / base:+.1%} over the script",
    ]
