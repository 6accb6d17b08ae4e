"""Starts and ends programs, always with the person's ids and never with a way to gain rights.

A program's output is read here, kept shortly for the cause of a failure and passed to the console; it cannot block on it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from beamdesk.guest.accounts import Person

_PR_SET_NO_NEW_PRIVS = 38
_KEPT_LINES = 12
_LINES_PER_PROGRAM = 200
"""A program may put so many lines on the console; what it says later is only kept for the cause of a failure."""


def forbid_new_privileges() -> None:
    """Bar this process and all that it starts from gaining rights by set-uid programs or file capabilities (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


class Output:
    """Reads the output of all programs in one thread."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._poll = select.epoll()
        self._sources: dict[int, tuple[str, deque[str]]] = {}
        self._counts: dict[str, int] = {}
        threading.Thread(target=self._run, name="output", daemon=True).start()

    def add(self, name: str, fd: int) -> deque[str]:
        """Read ``fd`` from now on (and close it at its end); return the last lines, which keep up to date."""
        tail: deque[str] = deque(maxlen=_KEPT_LINES)
        os.set_blocking(fd, False)
        with self._lock:
            self._sources[fd] = (name, tail)
        self._poll.register(fd, select.EPOLLIN | select.EPOLLHUP)
        return tail

    def drain(self, fd: int) -> None:
        """Read what is there now: the last words of a program that has just ended."""
        with self._lock:
            while fd in self._sources and self._read(fd):
                pass

    def _run(self) -> None:
        while True:
            for fd, _event in self._poll.poll():
                with self._lock:
                    if fd in self._sources:
                        self._read(fd)

    def _read(self, fd: int) -> bool:
        """Read once; tell whether there may be more. The lock is held."""
        try:
            data = os.read(fd, 16384)
        except BlockingIOError:
            return False
        if not data:
            self._poll.unregister(fd)
            del self._sources[fd]
            os.close(fd)
            return False
        name, tail = self._sources[fd]
        for line in filter(str.strip, data.decode("utf-8", "replace").splitlines()):
            tail.append(line)
            count = self._counts[name] = self._counts.get(name, 0) + 1
            if count <= _LINES_PER_PROGRAM:
                self._say(name, line)
        return True


class Process:
    """One running program and all that it started in its session."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], output: Output, fd: int) -> None:
        self.name = name
        self._process = process
        self._output = output
        self._fd = fd
        self._tail = output.add(name, fd)
        self.pid = process.pid
        self.pidfd = os.pidfd_open(process.pid)

    def ended(self) -> str | None:
        """Return how the program ended in plain words, None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        how = f"was ended by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
        self._output.drain(self._fd)
        return f"{how}: {self._tail[-1]}" if self._tail and code > 0 else how

    def signal(self, number: signal.Signals) -> None:
        """Signal the program and its group, if it still runs."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def close(self) -> None:
        """Forget an ended program."""
        os.close(self.pidfd)


def start(
    name: str,
    command: Sequence[str],
    person: Person,
    environment: Mapping[str, str],
    output: Output,
    *,
    nice: int = 0,
    pass_fds: Sequence[int] = (),
) -> Process:
    """Start ``command`` as ``person`` in a session of its own.

    Raises:
        OSError: it cannot be started.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    # the agent lacks CAP_SYS_NICE in a container, so the program lowers its own priority
    prefix = ["/usr/bin/nice", f"--adjustment={nice}"] if nice else []
    try:
        process = subprocess.Popen(
            [*prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            env=dict(environment),
            cwd=person.home,
            user=person.uid,
            group=person.gid,
            extra_groups=list(person.gids),
            umask=0o002,
            start_new_session=True,
            pass_fds=tuple(pass_fds),
        )
    except (OSError, subprocess.SubprocessError):
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return Process(name, process, output, reader)


def prefer_as_victim(process: Process) -> None:
    """When memory runs out let this program's offspring go before the display and the stream; costs nothing if not permitted."""
    with contextlib.suppress(OSError), open(f"/proc/{process.pid}/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("300")


def stop_all(processes: Sequence[Process], grace_s: float) -> None:
    """End programs: politely, and after ``grace_s`` for certain."""
    for process in processes:
        process.signal(signal.SIGTERM)
    waiting = {process.pidfd: process for process in processes if process.ended() is None}
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    left = grace_s
    while waiting and left > 0:
        for fd, _event in poll.poll(50):
            if waiting[fd].ended() is not None:
                poll.unregister(fd)
                del waiting[fd]
        left -= 0.05
    for process in processes:
        process.signal(signal.SIGKILL)
    for process in processes:
        process.ended()
