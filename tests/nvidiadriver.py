"""What NVIDIA's driver answers, below the real nvidia-ml-py: functions of C that the binding calls, as it would those of libnvidia-ml.so.1.

So the binding's own names, arguments, structures and errors are in use; only the driver is not there. What a test does not give is
not supported.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pynvml

NOT_INITIALIZED, INVALID, NOT_SUPPORTED, NOT_FOUND, TOO_SMALL = 1, 2, 3, 6, 7
UINT, ULL = ctypes.c_uint, ctypes.c_ulonglong


@dataclass(slots=True)
class Card:
    """One card and its answers; None = not supported. ``numbers``: those of `NUMBERS` that are others here, by the function's name."""

    name: str = "NVIDIA Test 9000"
    uuid: str = "GPU-1"
    total: int = 48 << 30
    used: int = 2 << 30
    gpu_percent: int | None = 37
    numbers: dict[str, int] = field(default_factory=dict)
    clocks: dict[int, int] = field(default_factory=lambda: {1: 1500, 2: 9000})
    ecc: int | None = 1
    processes: int = 0
    minor: int | None = None
    """The number of its device file; None: its place among the cards."""
    mig: int | None = None
    parts: list[int] = field(default_factory=list)
    """How many programs compute on each of its MIG devices."""
    profiles: dict[int, tuple[int, int, int, bytes]] = field(default_factory=dict)
    """By number: id, slices, MB, name."""
    places: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    virtualization: int | None = None
    vgpus: list[int] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    """NVML's error by the function's name, or for every function by ``*``."""


NUMBERS = {
    "nvmlDeviceGetNumGpuCores": 1000,
    "nvmlDeviceGetMemoryBusWidth": 384,
    "nvmlDeviceGetPowerUsage": 120500,
    "nvmlDeviceGetTemperature": 61,
    "nvmlDeviceGetEncoderCapacity": 100,
    "nvmlDeviceGetTotalEccErrors": 0,
}
VGPUS = {1: (b"NVIDIA A40-8Q", 6, 8 << 30), 2: (b"NVIDIA A40-48Q", 1, 48 << 30)}
"""vGPU types: name, how many a card carries, bytes each."""


