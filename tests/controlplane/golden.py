"""The first state of a cloud (databases, keys, images), made once and copied into each instance: migrations take minutes, a copy a second.

The cache's name is a digest of all that the state follows from, so a change of any of it makes a new one.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import broker, clouds, configs, content, database
from .environment import cache_folder, digest, install_plugins, locked
from .layout import HERE, PASSWORD, REGION, Layout, Options
from .processes import Processes, wait_for
from .services import APIS, Services, environment

_SOURCES = ("clouds.py", "content.py", "golden.py")
_PARTS = ("mysql", "keys", "images")


def ensure(venv: Path, say: Callable[[str], None]) -> Path:
    """Return the folder with the state, made now if it is not there."""
    version = subprocess.run(["mariadbd", "--no-defaults", "--version"], check=True, capture_output=True).stdout
    folder = cache_folder() / f"golden-{digest(version, *(HERE / name for name in _SOURCES))}"
    with locked(cache_folder()):
        if not folder.exists():
            say("making the databases (once, some minutes)")
            for old in folder.parent.glob("golden-*"):
                shutil.rmtree(old)  # nobody holds it: copies are made under this lock, or before
            _make(folder, venv, say)
    return folder


def copy(golden: Path, layout: Layout) -> None:
    """Copy the state into an instance."""
    for part in _PARTS:
        subprocess.run(["cp", "-a", "--reflink=auto", str(golden / part), str(layout.root / part)], check=True)


def _make(folder: Path, venv: Path, say: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory(prefix="beamdesk-golden-") as scratch:
        layout = Layout.open(Path(scratch))
        options = Options(hosts=0)
        for sub in (layout.logs, layout.pids):
            sub.mkdir()
        install_plugins(layout.root / "plugins")
        layout.write_farm(options)
        configs.write_all(layout, venv, options)
        clouds.write(layout)
        processes = Processes(layout, environment(layout, venv, options), tied=True)
        try:
            broker.start(layout, processes)
            database.install(layout, processes)
            database.start(layout, processes)
            _migrate(layout, venv, processes, say)
            _fill(layout, venv, options, processes, say)
        finally:
            processes.stop(*(name for name in processes.names() if name != "mysql"))
            processes.stop("mysql", timeout_s=120)
            processes.close()
        unfinished = folder.with_name("unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        for part in _PARTS:
            shutil.move(layout.root / part, unfinished / part)
        unfinished.rename(folder)


def _migrate(layout: Layout, venv: Path, processes: Processes, say: Callable[[str], None]) -> None:
    for name in database.DATABASES:
        database.query(layout, f"create database {name}")
    programs, etc = venv / "bin", layout.etc
    keystone: list[str | Path] = [programs / "keystone-manage", "--config-file", etc / "keystone/keystone.conf"]
    nova: list[str | Path] = [programs / "nova-manage", "--config-file", etc / "nova/nova.conf"]
    keys = layout.root / "keys"
    for sub in ("fernet", "credential"):
        (keys / sub).mkdir(parents=True, mode=0o700)
    owner = ("--keystone-user", str(keys.owner()), "--keystone-group", str(keys.group()))
    address = f"{layout.url('keystone')}/v3"
    urls = [part for kind in ("admin", "public", "internal") for part in (f"--bootstrap-{kind}-url", address)]
    steps: list[list[str | Path]] = [
        [*keystone, "db_sync"],
        [*keystone, "fernet_setup", *owner],
        [*keystone, "credential_setup", *owner],
        [*keystone, "bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", REGION, *urls],
        [programs / "placement-manage", "--config-file", etc / "placement/placement.conf", "db", "sync"],
        [programs / "glance-manage", "--config-file", etc / "glance/glance-api.conf", "db_sync"],
        [programs / "neutron-db-manage", "--config-file", etc / "neutron/neutron.conf", "upgrade", "heads"],
        [programs / "cinder-manage", "--config-file", etc / "cinder/cinder.conf", "db", "sync"],
        [*nova, "api_db", "sync"],
        [*nova, "cell_v2", "map_cell0", "--database_connection", layout.database_url("nova_cell0")],
        [*nova, "db", "sync"],
        [*nova, "cell_v2", "create_cell", "--name", "cell1"],
    ]
    for step in steps:
        say(f"  {Path(step[0]).name} {' '.join(map(str, step[3:5]))}".rstrip())
        processes.run(step)


def _fill(layout: Layout, venv: Path, options: Options, processes: Processes, say: Callable[[str], None]) -> None:
    services = Services(layout, venv, options, processes)
    ports = [layout.ports[port] for port in ("keystone", "placement", "glance", "neutron", "nova", "cinder")]
    say("  accounts, flavors, network, image")
    services.start("keystone")
    wait_for(lambda: broker.listening(ports[0]), "Keystone")
    content.make_catalogue(layout)
    broker.wait(layout)
    for name in APIS:
        services.start(name)
    wait_for(lambda: all(map(broker.listening, ports)), "the APIs")
    content.make_content(layout)
