"""Forking: every slow or person-owned step runs in a child, so that the helper stays responsive and single-threaded.

A child dies with the helper (PR_SET_PDEATHSIG) and never returns into the helper's loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import traceback
from collections.abc import Callable

from beamdesk.adapters.local.helper import syscalls

_RESET = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD)


def fork(work: Callable[[], None], *, die_with_parent: bool = True) -> int:
    """Run ``work`` in a child and return its process id; the child's status is 0 when ``work`` returns, 1 when it raises."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _RESET:
            signal.signal(number, signal.SIG_DFL)
        if die_with_parent:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - the outermost frame of this process
        traceback.print_exc()
    finally:
        os._exit(status)


async def wait(pid: int) -> int:
    """Wait for a child without blocking the loop; return its exit status, or minus the number of the signal that ended it."""
    pidfd = os.pidfd_open(pid)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
    finally:
        os.close(pidfd)
    _pid, status = os.waitpid(pid, 0)  # noqa: ASYNC222 - it has ended, this does not block
    return os.waitstatus_to_exitcode(status)
