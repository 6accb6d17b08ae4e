"""Loop devices: a file as a block device that detaches itself when its last mount goes."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import time
from pathlib import Path

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LO_FLAGS_AUTOCLEAR = 4
_LOOP_MAJOR = 7
_ATTEMPTS = 64


class _LoopInfo64(ctypes.Structure):
    _fields_ = (
        ("lo_device", ctypes.c_uint64),
        ("lo_inode", ctypes.c_uint64),
        ("lo_rdevice", ctypes.c_uint64),
        ("lo_offset", ctypes.c_uint64),
        ("lo_sizelimit", ctypes.c_uint64),
        ("lo_number", ctypes.c_uint32),
        ("lo_encrypt_type", ctypes.c_uint32),
        ("lo_encrypt_key_size", ctypes.c_uint32),
        ("lo_flags", ctypes.c_uint32),
        ("lo_file_name", ctypes.c_char * 64),
        ("lo_crypt_name", ctypes.c_char * 64),
        ("lo_encrypt_key", ctypes.c_char * 32),
        ("lo_init", ctypes.c_uint64 * 2),
    )


class _LoopConfig(ctypes.Structure):
    _fields_ = (
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("info", _LoopInfo64),
        ("reserved", ctypes.c_uint64 * 8),
    )


def attach(image: Path) -> tuple[str, int]:
    """Attach ``image`` and return the device's path and an open descriptor; close it after mounting.

    The device goes away by itself with the last mount or descriptor.
    """
    backing = os.open(image, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            return _configure(control, backing)
        finally:
            os.close(control)
    finally:
        os.close(backing)


def _configure(control: int, backing: int) -> tuple[str, int]:
    config = _LoopConfig(fd=backing)
    config.info.lo_flags = _LO_FLAGS_AUTOCLEAR
    for _attempt in range(_ATTEMPTS):
        path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
        device = _open_device(path)
        try:
            fcntl.ioctl(device, _LOOP_CONFIGURE, bytes(config))
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:  # somebody else took the free one first
                raise
        else:
            return path, device
    raise OSError(errno.EBUSY, "no free loop device")


def _open_device(path: str) -> int:
    """Open the device node; without udev a fresh one can appear a moment after the kernel named it."""
    for delay in (0, 0.002, 0.01, 0.05):
        time.sleep(delay)
        try:
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        status = os.fstat(device)
        if stat.S_ISBLK(status.st_mode) and os.major(status.st_rdev) == _LOOP_MAJOR:
            return device
        os.close(device)
    raise OSError(errno.ENODEV, "loop device does not appear", path)


def is_attached(image: Path, sys_block: Path = Path("/sys/block")) -> bool:
    """Tell whether some loop device still has ``image`` open: then its last mount is not gone yet."""
    for backing in sys_block.glob("loop*/loop/backing_file"):
        try:
            if backing.read_text().rstrip("\n").removesuffix(" (deleted)") == str(image):
                return True
        except OSError:
            continue  # detached in this moment
    return False
