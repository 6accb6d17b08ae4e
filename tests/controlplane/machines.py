"""The one host that really boots machines: nova-compute with libvirt and QEMU, and the metadata service that they ask.

Everything runs as plain processes in the namespaces of `enclosure`; the control plane must have been started in its network. Nova's own
metadata service answers behind `farm.metadata`, which finds out who asks, as Neutron's metadata agent does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from . import enclosure
from .layout import PASSWORD, Layout, Options
from .processes import Processes, wait_for

HOST = "machines-0"
FIRST, LAST = ("nova-metadata", "metadata", "enclosure", "virtlogd", "libvirtd"), ("compute-machines",)
"""What is started before and after the conductor."""
PROGRAMS = ("libvirtd", "virtlogd", "virsh", "qemu-system-x86_64", "qemu-img", "genisoimage", "ip", "nsenter", "mount")
_BINDING = Path("/usr/lib/python3/dist-packages")
_PRIVSEP = ("nova_sys_admin", "vif_plug_ovs_privileged", "privsep_osbrick")

Sections = dict[str, dict[str, str | int | Path | Sequence[str]]]


def folder(layout: Layout) -> Path:
    """Return where libvirt's sockets and Nova's disks of the machines are."""
    return layout.root / "machines"


def socket(layout: Layout) -> Path:
    """Return libvirt's socket."""
    return folder(layout) / "sockets/libvirt-sock"


def console(layout: Layout, server: str) -> Path:
    """Return the file of a machine's console."""
    return folder(layout) / "instances" / server / "console.log"


def metadata_settings() -> Sections:
    """Return what all of Nova must know, so that its metadata service believes ours."""
    return {"neutron": {"service_metadata_proxy": "true", "metadata_proxy_shared_secret": PASSWORD}}


def settings(layout: Layout, venv: Path, options: Options) -> Sections:
    """Return what the host's nova-compute has in addition to `nova-compute.conf`."""
    here = folder(layout)
    privsep = f"{venv}/bin/privsep-helper --config-file {layout.etc}/nova/nova-machines.conf"
    return {
        "DEFAULT": {
            "host": HOST,
            "compute_driver": "libvirt.LibvirtDriver",
            "state_path": here,
            "instances_path": here / "instances",
            "config_drive_format": "iso9660",
            "mkisofs_cmd": "genisoimage",
            "force_raw_images": "false",
            "sync_power_state_interval": 10,
        },
        "libvirt": {
            "virt_type": options.machines,
            # As an image would meet it on a real host; emulation has no other model than its own.
            "cpu_mode": "host-passthrough" if options.machines == "kvm" else "custom",
            **({} if options.machines == "kvm" else {"cpu_models": "Nehalem"}),
            "connection_uri": "qemu:///system",
            "images_type": "qcow2",
            "disk_cachemodes": "file=unsafe",  # nothing here outlives its test
            "inject_partition": -2,
            "hw_machine_type": "x86_64=q35",
            # A machine that is emulated takes long to notice that its power button was pressed.
            "wait_soft_reboot_seconds": 120,
        },
        "pci": {"report_in_placement": "false"},
        "workarounds": {"disable_rootwrap": "true", "skip_cpu_compare_on_dest": "true", "skip_cpu_compare_at_startup": "true"},
        **{name: {"helper_command": privsep} for name in _PRIVSEP},
    }


class Machines:
    """Starts the processes of the host by name."""

    def __init__(self, layout: Layout, venv: Path, processes: Processes) -> None:
        self._layout = layout
        self._venv = venv
        self._processes = processes

    def start(self, name: str) -> None:
        """Start one process; running already is fine."""
        if name == "metadata":
            self._processes.spawn(name, [self._venv / "bin/python", "-m", "farm.metadata"], self._where_to_ask())
        elif name == "enclosure":
            self._processes.spawn(name, enclosure.holder(folder(self._layout)))
            wait_for(lambda: enclosure.is_ready(folder(self._layout)), "the enclosure", 30)
        elif name == "compute-machines":
            (folder(self._layout) / "instances").mkdir(exist_ok=True)
            compute = [self._venv / "bin/nova-compute", "--config-file", self._layout.etc / "nova/nova-machines.conf"]
            self._inside(name, compute, {"PYTHONPATH": str(self._binding())})
        else:
            self._inside(name, [name])
            wait_for((folder(self._layout) / f"sockets/{name.replace('libvirtd', 'libvirt')}-sock").exists, name, 60)

    def _inside(self, name: str, command: Sequence[str | Path], environment: dict[str, str] | None = None) -> None:
        holder = self._processes.pid("enclosure")
        if holder is not None:
            self._processes.spawn(name, enclosure.inside(holder, command), environment)

    def _where_to_ask(self) -> dict[str, str]:
        return {
            "OS_CLIENT_CONFIG_FILE": str(self._layout.clouds),
            "BEAMDESK_METADATA": f"{enclosure.METADATA} 127.0.0.1 {self._layout.ports['metadata']} {PASSWORD}",
        }

    def _binding(self) -> Path:
        """Return a folder with Debian's Python binding of its libvirt alone: the two must be of one version."""
        target = self._layout.root / "libvirt-python"
        target.mkdir(exist_ok=True)
        for source in (*_BINDING.glob("libvirt*.py"), *_BINDING.glob("libvirtmod*.so")):
            link = target / source.name
            link.unlink(missing_ok=True)
            link.symlink_to(source)
        return target
