"""Where an instance of the control plane lives: its options, folders and ports. No processes here."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("BEAMDESK_CACHE_DIR", "/var/cache/beamdesk")) / "openstack"
PASSWORD = "loopback-only"  # of every account; the instance listens on loopback and is thrown away
REGION = "RegionOne"
PORTS = ("keystone", "placement", "glance", "neutron", "nova", "cinder", "rabbit", "rabbit-distribution", "epmd", "metadata")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of simulated host; ``gpus`` are (PCI product id, how many)."""

    vcpus: int = 64
    memory_mb: int = 512 * 1024
    gpus: tuple[tuple[str, int], ...] = ()


A100, V100, T4 = "20b5", "1db6", "1eb8"
FARM = (Kind(), Kind(gpus=((A100, 4),)), Kind(gpus=((T4, 8),)), Kind(), Kind(gpus=((V100, 4),)))


@dataclass(frozen=True, slots=True)
class Options:
    """What an instance is like. Host number i (``host-007``) has kind ``farm[i % len(farm)]``."""

    hosts: int = 5
    hosts_per_process: int = 3
    farm: tuple[Kind, ...] = FARM
    nova: Mapping[str, Mapping[str, str | Sequence[str]]] = field(default_factory=dict)
    """More nova.conf, by section; it wins over ours."""
    python_path: tuple[str, ...] = ()
    """Folders from which OpenStack may import more, such as scheduler plugins."""
    volumes: bool = True
    """Run Cinder."""
    machines: str = ""
    """``kvm`` or ``qemu``: instead of simulated hosts one that boots machines so (`machines`). Start it in `enclosure.network`."""

    @property
    def known_hosts(self) -> int:
        """How many hosts Nova and Placement have when all are there."""
        return self.hosts + bool(self.machines)


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """Return a free loopback port for each name, below the range from which the kernel takes outgoing ones."""
    found: dict[str, int] = {}
    numbers = random.SystemRandom()
    while len(found) < len(names):
        port = numbers.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found.values():
            found[names[len(found)]] = port
    return found


@dataclass(frozen=True, slots=True)
class Layout:
    """The folder of one instance; a MariaDB socket lies in it, so its path has at most 90 characters."""

    root: Path
    ports: Mapping[str, int]

    @classmethod
    def open(cls, root: Path) -> Layout:
        """Return the layout in ``root``; its ports stay the same from one start to the next."""
        root = root.resolve()
        if len(str(root)) > 90:
            raise ValueError(f"the path of the instance is too long for a Unix socket: {root}")
        root.mkdir(parents=True, exist_ok=True)
        chosen = root / "ports.json"
        ports = json.loads(chosen.read_text()) if chosen.exists() else {}
        if lacking := [name for name in PORTS if name not in ports]:
            ports |= free_ports(lacking)
            chosen.write_text(json.dumps(ports))
        return cls(root, ports)

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def pids(self) -> Path:
        return self.root / "pid"

    @property
    def etc(self) -> Path:
        return self.root / "etc"

    @property
    def database(self) -> Path:
        return self.root / "mysql"

    @property
    def socket(self) -> Path:
        return self.root / "mysql.sock"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def faults(self) -> Path:
        return self.root / "faults"

    @property
    def clouds(self) -> Path:
        return self.root / "clouds.yaml"

    def url(self, service: str) -> str:
        """Return the root address of an API."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def database_url(self, name: str) -> str:
        """Return the address of one database, as SQLAlchemy and OpenStack's configuration spell it."""
        return f"mysql+pymysql://root@localhost/{name}?unix_socket={self.socket}&charset=utf8mb4"

    @property
    def broker_url(self) -> str:
        return f"rabbit://guest:guest@127.0.0.1:{self.ports['rabbit']}//"

    def write_farm(self, options: Options) -> None:
        """Write what the simulated hosts read."""
        (self.root / "farm").mkdir(exist_ok=True)
        self.faults.mkdir(exist_ok=True)
        kinds: list[dict[str, Any]] = [asdict(kind) for kind in options.farm]
        (self.root / "farm.json").write_text(json.dumps(kinds))
