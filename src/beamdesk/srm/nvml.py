"""Cards that the host's own driver runs, through NVIDIA's management library (nvidia-ml-py). Absent library = no such cards.

Every question may be answered with "not supported": then the answer is not known. A card that is lost or needs a reset is a fault.
Nothing here changes a card's settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from beamdesk.protocol.srm import LendMode, PartsFacts, ProfileFacts

_MIB = 1 << 20
_MIG_PROFILES = 16


@dataclass(frozen=True, slots=True)
class NvmlCard:
    """One card as NVML describes it. ``busy`` 0..1; None = not known."""

    address: str
    model: str
    uuid: str
    mode: LendMode
    memory_mib: int | None
    cores: int | None
    bandwidth_gbs: int | None
    clock_mhz: int | None
    nvenc: bool | None
    ecc: bool | None
    parts: PartsFacts | None
    held: bool
    busy: float | None
    memory_used_mib: int | None
    temperature_c: int | None
    power_w: int | None
    ecc_uncorrected: int | None
    fault: str


class Nvml:
    """An open NVML; ``library`` is the module `pynvml`, or a recording of it."""

    def __init__(self, library: Any) -> None:
        self._lib = library
        self._faults: list[str] = []

    def close(self) -> None:
        """Let NVML go."""
        self._ask("nvmlShutdown")

    def cards(self) -> tuple[NvmlCard, ...]:
        """Return the cards that the driver runs, by address."""
        count = self._ask("nvmlDeviceGetCount") or 0
        found = (self._card(index) for index in range(count))
        return tuple(sorted((card for card in found if card is not None), key=lambda card: card.address))

    def _ask(self, name: str, *arguments: Any) -> Any:
        """Call NVML; None when it does not support, know or permit it. Losing a card is remembered as its fault."""
        function: Callable[..., Any] | None = getattr(self._lib, name, None)
        if function is None:
            return None
        try:
            return function(*arguments)
        except self._lib.NVMLError as error:
            code = getattr(error, "value", None)
            lost = {getattr(self._lib, "NVML_ERROR_GPU_IS_LOST", -1), getattr(self._lib, "NVML_ERROR_RESET_REQUIRED", -1)}
            if code in lost:
                self._faults.append(str(error)[:120])
            return None

    def _card(self, index: int) -> NvmlCard | None:
        self._faults.clear()
        handle = self._ask("nvmlDeviceGetHandleByIndex", index)
        pci = self._ask("nvmlDeviceGetPciInfo", handle) if handle is not None else None
        if pci is None:
            return None
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        use = self._ask("nvmlDeviceGetUtilizationRates", handle)
        mode, parts = self._mode(handle)
        power = self._ask("nvmlDeviceGetPowerUsage", handle)
        return NvmlCard(
            address=address_of(_text(pci.busId)),
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
        capacity = self._ask("nvmlDeviceGetEncoderCapacity", handle, self._lib.NVML_ENCODER_QUERY_H264)
        return capacity > 0 if capacity is not None else None

    def _ecc(self, handle: Any) -> bool | None:
        modes = self._ask("nvmlDeviceGetEccMode", handle)
        return bool(modes[0]) if modes is not None else None

    def _ecc_errors(self, handle: Any) -> int | None:
        lib = self._lib
        count = self._ask("nvmlDeviceGetTotalEccErrors", handle, lib.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, lib.NVML_VOLATILE_ECC)
        return int(count) if count is not None else None

    def _held(self, handle: Any) -> bool:
        running = (self._ask(f"nvmlDeviceGet{kind}RunningProcesses", handle) for kind in ("Compute", "Graphics"))
        return any(processes for processes in running)

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
        for number in range(_MIG_PROFILES):
            info = self._ask("nvmlDeviceGetGpuInstanceProfileInfo", handle, number, 2)
            places = self._ask("nvmlDeviceGetGpuInstancePossiblePlacements", handle, info.id) if info is not None else None
            if info is not None and places:
                found.append((info, sorted({(place.start, place.size) for place in places})))
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


def address_of(bus_id: str) -> str:
    """Return sysfs's form of NVML's PCI address: ``00000000:3B:00.0`` is ``0000:3b:00.0``."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{int(domain or '0', 16):04x}:{rest}"


def open_nvml() -> Nvml | None:
    """Open the library; None when it or the driver is not there."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return Nvml(pynvml)
