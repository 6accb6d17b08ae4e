"""Give up everything that a preview does not need, for good.

After :func:`limit` and :func:`enter` this process cannot open a file (no descriptor numbers are left beyond one for the job, and
the system call is filtered), connect, start a process or thread, signal, or write anywhere but to its socket; memory and CPU are
limited. What cannot be given up ends the process: a weaker sandbox is no sandbox.

seccomp: an allow-list in classic BPF, everything else fails with EPERM. See seccomp(2), struct sock_fprog in linux/filter.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from pathlib import Path
from typing import Final

MEMORY_BYTES: Final = 1024**3
CPU_S: Final = 10

_SYSCALLS: Final = {
    "x86_64": (
        0xC000003E,
        # read write close lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn pread64 readv writev
        *(0, 1, 3, 8, 9, 10, 11, 12, 13, 14, 15, 17, 19, 20),
        # sched_yield mremap madvise getpid sendto recvfrom recvmsg exit gettimeofday sigaltstack gettid futex clock_gettime
        *(24, 25, 28, 39, 44, 45, 47, 60, 96, 131, 186, 202, 228),
        # exit_group prlimit64 getrandom
        *(231, 302, 318),
    ),
    "aarch64": (
        0xC00000B7,
        # close lseek read write readv writev pread64 exit exit_group futex clock_gettime sched_yield sigaltstack rt_sigaction
        *(57, 62, 63, 64, 65, 66, 67, 93, 94, 98, 113, 124, 132, 134),
        # rt_sigprocmask rt_sigreturn gettimeofday getpid gettid sendto recvfrom recvmsg brk munmap mremap mmap mprotect madvise
        *(135, 139, 169, 172, 178, 206, 207, 212, 214, 215, 216, 222, 226, 233),
        # prlimit64 getrandom
        *(261, 278),
    ),
}
"""Per machine: AUDIT_ARCH, then the numbers that stay allowed."""

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _FAIL, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2


class NoSandbox(Exception):
    """This machine cannot confine a preview."""


def limit(free_descriptors: int = 1) -> None:
    """Limit memory, CPU time, processes, file sizes and new descriptors; the highest open one must be known to the caller."""
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    for what, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, highest + free_descriptors),
    ):
        resource.setrlimit(what, (value, value))


def no_more_descriptors() -> None:
    """Forbid every further descriptor; those that are open stay usable."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def enter() -> None:
    """Install the system call filter.

    Raises:
        NoSandbox: unknown machine, or the kernel has no seccomp.
    """
    known = _SYSCALLS.get(platform.machine())
    if known is None:
        raise NoSandbox(f"no system call list for {platform.machine()}")
    program = _program(known[0], known[1:])
    code = ctypes.create_string_buffer(program, len(program))
    descriptor = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SET_SECCOMP, _FILTER, descriptor, 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise NoSandbox(f"prctl {arguments[0]}: {os.strerror(ctypes.get_errno())}")


def _program(architecture: int, allowed: tuple[int, ...]) -> bytes:
    """Return the filter: another architecture is killed (its numbers mean other calls), so are x32's; unlisted calls fail."""
    lines = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 0, 1, 0x40000000),
        (_RETURN, 0, 0, _KILL),
        *((_EQUAL, len(allowed) - index, 0, number) for index, number in enumerate(allowed)),
        (_RETURN, 0, 0, _FAIL),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
