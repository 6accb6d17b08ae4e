"""The cloud of these tests: a real control plane whose one host boots machines, with the built image in Glance and sizes on offer."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane import enclosure, machines
from controlplane.clouds import ADMIN
from controlplane.plane import ControlPlane, Options
from vm.machine import Inside, accelerator

SIZES = {"small": (1, 1024, 4), "medium": (2, 4096, 12)}
"""Name: vCPUs, MiB, GiB."""
BROKEN = "broken"
"""An image without a root file system: its kernel says so on the console and stops."""


@dataclass
class Cloud:
    """Made with `Cloud.running()`, in whose network this thread is meanwhile."""

    plane: ControlPlane
    accelerator: str

    @classmethod
    @contextmanager
    def running(cls, disk: Path) -> Iterator[Cloud]:
        kind = accelerator(disk)
        root = Path(tempfile.mkdtemp(prefix="beamdesk-cloud-", dir="/var/tmp"))
        options = Options(hosts=0, machines="kvm" if kind == "kvm" else "qemu")
        with enclosure.network(), ControlPlane(root, options, say=_say) as plane:
            cloud = cls(plane, kind)
            cloud._fill(disk)
            yield cloud

    def server(self, desktop_id: str) -> Any:
        """Return Nova's record of a desktop's server."""
        with self.plane.connect(ADMIN) as admin:
            found = [
                one
                for one in admin.compute.servers(all_projects=True)
                if one.metadata.get("beamdesk_desktop") == desktop_id and one.status != "DELETED"
            ]
        if not found:
            raise AssertionError(f"Nova has no server of {desktop_id}")
        return found[0]

    def left(self) -> dict[str, list[str]]:
        """Return the servers, ports and volumes that there are, by name."""
        with self.plane.connect(ADMIN) as admin:
            return {
                "servers": [one.name for one in admin.compute.servers(all_projects=True)],
                "ports": [one.name for one in admin.network.ports()],
                "volumes": [one.name for one in admin.block_storage.volumes(all_projects=True)],
            }

    def inside(self, desktop_id: str) -> Inside:
        return Inside(machines.socket(self.plane.layout), self.server(desktop_id).id)

    def domains(self) -> list[str]:
        """Return the ids of what libvirt knows, running or not."""
        command = ["virsh", "-c", f"qemu+unix:///system?socket={machines.socket(self.plane.layout)}", "list", "--all", "--uuid"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()

    def console(self, desktop_id: str) -> str:
        try:
            return machines.console(self.plane.layout, self.server(desktop_id).id).read_text(errors="replace")
        except (OSError, AssertionError) as error:
            return f"no console: {error}"

    def logs(self) -> str:
        logs = self.plane.layout.logs
        return "\n".join(f"== {name}\n{(logs / f'{name}.log').read_text()[-2000:]}" for name in ("compute-machines", "libvirtd"))

    def _fill(self, disk: Path) -> None:
        upload = [sys.executable, "-m", "beamdesk.adapters.vmimage", "upload", disk, "--cloud", ADMIN, "--public"]
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "OS_CLIENT_CONFIG_FILE": str(self.plane.clouds_yaml)}
        subprocess.run(list(map(str, upload)), env=environment, check=True, stdout=subprocess.DEVNULL)
        with self.plane.connect(ADMIN) as admin:
            for name, (vcpus, ram, disk_gib) in SIZES.items():
                flavor = admin.compute.create_flavor(name=name, vcpus=vcpus, ram=ram, disk=disk_gib)
                admin.compute.create_flavor_extra_specs(flavor, {"beamdesk:title_en": name.title()})
            self._make_broken_image(admin, disk)

    def _make_broken_image(self, admin: Any, disk: Path) -> None:
        def image(name: str, data: bytes, kind: str, container: str, **properties: str) -> Any:
            common = {"visibility": "public", "wait": True, "disk_format": kind, "container_format": container}
            return admin.image.create_image(name=name, data=data, **common, **properties)

        kernel = image("kernel", disk.with_name(f"{disk.name}.vmlinuz").read_bytes(), "aki", "aki")
        image(
            BROKEN,
            bytes(1 << 20),
            "raw",
            "bare",
            kernel_id=kernel.id,
            os_command_line="console=ttyS0 no_timer_check",
            beamdesk_image=BROKEN,
            beamdesk_title_en="Broken",
            beamdesk_order="99",
        )


def _say(text: str) -> None:
    sys.stdout.write(f"[cloud] {text}\n")
    sys.stdout.flush()
