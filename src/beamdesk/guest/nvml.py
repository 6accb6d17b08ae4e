"""How busy NVIDIA's cards are: the few functions of its management library (NVML) that it takes, called through ctypes.

Runs in the meter's own process (:mod:`beamdesk.guest.gpu_probe`), because the library may block or crash with its driver. Names,
arguments, structures and error codes: NVML API Reference Guide; the tests hold them against NVIDIA's own binding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection, Iterator
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
_OK, _NOT_INITIALIZED, _TOO_SMALL, _NO_DRIVER, _NO_LIBRARY, _LOST, _RESET, _MISMATCH = 0, 1, 7, 9, 12, 15, 16, 18
_NOTHING_RUNS = (_NO_DRIVER, _NO_LIBRARY, _MISMATCH)
"""Why the library cannot be opened where no program can compute either."""
_DEAD = {_LOST: "is lost", _RESET: "needs a reset"}
_MIG_ENABLED = 1
_MOST_PROCESSES = 256
_RETRY_LOOKS = 30

Use = float | None
"""0..1; None: not known, and somebody may compute there."""


class Utilization(ctypes.Structure):
    """``nvmlUtilization_t``: percent of the last sample period."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class ProcessInfo(ctypes.Structure):
    """``nvmlProcessInfo_t`` as the functions ``_v2`` and ``_v3`` fill it."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("usedGpuMemory", ctypes.c_ulonglong),
        ("gpuInstanceId", ctypes.c_uint),
        ("computeInstanceId", ctypes.c_uint),
    )


class Nvml:
    """The library, opened when it is first asked and again after its driver went; meanwhile the driver keeps its cards ready.

    Args:
        load: returns the C library; raises OSError if there is none.
        say: told what is wrong.
        ours: process ids that do not count: the desktop's own programs.
    """

    def __init__(self, load: Callable[[], Any], say: Callable[[str], None], ours: Callable[[], Collection[int]]) -> None:
        self._load = load
        self._say = say
        self._ours = ours
        self._library: Any = None
        self._is_open = False
        self._closed: list[Use] = []
        self._looks = 0

    def uses(self, minors: Collection[int]) -> list[Use]:
        """Return the use of each card with one of these minor numbers, but of those on which nothing can compute."""
        if not minors:
            return []
        if not self._is_open and self._looks % _RETRY_LOOKS == 0:
            self._closed = self._open()
        self._looks = 0 if self._is_open else self._looks + 1
        return self._cards(minors) if self._is_open else self._closed

    def _open(self) -> list[Use]:
        """Open the library; return what is known of the cards if that fails."""
        try:
            self._library = self._library or self._load()
        except OSError as error:
            self._say(f"NVIDIA's library cannot be used: {error}")
            return []
        code = self._call("nvmlInit_v2")
        self._is_open = code == _OK
        if code:
            self._say(f"NVIDIA's driver does not answer: NVML error {code}")
        return [] if code in _NOTHING_RUNS else [None]

    def _call(self, name: str, *arguments: Any) -> int:
        """Call a function and return its code; -1: this library does not have it."""
        try:
            code = int(getattr(self._library, name)(*arguments))
        except AttributeError:
            return -1
        if code in (_NOT_INITIALIZED, _NO_DRIVER):
            self._is_open = False
        return code

    def _cards(self, minors: Collection[int]) -> list[Use]:
        count, found, dead = ctypes.c_uint(), list[Use](), 0
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        for index in range(count.value):
            handle, minor, use = ctypes.c_void_p(), ctypes.c_uint(), Utilization()
            code = self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
            code = code or self._call("nvmlDeviceGetMinorNumber", handle, ctypes.byref(minor))
            if code == _OK and minor.value not in minors:
                continue
            asked = code or self._call("nvmlDeviceGetUtilizationRates", handle, ctypes.byref(use))
            if asked in _DEAD:
                dead += 1
                self._say(f"card {index} {_DEAD[asked]}")
            elif asked == _OK:
                found.append(min(use.gpu, 100) / 100)
            elif code == _OK:
                found.append(self._held(handle))
        return found + [None] * (len(minors) - len(found) - dead)

    def _held(self, card: ctypes.c_void_p) -> Use:
        """Return 0 if nobody computes on a card that does not tell its use, as one that is divided (MIG)."""
        return None if any(self._computes(part) for part in self._parts(card)) else 0.0

    def _parts(self, card: ctypes.c_void_p) -> Iterator[ctypes.c_void_p]:
        now, then, most = ctypes.c_uint(), ctypes.c_uint(), ctypes.c_uint()
        code = self._call("nvmlDeviceGetMigMode", card, ctypes.byref(now), ctypes.byref(then))
        if code or now.value != _MIG_ENABLED or self._call("nvmlDeviceGetMaxMigDeviceCount", card, ctypes.byref(most)):
            yield card
            return
        for index in range(most.value):
            part = ctypes.c_void_p()
            if not self._call("nvmlDeviceGetMigDeviceHandleByIndex", card, ctypes.c_uint(index), ctypes.byref(part)):
                yield part

    def _computes(self, part: ctypes.c_void_p) -> bool:
        """Tell whether a program computes there; where that cannot be asked one may."""
        for version in ("_v3", "_v2"):
            count, found = ctypes.c_uint(_MOST_PROCESSES), (ProcessInfo * _MOST_PROCESSES)()
            code = self._call(f"nvmlDeviceGetComputeRunningProcesses{version}", part, ctypes.byref(count), found)
            if code == _OK:
                return bool({process.pid for process in found[: count.value]} - set(self._ours()))
            if code == _TOO_SMALL:
                break
        return True


def load() -> Any:
    """Return the driver's library.

    Raises:
        OSError: it is not there, or cannot be used.
    """
    return ctypes.CDLL(LIBRARY)
