"""Linux system calls that Python 3.11 has no function for, through ctypes.

Thin: each function makes one call and raises OSError with errno and the thing it was done to. No policy here.
"""

from __future__ import annotations

import ctypes
import os
import platform

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

# Numbers above 423 are the same on every architecture (Linux commit 0d6040d46817).
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442
_SYS_BPF = {"x86_64": 321, "aarch64": 280}

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_NOATIME = 1024
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOSYMFOLLOW = 0x200000
MOUNT_ATTR_IDMAP = 0x100000

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def _syscall(what: str, number: int, *args: object) -> int:
    return _check(_libc.syscall(ctypes.c_long(number), *args), what)


def unshare(flags: int) -> None:
    """Leave the namespaces in ``flags`` (unshare(2))."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, kind: int) -> None:
    """Join the namespace behind ``fd`` (setns(2))."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def prctl(option: int, value: int) -> None:
    """Set one process attribute (prctl(2))."""
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero), "prctl")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """Mount (mount(2)); ``target`` is what an error names."""
    _check(
        _libc.mount(
            source.encode(),
            os.fsencode(target),
            kind.encode() or None,
            ctypes.c_ulong(flags),
            options.encode() or None,
        ),
        target,
    )


def umount(target: str, flags: int = 0) -> None:
    """Unmount (umount2(2))."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), target)


def open_tree(dir_fd: int, path: str, *, recursive: bool = False) -> int:
    """Return a detached copy of the mount at ``path`` as a descriptor (open_tree(2)); empty ``path`` means ``dir_fd`` itself."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_EMPTY_PATH if not path else 0) | (AT_RECURSIVE if recursive else 0)
    return _syscall(path or "open_tree", _SYS_OPEN_TREE, ctypes.c_int(dir_fd), os.fsencode(path), ctypes.c_uint(flags))


def move_mount(tree_fd: int, target: str) -> None:
    """Attach a detached mount at ``target`` (move_mount(2))."""
    _syscall(
        target,
        _SYS_MOVE_MOUNT,
        ctypes.c_int(tree_fd),
        b"",
        ctypes.c_int(-100),
        os.fsencode(target),
        ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
    )


def mount_setattr(tree_fd: int, attributes: int, userns_fd: int = 0) -> None:
    """Set mount attributes, with ``MOUNT_ATTR_IDMAP`` the mapping of ``userns_fd`` (mount_setattr(2))."""
    attr = _MountAttr(attr_set=attributes, userns_fd=userns_fd)
    _syscall(
        "mount_setattr",
        _SYS_MOUNT_SETATTR,
        ctypes.c_int(tree_fd),
        b"",
        ctypes.c_uint(AT_EMPTY_PATH),
        ctypes.byref(attr),
        ctypes.c_size_t(ctypes.sizeof(attr)),
    )


def openat2(dir_fd: int, path: str, flags: int, resolve: int) -> int:
    """Open ``path`` under ``dir_fd`` with restricted resolution (openat2(2)); always close-on-exec."""
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=0, resolve=resolve)
    return _syscall(
        path,
        _SYS_OPENAT2,
        ctypes.c_int(dir_fd),
        os.fsencode(path),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )


def bpf(command: int, attributes: ctypes.Structure) -> int:
    """Run one command of the kernel's BPF interface (bpf(2)).

    Raises:
        OSError: ENOSYS also on an architecture whose number of the call is not known here.
    """
    number = _SYS_BPF.get(platform.machine())
    if number is None:
        raise OSError(38, "bpf(2) is not known on this architecture", platform.machine())
    return _syscall("bpf", number, ctypes.c_int(command), ctypes.byref(attributes), ctypes.c_uint(ctypes.sizeof(attributes)))
