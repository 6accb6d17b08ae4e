"""What exists in the fake cloud: servers and homes. In memory for one process, in a locked file for several."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(slots=True)
class FakeServer:
    """One server. Times are Unix seconds. It is built until ``active_at`` and goes for good at ``gone_at``.

    ``remedy`` of its fault and state of its ``host``: as in `beamdesk.domain.server`.
    """

    id: str
    deployment_id: str
    desktop_id: str
    created_at: float
    active_at: float
    nonce: str
    spec: dict[str, Any]
    off: bool = False
    fault: str = ""
    gone_at: float | None = None
    remedy: str = "person"
    host: str = "up"


@dataclass(slots=True)
class FakeState:
    """Everything that exists. ``homes``: desktop -> deployment."""

    servers: dict[str, FakeServer] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)
    created: int = 0


class World(Protocol):
    """Holds the state; several drivers may share one."""

    @contextmanager
    def open(self) -> Iterator[FakeState]:
        """Give the state for reading and changing; nobody else has it meanwhile."""
        yield FakeState()


class MemoryWorld:
    """A world of one process."""

    def __init__(self) -> None:
        self.state = FakeState()

    @contextmanager
    def open(self) -> Iterator[FakeState]:
        """Give the state."""
        yield self.state


class FileWorld:
    """A world that several processes share and that outlives them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def open(self) -> Iterator[FakeState]:
        """Give the state under an exclusive lock; a change is on disk at the end, or not at all."""
        with self._path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = self._load()
            before = asdict(state)
            yield state
            if (after := asdict(state)) != before:
                temporary = self._path.with_suffix(".new")
                temporary.write_text(json.dumps(after), encoding="utf-8")
                os.replace(temporary, self._path)  # noqa: PTH105

    def _load(self) -> FakeState:
        if not self._path.exists():
            return FakeState()
        document = json.loads(self._path.read_text(encoding="utf-8"))
        servers = {key: FakeServer(**value) for key, value in document["servers"].items()}
        return FakeState(servers, document["homes"], document["created"])
