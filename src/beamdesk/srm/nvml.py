"""Cards that the host's own driver runs, through NVIDIA's management library (nvidia-ml-py). Without it nothing is known of them.

Every question may be answered with "not supported": then the answer is not known. A card that is lost or needs a reset is a fault.
Nothing here changes a card's settings. While it is open the library holds the driver: no card can be taken from it, and it is not
unloaded. So it is opened when the driver has a card, and closed when it has none any more.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from beamdesk.protocol.srm import LendMode, PartsFacts, ProfileFacts

_MIB = 1 << 20
_MIG_PROFILES = 18
"""How many kinds of MIG profiles there are, where the library does not say; NVML's ``NVML_GPU_INSTANCE_PROFILE_COUNT``."""


@dataclass(frozen=True, slots=True)
class NvmlCard:
    """One card as NVML describes it; what is left out is not known. ``busy`` 0..1."""

    address: str
    fault: str = ""
    model: str = ""
    uuid: str = ""
    mode: LendMode = LendMode.HOST
    memory_mib: int | None = None
    cores: int | None = None
    bandwidth_gbs: int | None = None
    clock_mhz: int | None = None
    nvenc: bool | None = None
    ecc: bool | None = None
    parts: PartsFacts | None = None
    held: bool = False
    busy: float | None = None
    memory_used_mib: int | None = None
    temperature_c: int | None = None
    power_w: int | None = None
    ecc_uncorrected: int | None = None


