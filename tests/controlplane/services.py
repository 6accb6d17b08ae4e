"""The OpenStack processes of one instance: their names, commands and order. Names are what tests stop and start."""

from __future__ import annotations

from pathlib import Path

from . import machines
from .layout import Layout, Options
from .processes import Processes

APIS = ("keystone", "placement", "glance", "neutron", "nova-api", "cinder-api")
_WSGI = {
    "keystone": ("keystone", "keystone.wsgi.api", 8),
    "placement": ("placement", "placement.wsgi.api", 8),
    "glance": ("glance", "glance.wsgi.api", 4),
    "neutron": ("neutron", "neutron.wsgi.api", 8),
    "nova-api": ("nova", "nova.wsgi.osapi_compute", 8),
    "cinder-api": ("cinder", "cinder.wsgi.api", 4),
    "nova-metadata": ("metadata", "nova.wsgi.metadata", 2),
}  # name: (port, module, threads)


def environment(layout: Layout, venv: Path, options: Options) -> dict[str, str]:
    """Return the environment of every process: nothing of the caller's but where programs are."""
    return {
        "PATH": f"{venv}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(layout.root),
        "LANG": "C.UTF-8",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": ":".join([str(layout.root / "plugins"), *options.python_path]),
        "OS_KEYSTONE_CONFIG_DIR": str(layout.etc / "keystone"),
        "OS_PLACEMENT_CONFIG_DIR": str(layout.etc / "placement"),
        "OS_GLANCE_CONFIG_DIR": str(layout.etc / "glance"),
        "OS_NOVA_CONFIG_DIR": str(layout.etc / "nova"),
        "OS_NEUTRON_CONFIG_DIR": str(layout.etc / "neutron"),
        "OS_NEUTRON_CONFIG_FILES": "neutron.conf",
        "BEAMDESK_FARM": str(layout.root / "farm.json"),
        "BEAMDESK_FAULTS": str(layout.faults),
    }


def compute_processes(options: Options) -> dict[str, tuple[int, int]]:
    """Return the processes that run simulated hosts: name to (first host, how many)."""
    step = options.hosts_per_process
    firsts = range(0, options.hosts, step)
    return {f"compute-{index}": (first, min(step, options.hosts - first)) for index, first in enumerate(firsts)}


class Services:
    """Starts single services by name."""

    def __init__(self, layout: Layout, venv: Path, options: Options, processes: Processes) -> None:
        self._layout = layout
        self._venv = venv
        self._options = options
        self._processes = processes
        self._machines = machines.Machines(layout, venv, processes)

    def start(self, name: str) -> None:
        """Start one service; running already is fine."""
        if name in _WSGI:
            self._start_api(name)
        elif name in (*machines.FIRST, *machines.LAST):
            self._machines.start(name)
        elif name.startswith("compute-"):
            first, count = compute_processes(self._options)[name]
            self._spawn(name, [self._venv / "bin/python", "-m", "farm.computes", str(first), str(count)], "nova/nova-compute.conf")
        elif name in ("cinder-scheduler", "cinder-volume"):
            self._spawn(name, [self._venv / "bin" / name], "cinder/cinder.conf")
        else:
            file = {"conductor": "nova.conf", "scheduler": "nova-scheduler.conf"}[name]
            self._spawn(name, [self._venv / f"bin/nova-{name}"], f"nova/{file}")

    def _spawn(self, name: str, command: list[str | Path], file: str) -> None:
        self._processes.spawn(name, [*command, "--config-file", self._layout.etc / file])

    def _start_api(self, name: str) -> None:
        port, module, threads = _WSGI[name]
        arguments = ["--pyargv", f"--config-file {self._layout.etc}/cinder/cinder.conf"] if name == "cinder-api" else []
        self._processes.spawn(name, [
            self._venv / "bin/uwsgi", "--http-socket", f"127.0.0.1:{self._layout.ports[port]}", "--module", f"{module}:application",
            "--master", "--processes", "1", "--threads", str(threads), "--enable-threads", "--lazy-apps", "--need-app", "--die-on-term",
            "--buffer-size", "65535", "--thunder-lock", "--http-chunked-input", "--add-header", "Connection: close",
            "--disable-logging", "--listen", "100", "--venv", self._venv, *arguments,
        ])  # fmt: skip
