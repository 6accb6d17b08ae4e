"""Trees as `/sys` and `/proc` show a host: two NUMA nodes, a network link, and whatever cards a test plugs in."""

from __future__ import annotations

import shutil
from pathlib import Path

NODES = 2
_MEMINFO = "MemTotal: {total} kB\nMemFree: 100 kB\nMemAvailable: {free} kB\n"


class Tree:
    """A host's trees under ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sys, self.proc = root / "sys", root / "proc"
        self._write("sys/devices/system/cpu/online", "0-15")
        for node in range(NODES):
            self._write(f"sys/devices/system/node/node{node}/cpulist", f"{8 * node}-{8 * node + 7}")
            self._write(
                f"sys/devices/system/node/node{node}/meminfo", f"Node {node} MemTotal:  67108864 kB\nNode {node} MemFree: 1 kB\n"
            )
        self._write("proc/meminfo", _MEMINFO.format(total=2 * 67108864, free=100663296))
        self._write("proc/cpuinfo", "processor : 0\nmodel name\t: AMD EPYC 7313   16-Core\n")
        self._write("proc/sys/kernel/osrelease", "6.1.0-18-amd64")
        self._write("proc/sys/kernel/random/boot_id", "11111111-2222-3333-4444-555555555555")
        self._write("machine-id", "0123456789abcdef0123456789abcdef")
        self.busy(100, 900)
        self.link("eth0")
        (self.sys / "bus/pci/devices").mkdir(parents=True)
        (self.sys / "class/net/lo").mkdir()

    def _write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def busy(self, busy: int, idle: int) -> None:
        """Set the CPU's counters."""
        self._write("proc/stat", f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3 4")

    def link(self, name: str, received: int = 0, sent: int = 0) -> None:
        """Set a physical network interface's counters."""
        (self.sys / f"class/net/{name}/device").mkdir(parents=True, exist_ok=True)
        self._write(f"sys/class/net/{name}/operstate", "up")
        self._write(f"sys/class/net/{name}/speed", "100000")
        self._write(f"sys/class/net/{name}/statistics/rx_bytes", str(received))
        self._write(f"sys/class/net/{name}/statistics/tx_bytes", str(sent))

    def plug(
        self,
        address: str,
        device: str = "2230",
        subsystem: str = "1459",
        *,
        vendor: str = "10de",
        driver: str = "vfio-pci",
        kind: str = "0x030000",
        node: int = 0,
        group: int = 42,
    ) -> Path:
        """Put a PCI device in."""
        path = f"sys/bus/pci/devices/{address}"
        values = {
            "vendor": f"0x{vendor}",
            "device": f"0x{device}",
            "subsystem_vendor": "0x10de",
            "subsystem_device": f"0x{subsystem}",
        }
        values |= {"class": kind, "numa_node": str(node), "max_link_width": "16", "max_link_speed": "16.0 GT/s PCIe"}
        for name, value in values.items():
            self._write(f"{path}/{name}", value)
        folder = self.root / path
        (folder / "iommu_group").symlink_to(f"../../../../kernel/iommu_groups/{group}")
        if driver:
            (folder / "driver").symlink_to(f"../../../../bus/pci/drivers/{driver}")
        return folder

    def unplug(self, address: str) -> None:
        """Take a PCI device out."""
        shutil.rmtree(self.sys / "bus/pci/devices" / address)

    def start_server(self, pid: int, server: str, group: int | str = 42) -> None:
        """Have a QEMU process hold a card."""
        folder = self.proc / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "fd" / "30").symlink_to("/dev/vfio/vfio")
        (folder / "fd" / "31").symlink_to(f"/dev/vfio/{group}")
        (folder / "cmdline").write_text(f"/usr/bin/qemu-system-x86_64\0-name\0guest=i\0-uuid\0{server}\0")

    def stop_server(self, pid: int) -> None:
        """End it."""
        shutil.rmtree(self.proc / str(pid))