class Driver:
    """The functions of the C library, with cards by address. ``init``: what opening it answers, 0 = well; ``lacks``: symbols of later libraries."""

    def __init__(self, cards: Mapping[str, Card]) -> None:
        self.cards = dict(cards)
        self.init = 0
        self.lacks: set[str] = set()
        self.opened = self.closed = 0
        self.is_open = False
        self._handles: dict[int, Card] = {}
        self._made: dict[str, Any] = {}

    def __getattr__(self, symbol: str) -> Any:
        if symbol.startswith("_") or symbol in self.lacks:
            raise AttributeError(symbol)  # as ctypes does
        if symbol not in self._made:
            self._made[symbol] = _as_c(*self._find(symbol))
        return self._made[symbol]

    def _find(self, symbol: str) -> tuple[Callable[..., int], int]:
        """Return the function behind a symbol and how many arguments it has."""
        if symbol in NUMBERS:
            count = {"nvmlDeviceGetTemperature": 3, "nvmlDeviceGetEncoderCapacity": 3, "nvmlDeviceGetTotalEccErrors": 4}.get(
                symbol, 2
            )
            return (lambda handle, *rest: self._number(symbol, handle, rest[-1])), count
        known: dict[str, tuple[Callable[..., int], int]] = {
            "nvmlInitWithFlags": (self._init, 1),
            "nvmlInit_v2": (lambda: self._init(0), 0),
            "nvmlShutdown": (self._shutdown, 0),
            "nvmlDeviceGetCount_v2": (lambda out: _put(out, UINT, len(self.cards)) if self.is_open else NOT_INITIALIZED, 1),
            "nvmlDeviceGetHandleByIndex_v2": (self._by_index, 2),
            "nvmlDeviceGetMinorNumber": (self._minor, 2),
            "nvmlDeviceGetMaxMigDeviceCount": (self._most_parts, 2),
            "nvmlDeviceGetMigDeviceHandleByIndex": (self._part, 3),
            "nvmlDeviceGetHandleByPciBusId_v2": (self._by_address, 2),
            "nvmlDeviceGetName": (lambda h, room, size: self._text("nvmlDeviceGetName", h, "name", room, size), 3),
            "nvmlDeviceGetUUID": (lambda h, room, size: self._text("nvmlDeviceGetUUID", h, "uuid", room, size), 3),
            "nvmlDeviceGetMemoryInfo": (self._memory, 2),
            "nvmlDeviceGetUtilizationRates": (self._use, 2),
            "nvmlDeviceGetMaxClockInfo": (self._clock, 3),
            "nvmlDeviceGetEccMode": (lambda h, now, then: self._mode("nvmlDeviceGetEccMode", h, "ecc", now, then), 3),
            "nvmlDeviceGetMigMode": (lambda h, now, then: self._mode("nvmlDeviceGetMigMode", h, "mig", now, then), 3),
            "nvmlDeviceGetComputeRunningProcesses_v2": (self._processes, 3),
            "nvmlDeviceGetComputeRunningProcesses_v3": (self._processes, 3),
            "nvmlDeviceGetGpuInstanceProfileInfoV": (self._profile, 3),
            "nvmlDeviceGetGpuInstancePossiblePlacements_v2": (self._places, 4),
            "nvmlDeviceGetVirtualizationMode": (self._virtualization, 2),
            "nvmlDeviceGetSupportedVgpus": (self._vgpus, 3),
            "nvmlVgpuTypeGetName": (self._vgpu_name, 3),
            "nvmlVgpuTypeGetMaxInstances": (self._vgpu_most, 3),
            "nvmlVgpuTypeGetFramebufferSize": (self._vgpu_memory, 2),
        }
        if symbol not in known:
            raise AttributeError(symbol)
        return known[symbol]

    def _init(self, _flags: int) -> int:
        self.opened += 1
        self.is_open = self.init == 0
        return self.init

    def _shutdown(self) -> int:
        self.closed += 1
        self.is_open = False
        return 0

    def _card(self, symbol: str, handle: int) -> Card | int:
        if not self.is_open:
            return NOT_INITIALIZED
        card = self._handles[handle]
        return card.errors.get("*") or card.errors.get(symbol) or card

    def _by_address(self, address: int, out: int) -> int:
        return self._find_card("nvmlDeviceGetHandleByPciBusId_v2", self.cards.get(ctypes.string_at(address).decode()), out)

    def _by_index(self, index: int, out: int) -> int:
        cards = list(self.cards.values())
        return self._find_card("nvmlDeviceGetHandleByIndex_v2", cards[index] if index < len(cards) else None, out)

    def _find_card(self, symbol: str, card: Card | None, out: int) -> int:
        if not self.is_open:
            return NOT_INITIALIZED
        if card is None:
            return NOT_FOUND
        if code := card.errors.get(symbol):
            return code
        handle = 1000 * (1 + self._place(card))
        self._handles[handle] = card
        return _put(out, ctypes.c_void_p, handle)

    def _place(self, card: Card) -> int:
        return next(place for place, other in enumerate(self.cards.values()) if other is card)

    def _minor(self, handle: int, out: int) -> int:
        card = self._card("nvmlDeviceGetMinorNumber", handle)
        return card if isinstance(card, int) else _put(out, UINT, self._place(card) if card.minor is None else card.minor)

    def _most_parts(self, handle: int, out: int) -> int:
        card = self._card("nvmlDeviceGetMaxMigDeviceCount", handle)
        return card if isinstance(card, int) else _put(out, UINT, 7)

    def _part(self, handle: int, index: int, out: int) -> int:
        card = self._card("nvmlDeviceGetMigDeviceHandleByIndex", handle)
        if isinstance(card, int):
            return card
        if index >= len(card.parts):
            return NOT_FOUND
        self._handles[handle + 1 + index] = Card(processes=card.parts[index])
        return _put(out, ctypes.c_void_p, handle + 1 + index)

    def _number(self, symbol: str, handle: int, out: int) -> int:
        card = self._card(symbol, handle)
        if isinstance(card, int):
            return card
        kind = ULL if symbol == "nvmlDeviceGetTotalEccErrors" else UINT
        return _put(out, kind, card.numbers.get(symbol, NUMBERS[symbol]))

    def _text(self, symbol: str, handle: int, what: str, room: int, size: int) -> int:
        card = self._card(symbol, handle)
        return card if isinstance(card, int) else _write(getattr(card, what).encode(), room, size)

    def _memory(self, handle: int, out: int) -> int:
        card = self._card("nvmlDeviceGetMemoryInfo", handle)
        if isinstance(card, int):
            return card
        info = pynvml.c_nvmlMemory_t.from_address(out)
        info.total, info.used, info.free = card.total, card.used, card.total - card.used
        return 0

    def _use(self, handle: int, out: int) -> int:
        card = self._card("nvmlDeviceGetUtilizationRates", handle)
        if isinstance(card, int):
            return card
        if card.gpu_percent is None:
            return NOT_SUPPORTED
        pynvml.c_nvmlUtilization_t.from_address(out).gpu = card.gpu_percent
        return 0

    def _clock(self, handle: int, kind: int, out: int) -> int:
        card = self._card("nvmlDeviceGetMaxClockInfo", handle)
        return card if isinstance(card, int) else _put(out, UINT, card.clocks[kind])

    def _mode(self, symbol: str, handle: int, what: str, now: int, then: int) -> int:
        card = self._card(symbol, handle)
        if isinstance(card, int):
            return card
        mode = getattr(card, what)
        return NOT_SUPPORTED if mode is None else _put(now, UINT, mode) or _put(then, UINT, mode)

    def _processes(self, handle: int, count: int, room: int) -> int:
        card = self._card("nvmlDeviceGetComputeRunningProcesses_v3", handle)
        if isinstance(card, int):
            return card
        enough = UINT.from_address(count).value >= card.processes
        _put(count, UINT, card.processes)
        if not enough or (not room and card.processes):
            return TOO_SMALL
        for at in range(card.processes):
            pynvml.c_nvmlProcessInfo_v3_t.from_address(room + at * ctypes.sizeof(pynvml.c_nvmlProcessInfo_v3_t)).pid = 4000 + at
        return 0

    def _profile(self, handle: int, number: int, out: int) -> int:
        card = self._card("nvmlDeviceGetGpuInstanceProfileInfoV", handle)
        if isinstance(card, int):
            return card
        if number >= pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT:
            return INVALID
        if number not in card.profiles:
            return NOT_SUPPORTED
        info = pynvml.c_nvmlGpuInstanceProfileInfo_v2_t.from_address(out)
        if info.version != (2 << 24 | ctypes.sizeof(info)):
            return INVALID
        info.id, info.sliceCount, info.memorySizeMB, info.name = card.profiles[number]
        return 0

    def _places(self, handle: int, profile: int, room: int, count: int) -> int:
        card = self._card("nvmlDeviceGetGpuInstancePossiblePlacements_v2", handle)
        if isinstance(card, int):
            return card
        places = card.places[profile]
        if not room:
            return _put(count, UINT, len(places))
        size = ctypes.sizeof(pynvml.c_nvmlGpuInstancePlacement_t)
        for at, (start, length) in enumerate(places):
            place = pynvml.c_nvmlGpuInstancePlacement_t.from_address(room + at * size)
            place.start, place.size = start, length
        return _put(count, UINT, len(places))

    def _virtualization(self, handle: int, out: int) -> int:
        card = self._card("nvmlDeviceGetVirtualizationMode", handle)
        if isinstance(card, int):
            return card
        return NOT_SUPPORTED if card.virtualization is None else _put(out, UINT, card.virtualization)

    def _vgpus(self, handle: int, count: int, room: int) -> int:
        card = self._card("nvmlDeviceGetSupportedVgpus", handle)
        if isinstance(card, int):
            return card
        enough = room and UINT.from_address(count).value >= len(card.vgpus)
        _put(count, UINT, len(card.vgpus))
        if card.vgpus and not enough:
            return TOO_SMALL
        for at, number in enumerate(card.vgpus):
            _put(room + at * ctypes.sizeof(UINT), UINT, number)
        return 0

    def _vgpu_name(self, number: int, room: int, size: int) -> int:
        return _write(VGPUS[number][0], room, UINT.from_address(size).value)

    def _vgpu_most(self, _handle: int, number: int, out: int) -> int:
        return _put(out, UINT, VGPUS[number][1])

    def _vgpu_memory(self, number: int, out: int) -> int:
        return _put(out, ULL, VGPUS[number][2])


