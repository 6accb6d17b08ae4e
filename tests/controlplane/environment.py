"""The virtual environment that OpenStack runs in: made once for a lock file, shared by all instances, never Beamdesk's own."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .layout import CACHE, HERE
from .processes import ControlPlaneError

PYTHON = Path("/usr/bin/python3")
LOCK = HERE / "requirements.lock"
PROGRAMS = ("mariadbd", "mariadb-install-db", "mariadb", "epmd", "/usr/lib/rabbitmq/bin/rabbitmq-server")
_PLUGINS = {"neutron.ml2.mechanism_drivers": "anyport = farm.anyport:AnyPort"}


def digest(*parts: bytes | Path) -> str:
    """Return a short name for what the parts contain."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part
        sha.update(f"{len(data)}:".encode() + data)
    return sha.hexdigest()[:16]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder against other sessions that would fill the same cache."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_programs(names: Sequence[str] = PROGRAMS, what: str = "openstack") -> None:
    """Fail with the remedy if a system package is missing."""
    missing = [name for name in names if not shutil.which(name)]
    if missing:
        raise ControlPlaneError(f"missing programs: {', '.join(missing)}. Run 'deploy/setup {what}' as root")


def cache_folder() -> Path:
    """Return the folder of the cache that belongs to the lock file and this Python."""
    version = subprocess.run([PYTHON, "-V"], check=True, capture_output=True).stdout
    folder = CACHE / digest(LOCK, version)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ControlPlaneError(f"cannot write {CACHE}: {error.strerror}. Run as root, or set BEAMDESK_CACHE_DIR") from error
    return folder


def ensure_venv(say: Callable[[str], None]) -> Path:
    """Return the virtual environment, made now if it is not there."""
    folder = cache_folder()
    venv = folder / "venv"
    with locked(folder):
        if not (venv / "complete").exists():
            say("installing OpenStack (once, about a minute)")
            shutil.rmtree(venv, ignore_errors=True)
            subprocess.run([PYTHON, "-m", "venv", "--without-pip", venv], check=True)
            uv = Path(sys.executable).parent / "uv"
            command = [
                str(uv) if uv.exists() else "uv",
                "pip",
                "install",
                "-q",
                "--python",
                str(venv / "bin/python"),
                "-r",
                str(LOCK),
            ]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                raise ControlPlaneError(f"installing OpenStack failed:\n{done.stderr[-2000:]}")
            (venv / "complete").touch()
    return venv


def install_plugins(target: Path) -> None:
    """Copy the plugins to ``target`` with the entry points by which OpenStack finds them, as an installer would."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(HERE / "plugins", target, ignore=shutil.ignore_patterns("__pycache__"))
    about = target / "beamdesk_farm-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: beamdesk-farm\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("".join(f"[{group}]\n{entry}\n" for group, entry in _PLUGINS.items()))
