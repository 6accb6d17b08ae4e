"""Start, find and stop the instance's processes, each by its own id; a recycled id is never mistaken for ours."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .layout import Layout


class ControlPlaneError(Exception):
    """The control plane cannot be had; the text says what to do."""


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 180) -> None:
    """Return when ``condition`` holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise ControlPlaneError(f"waited {timeout_s:.0f} s for {what}; its log in the instance's log folder says why")
        time.sleep(0.1)


def _started(pid: int) -> str | None:
    """Return when the process started, in clock ticks; None for one that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


class Processes:
    """The processes of one instance, by name. ``tied``: they end with the process that started them."""

    def __init__(self, layout: Layout, environment: Mapping[str, str], *, tied: bool) -> None:
        self._layout = layout
        self._environment = dict(environment)
        self._tied = tied
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def pid(self, name: str) -> int | None:
        """Return the id of a running process."""
        if child := self._children.get(name):
            child.poll()
        try:
            pid, started = (self._layout.pids / name).read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if _started(int(pid)) == started else None

    def names(self) -> list[str]:
        """Return what was started and not stopped, running or not."""
        return sorted(path.name for path in self._layout.pids.glob("*"))

    def spawn(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start a process in a session of its own, unless it runs; its output goes to ``log/NAME.log``.

        Call from the main thread: a tied process ends with the thread that started it.
        """
        if self.pid(name):
            return
        tie = ["setpriv", "--pdeathsig", "TERM"] if self._tied else []
        with (self._layout.logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [*tie, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._layout.root,
                env={**self._environment, **(environment or {})},
                start_new_session=True,
            )
        self._children[name] = child
        (self._layout.pids / name).write_text(f"{child.pid} {_started(child.pid)}")

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

    def stop(self, *names: str, timeout_s: float = 20) -> None:
        """End processes, softly first; absent is fine."""
        for name in names:
            self.signal(name, signal.SIGTERM)
        end = time.monotonic() + timeout_s
        while any(self.pid(name) for name in names) and time.monotonic() < end:
            time.sleep(0.05)
        for name in names:
            self.signal(name, signal.SIGKILL)
            (self._layout.pids / name).unlink(missing_ok=True)
            if child := self._children.pop(name, None):
                child.wait()