@contextmanager
def under(driver: Driver | None) -> Iterator[Any]:
    """Give the binding with this driver below it; None: it has not looked for one yet."""
    library, functions = pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache)  # the one place where it finds its library
    pynvml.nvmlLib = driver
    pynvml._nvmlGetFunctionPointer_cache.clear()
    try:
        yield pynvml
    finally:
        pynvml.nvmlLib = library
        pynvml._nvmlGetFunctionPointer_cache.clear()
        pynvml._nvmlGetFunctionPointer_cache.update(functions)


def _as_c(function: Callable[..., int], count: int) -> Any:
    """Return a function of C as `ctypes.CDLL` would give it. Behind it every argument is as wide as a pointer."""
    behind = ctypes.CFUNCTYPE(ctypes.c_int, *([ctypes.c_size_t] * count))(function)
    before = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.cast(behind, ctypes.c_void_p).value or 0)
    before.behind = behind  # type: ignore[attr-defined]  # lives as long
    return before


def _put(out: int, kind: Any, value: int) -> int:
    kind.from_address(out).value = value
    return 0


def _write(text: bytes, room: int, size: int) -> int:
    if len(text) + 1 > size:
        return TOO_SMALL
    ctypes.memmove(room, text + b"\0", len(text) + 1)
    return 0
