"""A private MariaDB on a Unix socket, without a network port and without durability: the instance is thrown away."""

from __future__ import annotations

import shutil
import subprocess

from .layout import Layout
from .processes import ControlPlaneError, Processes, wait_for

DATABASES = ("keystone", "placement", "glance", "nova_api", "nova_cell0", "nova_cell1", "neutron", "cinder")


def install(layout: Layout, processes: Processes) -> None:
    """Make an empty data directory."""
    processes.run([
        "mariadb-install-db", "--no-defaults", f"--datadir={layout.database}", "--auth-root-authentication-method=normal",
        "--skip-test-db", "--skip-name-resolve", f"--tmpdir={layout.root}", *_as_root(),
    ])  # fmt: skip


def start(layout: Layout, processes: Processes) -> None:
    """Start the server and return when it answers."""
    spawn(layout, processes)
    wait(layout)


def spawn(layout: Layout, processes: Processes) -> None:
    """Start the server."""
    processes.spawn("mysql", [
        shutil.which("mariadbd") or "/usr/sbin/mariadbd", "--no-defaults", f"--datadir={layout.database}", f"--socket={layout.socket}",
        f"--pid-file={layout.root}/mysql.pid", f"--tmpdir={layout.root}", "--skip-networking", "--skip-log-bin", "--max-connections=2000",
        "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--innodb-doublewrite=0", "--innodb-log-file-size=16M",
        "--innodb-buffer-pool-size=256M", "--performance-schema=OFF", "--character-set-server=utf8mb3",
        "--collation-server=utf8mb3_general_ci", *_as_root(),
    ])  # fmt: skip


def wait(layout: Layout) -> None:
    """Return when it answers."""
    wait_for(lambda: _answers(layout), "MariaDB (log/mysql.log)")


def _as_root() -> list[str]:
    # MariaDB refuses root unless it is told so; `--user` as anyone else is refused in turn.
    import os

    return ["--user=root"] if os.geteuid() == 0 else []


def _answers(layout: Layout) -> bool:
    try:
        query(layout, "select 1")
    except ControlPlaneError:
        return False
    return True


def query(layout: Layout, statement: str) -> str:
    """Run SQL and return the bare rows."""
    done = subprocess.run(
        ["mariadb", "--no-defaults", "-uroot", f"-S{layout.socket}", "-NBe", statement], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise ControlPlaneError(f"SQL failed: {done.stderr.strip()}")
    return done.stdout


def move_in(layout: Layout) -> None:
    """Point what the databases know of addresses at this instance's ports and socket: they come from a copy."""
    statements = [
        f"update keystone.endpoint e join keystone.service s on e.service_id = s.id "
        f"set e.url = regexp_replace(e.url, '127\\\\.0\\\\.0\\\\.1:[0-9]+', '127.0.0.1:{layout.ports[port]}') where s.type = '{kind}'"
        for kind, port in (
            ("identity", "keystone"), ("placement", "placement"), ("image", "glance"), ("compute", "nova"), ("network", "neutron"),
            ("block-storage", "cinder"),
        )
    ]  # fmt: skip
    for name, cell in (("cell0", "nova_cell0"), ("cell1", "nova_cell1")):
        broker = "none:///" if name == "cell0" else layout.broker_url
        statements.append(
            f"update nova_api.cell_mappings set database_connection = '{layout.database_url(cell)}', transport_url = '{broker}' "
            f"where name = '{name}'"
        )
    query(layout, "; ".join(statements))
