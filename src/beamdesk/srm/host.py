"""The host itself: CPUs, memory, NUMA, disk, network, and how busy they are."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from beamdesk.protocol.srm import HostFacts, HostLoad, LinkFacts, NumaFacts
from beamdesk.srm.files import names, number, ranges, read

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Counters:
    """What only means something as a difference: CPU time (busy, all) and bytes over all links, at a monotonic time."""

    at: float
    busy: int
    total: int
    received: int
    sent: int


def node_index(sys: Path) -> dict[int, int]:
    """Return the place in `HostFacts.numa` of each of the kernel's NUMA nodes (which may have gaps)."""
    return {node: place for place, node in enumerate(_nodes(sys))}


def _nodes(sys: Path) -> list[int]:
    found = [name.removeprefix("node") for name in names(sys / "devices/system/node") if name.startswith("node")]
    return sorted(int(one) for one in found if one.isdecimal())


def facts(sys: Path, proc: Path, disk: Path) -> HostFacts:
    """Describe the host. NUMA nodes add up to the whole: the whole is their sum."""
    online = ranges(read(sys / "devices/system/cpu/online"))
    numa = tuple(_node(sys / f"devices/system/node/node{node}", online) for node in _nodes(sys))
    memory = _meminfo(read(proc / "meminfo")).get("MemTotal", 0) // 1024
    return HostFacts(
        cpus=max(1, sum(node.cpus for node in numa) if numa else len(online)),
        memory_mib=max(1, sum(node.memory_mib for node in numa) if numa else memory),
        disk_gib=_disk(disk)[0],
        cpu_model=_cpu_model(read(proc / "cpuinfo")),
        kernel=read(proc / "sys/kernel/osrelease")[:128],
        numa=numa if sum(node.cpus for node in numa) else (),
        links=_links(sys),
    )


def _node(path: Path, online: set[int]) -> NumaFacts:
    text = read(path / "meminfo").replace(f"Node {path.name.removeprefix('node')} ", "")
    return NumaFacts(len(ranges(read(path / "cpulist")) & online), _meminfo(text).get("MemTotal", 0) // 1024)


def _meminfo(text: str) -> dict[str, int]:
    """Return the KiB of each line of a meminfo file."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        value = rest.split()
        if value and value[0].isdecimal():
            found[name.strip()] = int(value[0])
    return found


def _cpu_model(text: str) -> str:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())[:128]
    return ""


def _disk(path: Path) -> tuple[int, int]:
    """Return GiB in total and in use of the file system that holds ``path``, or would hold it."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        stat = os.statvfs(path)
    except OSError:
        return 0, 0
    return stat.f_blocks * stat.f_frsize // _GIB, (stat.f_blocks - stat.f_bfree) * stat.f_frsize // _GIB


def _links(sys: Path) -> tuple[LinkFacts, ...]:
    found = []
    for name in _physical(sys)[:64]:
        path = sys / "class/net" / name
        up = read(path / "operstate") == "up"
        speed = number(path / "speed") if up else None
        found.append(LinkFacts(name[:32], up, speed if speed is not None and speed > 0 else None))
    return tuple(found)


def _physical(sys: Path) -> list[str]:
    return [name for name in names(sys / "class/net") if (sys / "class/net" / name / "device").exists()]


def counters(sys: Path, proc: Path, clock: Callable[[], float] = time.monotonic) -> Counters:
    """Read the counters now."""
    fields = [int(field) for field in read(proc / "stat").partition("\n")[0].split()[1:9] if field.isdecimal()]
    idle = sum(fields[3:5])
    statistics = [sys / "class/net" / name / "statistics" for name in _physical(sys)]
    received, sent = (sum(number(path / name) or 0 for path in statistics) for name in ("rx_bytes", "tx_bytes"))
    return Counters(clock(), sum(fields) - idle, sum(fields), received, sent)


def load(proc: Path, disk: Path, before: Counters, now: Counters) -> HostLoad:
    """Describe what the host did between two readings; counters that went backwards count as nothing."""
    memory = _meminfo(read(proc / "meminfo"))
    ticks, seconds = now.total - before.total, now.at - before.at
    busy = (now.busy - before.busy) / ticks if ticks > 0 else 0.0
    return HostLoad(
        cpu=round(min(max(busy, 0.0), 1.0), 3),
        memory_used_mib=max(0, memory.get("MemTotal", 0) - memory.get("MemAvailable", 0)) // 1024,
        disk_used_gib=_disk(disk)[1],
        received_bytes_s=_rate(now.received - before.received, seconds),
        sent_bytes_s=_rate(now.sent - before.sent, seconds),
    )


def _rate(count: int, seconds: float) -> int:
    return int(count / seconds) if seconds > 0 and count > 0 else 0
