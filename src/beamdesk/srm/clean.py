"""The operator's cleaning hook: one program, its arguments filled in, no shell, a time limit, its end attested.

What it must do (reset the card, wipe its memory, run a check) is the site's: see docs/howto/monitor-gpus.md. Exit status 0 = clean.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from beamdesk.protocol.srm import CardFacts, Cleaned, CleanOrder
from beamdesk.srm.config import CleanConfig

_MOST_OUTPUT = 1 << 20
_TAIL = 300


def arguments(config: CleanConfig, card: CardFacts) -> tuple[str, ...]:
    """Return the argument list for a card."""
    values = {name: getattr(card, name) for name in ("address", "vendor", "device", "uuid", "driver", "model")}
    return tuple(part.format(**values) for part in config.command)


@dataclass(slots=True)
class Cleaning:
    """A cleaning that runs. The program has a process group of its own, so that none of its children outlives the limit."""

    order: CleanOrder
    argv: tuple[str, ...]
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    started: float
    timeout_s: float

    def result(self, now: float) -> Cleaned | None:
        """Return how it ended; None while it runs. Past its time limit it is killed."""
        status = self.process.poll()
        if status is None and now - self.started < self.timeout_s:
            return None
        late = status is None
        if late:
            self.kill()
        self.output.seek(0)
        said = self.output.read(_MOST_OUTPUT)
        self.output.close()
        tail = "".join(one if one.isprintable() else " " for one in said[-_TAIL:].decode("utf-8", "replace"))
        detail = f"stopped after {self.timeout_s:.0f} s" if late else ("" if status == 0 else " ".join(tail.split()))
        return _result(self.order, self.argv, None if late else status, now - self.started, said, detail)

    def kill(self) -> None:
        """End it and all its children."""
        _kill_group(self.process.pid)
        self.process.wait()


def start(config: CleanConfig, card: CardFacts, order: CleanOrder, folder: Path) -> Cleaning | Cleaned:
    """Start the hook for a card; the result at once when it cannot be started. Its output goes to a file in ``folder``."""
    argv = arguments(config, card)
    output = _output(folder)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "BEAMDESK_CARD": card.address}
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd="/", start_new_session=True
        )
    except OSError as error:
        output.close()
        return _result(order, argv, None, 0.0, b"", f"cannot start {argv[0]}: {error.strerror}")
    return Cleaning(order, argv, process, output, time.monotonic(), config.timeout_s)


def _output(folder: Path) -> IO[bytes]:
    from tempfile import TemporaryFile

    return TemporaryFile(dir=folder)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _result(order: CleanOrder, argv: tuple[str, ...], status: int | None, seconds: float, said: bytes, detail: str) -> Cleaned:
    return Cleaned(
        address=order.address,
        job=order.job,
        succeeded=status == 0,
        exit_status=status,
        seconds=round(seconds, 3),
        command_sha256=hashlib.sha256("\0".join(argv).encode()).hexdigest(),
        output_sha256=hashlib.sha256(said).hexdigest(),
        detail=detail[:500],
    )
