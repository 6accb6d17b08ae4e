"""The supervisor of a one-machine deployment: an init for four processes. Standard library only.

It takes no input but signals. It runs as root where the local driver is used, because the privileged helper must; every other
process is started as the unprivileged account. Whatever ends the supervisor ends them all: the services by PR_SET_PDEATHSIG, the
helper (and with it every desktop's container) by end-of-file on a pipe, the *lifeline*, whose write end only the supervisor holds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

EX_CONFIG = 78
"""sysexits.h: a child that ends so is not restarted; its configuration must be corrected first."""
_HOPELESS = (EX_CONFIG, 2)

_PR_SET_PDEATHSIG = 1
_STOP_TIMEOUT_S = 10.0
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_STABLE_S = 20.0


@dataclass(frozen=True, slots=True)
class Service:
    """A process to keep running. ``account`` None = the supervisor's own. ``lifeline``: substitute `{lifeline}` in its argv."""

    name: str
    argv: tuple[str, ...]
    account: str | None
    log: Path
    lifeline: bool = False


@dataclass(slots=True)
class _Running:
    service: Service
    process: subprocess.Popen[bytes]
    started: float


@dataclass(slots=True)
class Supervisor:
    """Keeps ``services`` running, in order; stops them in reverse."""

    services: Sequence[Service]
    say: Callable[[str], None]
    _running: dict[str, _Running] = field(default_factory=dict)
    _due: dict[str, float] = field(default_factory=dict)
    _failures: dict[str, int] = field(default_factory=dict)
    _stopping: bool = False
    _lifeline: tuple[int, int] = field(default_factory=os.pipe)

    def run(self) -> int:
        """Run until a signal or a child's configuration error; return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        status = 0
        for service in self.services:
            self._start(service)
        while not self._stopping:
            status = self._reap()
            if status:
                break
            self._start_due()
            time.sleep(0.1)
        self.stop()
        return status

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        self.say(f"stopping ({signal.Signals(number).name})")
        self._stopping = True

    def _start(self, service: Service) -> None:
        argv = [part.replace("{lifeline}", str(self._lifeline[0])) for part in service.argv]
        with service.log.open("ab") as log:
            if service.account is not None and os.geteuid() == 0:
                process = _popen_as(argv, service.account, log.fileno())
            else:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(self._lifeline[0],) if service.lifeline else (),
                    preexec_fn=None if service.lifeline else _end_with_parent,  # noqa: PLW1509  # single-threaded
                    start_new_session=True,
                )
        self._running[service.name] = _Running(service, process, time.monotonic())

    def _reap(self) -> int:
        for name, running in list(self._running.items()):
            status = running.process.poll()
            if status is None:
                continue
            del self._running[name]
            if status in _HOPELESS:
                self.say(f"{name} refused its configuration; see {running.service.log}")
                return EX_CONFIG
            stable = time.monotonic() - running.started > _STABLE_S
            failures = 0 if stable else self._failures.get(name, 0)
            self._failures[name] = failures + 1
            delay = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
            self.say(f"{name} ended with status {status}; starting it again in {delay:g} s")
            self._due[name] = time.monotonic() + delay
        return 0

    def _start_due(self) -> None:
        for service in self.services:
            if service.name in self._due and time.monotonic() >= self._due[service.name]:
                del self._due[service.name]
                self._start(service)

    def stop(self) -> None:
        """Stop all services in reverse order: ask, wait, then kill."""
        os.close(self._lifeline[1])
        ordered = [self._running[service.name] for service in reversed(self.services) if service.name in self._running]
        for running in ordered:
            running.process.terminate()
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for running in ordered:
            try:
                running.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"{running.service.name} did not stop in time; killing it")
                running.process.kill()
                running.process.wait()
        self._running.clear()
        os.close(self._lifeline[0])


def _popen_as(argv: list[str], account: str, log: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        user=account,
        group=account,
        extra_groups=[],
        umask=0o027,
        preexec_fn=_end_with_parent,  # noqa: PLW1509  # single-threaded; must come after the change of user, which clears it
        start_new_session=True,
    )


def _end_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:  # the supervisor died before the line above
        os._exit(1)
