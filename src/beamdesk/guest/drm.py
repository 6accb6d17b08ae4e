"""How busy the cards of AMD and Intel are: by their driver's own figure where it has one, else by the engine time of its clients.

Sources: Linux, Documentation/gpu/amdgpu/thermal.rst (``gpu_busy_percent``) and Documentation/gpu/drm-usage-stats.rst (the keys of
``/proc/<pid>/fdinfo/<fd>``). Reads the files of the person's own programs only, so it runs as the person.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from beamdesk.guest.cards import RenderNode
from beamdesk.guest.nvml import Use

_MAX_BYTES = 16 * 1024


@dataclass(slots=True)
class _Client:
    """What one client of a card has used so far, by engine: nanoseconds, or cycles and how many passed meanwhile."""

    ns: dict[str, int] = field(default_factory=dict)
    cycles: dict[str, int] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)
    capacity: dict[str, int] = field(default_factory=dict)

    @property
    def tells(self) -> bool:
        return bool(self.ns or (self.cycles and self.passed))


class DrmMeter:
    """Measures since its last look.

    Args:
        clock: monotonic seconds.
        ours: process ids that do not count: the desktop's own programs, among them the streaming server.
        proc: the process file system.
    """

    def __init__(self, clock: Callable[[], float], ours: Callable[[], Collection[int]], proc: Path = Path("/proc")) -> None:
        self._clock = clock
        self._ours = ours
        self._proc = proc
        self._before: dict[tuple[str, str], _Client] = {}
        self._at = clock()

    def uses(self, nodes: Collection[RenderNode]) -> list[Use]:
        """Return the use of each card."""
        told = {node: _busy_percent(node) for node in nodes}
        asked = [node for node, use in told.items() if use is None]
        counted = self._by_clients(asked) if asked else {}
        return [counted[node] if use is None else use for node, use in told.items()]

    def _by_clients(self, nodes: Collection[RenderNode]) -> dict[RenderNode, Use]:
        now = self._clock()
        clients = self._clients({str(node.path): node for node in nodes})
        elapsed, self._at = now - self._at, now
        found = {node: self._share(node, clients, elapsed) for node in nodes}
        self._before = clients
        return found

    def _share(self, node: RenderNode, clients: dict[tuple[str, str], _Client], elapsed: float) -> Use:
        engines: dict[str, float] = {}
        for key, client in clients.items():
            if key[0] != str(node.path):
                continue
            if not client.tells:
                return None
            for engine, share in _shares(self._before.get(key), client, elapsed):
                engines[engine] = engines.get(engine, 0.0) + share
        return min(1.0, max(engines.values(), default=0.0))

    def _clients(self, nodes: Collection[str]) -> dict[tuple[str, str], _Client]:
        """Return all clients of the cards, by the card's device file and the driver's number for the client."""
        ours = set(self._ours())
        found: dict[tuple[str, str], _Client] = {}
        for entry in os.listdir(self._proc):  # noqa: PTH208 every second, so cheaply
            if entry.isdigit() and int(entry) not in ours:
                for path, text in self._open_cards(entry, nodes):
                    number, client = _parse(text)
                    found[path, number or f"of process {entry}"] = client
        return found

    def _open_cards(self, pid: str, nodes: Collection[str]) -> Iterator[tuple[str, str]]:
        """Return the card and the figures behind each descriptor that a process has of one; of others' processes we see none."""
        folder = f"{self._proc}/{pid}"
        try:
            numbers = os.listdir(f"{folder}/fd")  # noqa: PTH208
        except OSError:
            return
        for number in numbers:
            try:
                path = os.readlink(f"{folder}/fd/{number}")  # noqa: PTH115
                if path in nodes:
                    with open(f"{folder}/fdinfo/{number}", encoding="ascii", errors="replace") as file:  # noqa: PTH123
                        yield path, file.read(_MAX_BYTES)
            except OSError:
                continue


def _busy_percent(node: RenderNode) -> float | None:
    """Return amdgpu's own figure, which includes ROCm's queues; None where there is none (other drivers, virtual functions)."""
    try:
        return min(100, max(0, int((node.device / "gpu_busy_percent").read_text(encoding="ascii")))) / 100
    except (OSError, ValueError):
        return None


def _parse(text: str) -> tuple[str, _Client]:
    """Return the driver's number for a client and its figures."""
    number, client = "", _Client()
    tables = {
        "drm-engine-capacity-": client.capacity,
        "drm-total-cycles-": client.passed,
        "drm-cycles-": client.cycles,
        "drm-engine-": client.ns,
    }
    for line in text.splitlines():
        key, _colon, value = line.partition(":")
        words = value.split()
        if key == "drm-client-id" and words:
            number = words[0]
        prefix = next((prefix for prefix in tables if key.startswith(prefix)), "")
        if prefix and words and words[0].isdigit() and (prefix != "drm-engine-" or words[1:] == ["ns"]):
            tables[prefix][key.removeprefix(prefix)] = int(words[0])
    return number, client


def _shares(before: _Client | None, now: _Client, elapsed: float) -> Iterator[tuple[str, float]]:
    """Return what a client used of each engine since the last look; of one that is new nothing is known yet."""
    if before is None or elapsed <= 0:
        return
    for engine, spent in now.ns.items():
        lanes = max(1, now.capacity.get(engine, 1))
        yield engine, max(0, spent - before.ns.get(engine, spent)) / 1e9 / elapsed / lanes
    for engine, cycles in now.cycles.items():
        passed = now.passed.get(engine, 0) - before.passed.get(engine, 0)
        if passed > 0:
            lanes = max(1, now.capacity.get(engine, 1))
            yield engine, max(0, cycles - before.cycles.get(engine, cycles)) / passed / lanes
