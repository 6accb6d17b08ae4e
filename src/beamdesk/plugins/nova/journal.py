"""Each decision as one line of JSON in a bounded file, for people, `beamdesk schedule` and comparison with the core.

Two files take turns: ``PATH`` and, when it is half of the allowed size, ``PATH.1``. Several worker processes may write. A line
that cannot be written never stops a decision: it is counted and reported by the caller.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from beamdesk.scheduling.decision import Decision
from beamdesk.scheduling.errors import Malformed
from beamdesk.scheduling.wire import read_decision, write_decision


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision inside nova-scheduler.

    ``source``: what it rests on, ``records`` or ``fallback-refuse`` or ``fallback-count``. ``refused``: why the request was not
    even decided. ``cards``: the devices that Placement was told to claim first. ``took`` in seconds.
    """

    at: float
    server: str
    source: str = ""
    offered: int = 0
    took: float = 0.0
    cards: tuple[str, ...] = ()
    refused: str | None = None
    decision: Decision | None = field(default=None)


class Journal:
    """The file. ``path`` empty = nothing is kept."""

    def __init__(self, path: str, most: int) -> None:
        self._path, self._most = path, most

    def write(self, entry: Entry) -> None:
        """Append an entry.

        Raises:
            OSError: the file cannot be written.
        """
        if not self._path:
            return
        line = dump(entry).encode() + b"\n"
        descriptor = self._open(len(line))
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def _open(self, size: int) -> int:
        """Return the locked file, moved out of the way first when it is full. Another worker may have moved it meanwhile."""
        while True:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not self._is_current(descriptor):
                os.close(descriptor)
                continue
            if (held := os.fstat(descriptor).st_size) and held + size > self._most // 2:
                Path(self._path).replace(f"{self._path}.1")
                os.close(descriptor)
                continue
            return descriptor

    def _is_current(self, descriptor: int) -> bool:
        try:
            named = Path(self._path).lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(descriptor))


def dump(entry: Entry) -> str:
    """Write an entry as one line."""
    head = {
        "v": 1,
        "at": entry.at,
        "server": entry.server,
        "source": entry.source,
        "offered": entry.offered,
        "took": round(entry.took, 6),
        "cards": list(entry.cards),
        "refused": entry.refused,
    }
    decision = "null" if entry.decision is None else write_decision(entry.decision)
    return f'{json.dumps(head, allow_nan=False)[:-1]}, "decision": {decision}}}'


def load(line: str) -> Entry:
    """Read a line that `dump` wrote.

    Raises:
        Malformed: it is not one.
    """
    try:
        data = json.loads(line)
        if data["v"] != 1:
            raise Malformed(f"This is version {data['v']!r} of the journal; 1 is understood here.", field="v")
        decision = None if data["decision"] is None else read_decision(json.dumps(data["decision"]))
        numbers = float(data["at"]), int(data["offered"]), float(data["took"])
        refused = data["refused"]
        return Entry(
            numbers[0],
            str(data["server"]),
            str(data["source"]),
            numbers[1],
            numbers[2],
            tuple(map(str, data["cards"])),
            None if refused is None else str(refused),
            decision,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed(f"This is not a line of the journal: {error}") from error


def entries(path: Path) -> Iterator[Entry]:
    """Read what is kept, oldest first. A last line that is being written is left out."""
    for file in (path.with_name(f"{path.name}.1"), path):
        if not file.exists():
            continue
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield load(line)