class Nvml:
    """NVML, opened when it is needed.

    Args:
        library: the module `pynvml`.
        log: told why the library cannot be opened, once for each reason.
    """

    def __init__(self, library: Any, log: Callable[[str], None] = lambda _: None) -> None:
        self._lib = library
        self._log = log
        self._is_open = False
        self._problem = ""
        self._faults: list[str] = []
        self._lost = _codes(library, "GPU_IS_LOST", "RESET_REQUIRED")
        self._gone = _codes(library, "UNINITIALIZED", "DRIVER_NOT_LOADED")

    def close(self) -> None:
        """Let the driver go."""
        if self._is_open:
            self._is_open = False
            self._ask("nvmlShutdown")

    def cards(self, addresses: Collection[str]) -> tuple[NvmlCard, ...]:
        """Return what is known of the cards at these PCI addresses, all of which NVIDIA's driver runs."""
        if not addresses:
            self.close()
        elif not self._is_open:
            self._open()
        found = (self._card(address) for address in addresses if self._is_open)
        return tuple(card for card in found if card is not None)

    def _open(self) -> None:
        try:
            self._lib.nvmlInit()
        except self._lib.NVMLError as error:
            problem = str(error)
        else:
            self._is_open, problem = True, ""
        if problem and problem != self._problem:
            self._log(f"NVML does not answer: {problem}")
        self._problem = problem

    def _ask(self, name: str, *arguments: Any) -> Any:
        """Call NVML; None when it does not support, know or permit it. Losing a card is remembered as its fault."""
        function: Callable[..., Any] | None = getattr(self._lib, name, None)
        if function is None:
            return None
        try:
            return function(*arguments)
        except self._lib.NVMLError as error:
            if error.value in self._lost:
                self._faults.append(str(error)[:120])
            if error.value in self._gone:
                self.close()  # the next look opens it again
            return None

    def _card(self, address: str) -> NvmlCard | None:
        self._faults.clear()
        handle = self._ask("nvmlDeviceGetHandleByPciBusId", address)
        if handle is None:
            return NvmlCard(address, self._faults[0]) if self._faults else None
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        use = self._ask("nvmlDeviceGetUtilizationRates", handle)
        mode, parts = self._mode(handle)
        power = self._ask("nvmlDeviceGetPowerUsage", handle)
        return NvmlCard(
            address=address,
            model=_text(self._ask("nvmlDeviceGetName", handle)).removeprefix("NVIDIA ")[:128],
            uuid=_text(self._ask("nvmlDeviceGetUUID", handle)),
            mode=mode,
            memory_mib=memory.total // _MIB if memory is not None else None,
            cores=self._ask("nvmlDeviceGetNumGpuCores", handle),
            bandwidth_gbs=self._bandwidth(handle),
            clock_mhz=self._ask("nvmlDeviceGetMaxClockInfo", handle, self._lib.NVML_CLOCK_SM),
            nvenc=self._nvenc(handle),
            ecc=self._ecc(handle),
            parts=parts,
            held=self._held(handle),
            busy=use.gpu / 100 if use is not None else None,
            memory_used_mib=memory.used // _MIB if memory is not None else None,
            temperature_c=self._ask("nvmlDeviceGetTemperature", handle, self._lib.NVML_TEMPERATURE_GPU),
            power_w=power // 1000 if power is not None else None,
            ecc_uncorrected=self._ecc_errors(handle),
            fault=self._faults[0] if self._faults else "",
        )

    def _bandwidth(self, handle: Any) -> int | None:
        """Return GB/s: two transfers a clock, over the bus's width."""
        clock = self._ask("nvmlDeviceGetMaxClockInfo", handle, self._lib.NVML_CLOCK_MEM)
        width = self._ask("nvmlDeviceGetMemoryBusWidth", handle)
        return 2 * clock * width // 8 // 1000 if clock and width else None

    def _nvenc(self, handle: Any) -> bool | None:
        """Tell whether there is an encoder; what is left of it now may also be nothing because all of it is in use."""
        return True if self._ask("nvmlDeviceGetEncoderCapacity", handle, self._lib.NVML_ENCODER_QUERY_H264) else None

    def _ecc(self, handle: Any) -> bool | None:
        modes = self._ask("nvmlDeviceGetEccMode", handle)
        return bool(modes[0]) if modes is not None else None

    def _ecc_errors(self, handle: Any) -> int | None:
        lib = self._lib
        count = self._ask("nvmlDeviceGetTotalEccErrors", handle, lib.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, lib.NVML_VOLATILE_ECC)
        return int(count) if count is not None else None

    def _held(self, handle: Any) -> bool:
        return any(self._processes(handle, kind) for kind in ("Compute", "Graphics"))

    def _processes(self, handle: Any, kind: str) -> list[Any]:
        """Return who computes or draws on a card; drivers before 510 do not have the newer function."""
        for version in ("_v3", "_v2"):
            running: list[Any] | None = self._ask(f"nvmlDeviceGet{kind}RunningProcesses{version}", handle)
            if running is not None:
                return running
        return []

    def _mode(self, handle: Any) -> tuple[LendMode, PartsFacts | None]:
        mig = self._ask("nvmlDeviceGetMigMode", handle)
        if mig is not None and mig[0] == 1:
            parts = self._mig(handle)
            return (LendMode.MIG, parts) if parts else (LendMode.HOST, None)
        virtual = self._ask("nvmlDeviceGetVirtualizationMode", handle)
        if virtual is not None and virtual == getattr(self._lib, "NVML_GPU_VIRTUALIZATION_MODE_HOST_VGPU", -1):
            parts = self._vgpu(handle)
            return (LendMode.VGPU, parts) if parts else (LendMode.HOST, None)
        return LendMode.HOST, None

    def _mig(self, handle: Any) -> PartsFacts | None:
        """Return the MIG profiles and where each may lie, as `nvidia-smi mig -lgipp` lists them."""
        found = []
        for number in range(getattr(self._lib, "NVML_GPU_INSTANCE_PROFILE_COUNT", _MIG_PROFILES)):
            info = self._ask("nvmlDeviceGetGpuInstanceProfileInfo", handle, number, 2)
            places = self._places(handle, info.id) if info is not None else []
            if places:
                found.append((info, places))
        if not found:
            return None
        slices = max(info.sliceCount for info, _ in found)
        profiles = tuple(
            ProfileFacts(
                name=_text(info.name).removeprefix("MIG ")[:64],
                milli=max(1, 1000 * info.sliceCount // slices),
                span=places[0][1],
                starts=tuple(start for start, _ in places),
                memory_mib=max(1, int(info.memorySizeMB)),
            )
            for info, places in found
        )
        slots = max(start + profile.span for profile in profiles for start in profile.starts)
        model = _text(self._ask("nvmlDeviceGetName", handle)).removeprefix("NVIDIA ")
        return PartsFacts(f"mig-{model}"[:128], slots, mixed=True, profiles=_once(profiles))

    def _places(self, handle: Any, profile: int) -> list[tuple[int, int]]:
        """Return start and size of each place for a MIG profile; asked without room, the library says how many there are."""
        count = ctypes.c_uint()
        self._ask("nvmlDeviceGetGpuInstancePossiblePlacements", handle, profile, None, ctypes.byref(count))
        places = (self._lib.c_nvmlGpuInstancePlacement_t * count.value)()
        self._ask("nvmlDeviceGetGpuInstancePossiblePlacements", handle, profile, places, ctypes.byref(count))
        return sorted({(place.start, place.size) for place in places[: count.value] if place.size})

    def _vgpu(self, handle: Any) -> PartsFacts | None:
        """Return the vGPU types: a card carries any number of one type at a time, up to that type's maximum."""
        found = []
        for number in self._ask("nvmlDeviceGetSupportedVgpus", handle) or ():
            name = _text(self._ask("nvmlVgpuTypeGetName", number)).removeprefix("NVIDIA ").removeprefix("GRID ")
            most = self._ask("nvmlVgpuTypeGetMaxInstances", handle, number)
            memory = self._ask("nvmlVgpuTypeGetFramebufferSize", number)
            if name and most and 0 < most <= 62 and memory:
                found.append(ProfileFacts(name[:64], 1000 // most, 1, tuple(range(most)), max(1, memory // _MIB)))
        if not found:
            return None
        model = _text(self._ask("nvmlDeviceGetName", handle)).removeprefix("NVIDIA ")
        slots = max(len(profile.starts) for profile in found)
        return PartsFacts(f"vgpu-{model}"[:128], slots, mixed=False, profiles=_once(tuple(found)))


def _once(profiles: tuple[ProfileFacts, ...]) -> tuple[ProfileFacts, ...]:
    """Return the first profile of each name (variants with media extensions share a size), at most 64."""
    return tuple({profile.name: profile for profile in reversed(profiles)}.values())[::-1][:64]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def _codes(library: Any, *names: str) -> frozenset[int]:
    return frozenset(getattr(library, f"NVML_ERROR_{name}") for name in names)


def load_nvml(log: Callable[[str], None]) -> Nvml | None:
    """Return NVML, not opened yet; None where nvidia-ml-py is not installed."""
    try:
        import pynvml
    except ImportError:
        return None
    return Nvml(pynvml, log)
