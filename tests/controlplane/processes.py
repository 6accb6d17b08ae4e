"""Start, find and stop the instance's processes, each by its own id; a recycled id is never mistaken for ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .layout import Layout

SOFTLY_S = 20.0
"""So long a process has to end by itself once it was asked to."""


class ControlPlaneError(Exception):
    """The control plane cannot be had; the text says what to do."""


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 180) -> None:
    """Return when ``condition`` holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise ControlPlaneError(f"waited {timeout_s:.0f} s for {what}; its log in the instance's log folder says why")
        time.sleep(0.1)


def _fields(pid: int) -> list[str] | None:
    """Return what the kernel says of a process, from its state on (proc(5), `/proc/pid/stat`); None for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields


def _started(pid: int) -> str | None:
    """Return when the process started, in clock ticks; None for one that is gone or a zombie."""
    fields = _fields(pid)
    return fields[19] if fields else None


def _known(file: Path) -> tuple[int, str] | None:
    """Return the id and the start of a process that was started, running or not."""
    try:
        pid, started = file.read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid), started


def _left(files: Iterable[Path]) -> list[int]:
    """Return whoever runs of what was started: each leads a session, and its workers may outlive it.

    While a worker lives the kernel gives the id of its session to nobody else: a leader with that id and another start is a stranger.
    """
    known = [one for file in files if (one := _known(file))]
    sessions = {pid for pid, started in known if _started(pid) in (started, None)}
    left = []
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        fields = _fields(pid)
        if fields and int(fields[3]) in sessions:
            left.append(pid)
    return left


def end(files: Sequence[Path], softly_s: float = SOFTLY_S) -> None:
    """End what was started and its workers, softly first; the files go. Absent is fine."""
    _signal(_left(files), signal.SIGTERM)
    until = time.monotonic() + softly_s
    while (left := _left(files)) and time.monotonic() < until:
        time.sleep(0.1)
    _signal(left, signal.SIGKILL)
    for file in files:
        file.unlink(missing_ok=True)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


class Processes:
    """The processes of one instance, by name. ``tied``: they end with the process that started them."""

    def __init__(self, layout: Layout, environment: Mapping[str, str], *, tied: bool, softly_s: float = SOFTLY_S) -> None:
        self._layout = layout
        self._environment = dict(environment)
        self._tied = tied
        self._softly_s = softly_s
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._undertaker: subprocess.Popen[bytes] | None = None

    def pid(self, name: str) -> int | None:
        """Return the id of a running process."""
        if child := self._children.get(name):
            child.poll()
        known = _known(self._layout.pids / name)
        return known[0] if known and _started(known[0]) == known[1] else None

    def names(self) -> list[str]:
        """Return what was started and not stopped, running or not."""
        return sorted(path.name for path in self._layout.pids.glob("*"))

    def spawn(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start a process in a session of its own, unless it runs; its output goes to ``log/NAME.log``."""
        if self.pid(name):
            return
        if self._tied and self._undertaker is None:
            self._undertaker = self._begin_to_watch()
        with (self._layout.logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [*map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._layout.root,
                env={**self._environment, **(environment or {})},
                start_new_session=True,
            )
        self._children[name] = child
        (self._layout.pids / name).write_text(f"{child.pid} {_started(child.pid)}")

    def _begin_to_watch(self) -> subprocess.Popen[bytes]:
        """Start who ends the others when this process is gone: it holds the other end of a pipe."""
        program = [sys.executable, "-m", "controlplane.undertaker", str(self._layout.pids), str(self._softly_s)]
        return subprocess.Popen(program, stdin=subprocess.PIPE, cwd=Path(__file__).parents[1], start_new_session=True)

    def run(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Run a command to its end."""
        done = subprocess.run(
            [*map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._layout.root,
            env={**self._environment, **(environment or {})},
            check=False,
        )
        if done.returncode:
            shown = " ".join(map(str, command))
            raise ControlPlaneError(f"failed: {shown}\n{done.stdout[-4000:]}")

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the process and what it started."""
        if pid := self.pid(name):
            os.killpg(pid, number)

    def stop(self, *names: str, timeout_s: float | None = None) -> None:
        """End processes and their workers, softly first; absent is fine."""
        end([self._layout.pids / name for name in names], self._softly_s if timeout_s is None else timeout_s)
        for name in names:
            if child := self._children.pop(name, None):
                child.wait()

    def close(self) -> None:
        """End what is left, and who waits for that."""
        self.stop(*self.names())
        if self._undertaker is not None:
            self._undertaker.communicate()
            self._undertaker = None
