"""A real helper with a real, minimal image, its own folders and two experiments, for tests that run as root."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from beamdesk.adapters.local.client import HelperClient
from beamdesk.domain.ids import DesktopId
from beamdesk.ports.cloud import ServerAccount, ServerMount, ServerSpec
from beamdesk.protocol.helper import Reply, Request

CACHE = Path("/var/cache/beamdesk/test")
PACKAGES = ("python3", "util-linux", "coreutils")
IMAGE = "0123456789abcdef"
ADA = ServerAccount("ada", 20001, 20001, (30001,), "Ada Lin")
CHEN = ServerAccount("chen", 20003, 20003, (30002,), "Chen Wei")
DAQ_UID = 19900
SOCKET_GID = 19999
SOURCE = Path(__file__).parents[3] / "src"


def spec_of(desktop_id: str, account: ServerAccount = ADA, experiment: str = "exp-a", **changes: object) -> ServerSpec:
    """Return a small desktop of ``account`` with an experiment's data."""
    values: dict[str, object] = {
        "desktop_id": DesktopId(desktop_id),
        "image_ref": IMAGE,
        "vcpus": 1,
        "memory_mib": 512,
        "disk_gib": 1,
        "gpus": 0,
        "account": account,
        "mounts": (ServerMount(experiment, "raw", writable=False), ServerMount(experiment, "processed", writable=True)),
        "nonce": "nonce-of-" + desktop_id.ljust(24, "0"),
    }
    return ServerSpec(**(values | changes))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Ran:
    """What a command in a container gave back."""

    rc: int
    out: str
    err: str


@dataclass
class HelperWorld:
    """One helper process over one folder."""

    folder: Path
    settings: dict[str, object] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    """Command that starts the helper's command; it must end by becoming it."""
    process: subprocess.Popen[bytes] | None = None
    lifeline: int = -1

    @property
    def socket_path(self) -> Path:
        return self.folder / "run/helper.sock"

    @property
    def client(self) -> HelperClient:
        return HelperClient(self.socket_path, timeout_s=30)

    @property
    def config(self) -> Path:
        return self.folder / "helper.toml"

    def start(self) -> None:
        """Start the helper and wait until it listens."""
        values = {
            "allowed_uid": 0,
            "socket_gid": SOCKET_GID,
            "run_dir": f"{self.folder}/run",
            "state_dir": f"{self.folder}/state",
            "homes_dir": f"{self.folder}/homes",
            "images_index_dir": f"{self.folder}/images",
            "data_root": f"{self.folder}/data",
            "guest_api_dir": f"{self.folder}/api",
            **self.settings,
        }
        self.config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
        read_end, self.lifeline = os.pipe()
        command = (
            *self.prefix,
            sys.executable,
            "-m",
            "beamdesk.adapters.local.helper",
            "--config",
            str(self.config),
            "--lifeline",
            str(read_end),
        )
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env={"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
                pass_fds=(read_end,),
            )
        os.close(read_end)
        deadline = time.monotonic() + 20
        while not self._listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the helper does not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket_path))
            except OSError:
                return False
        return True

    def kill(self) -> None:
        """End the helper as a crash would."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self._close_lifeline()

    def stop(self) -> None:
        """End the helper as its supervisor would."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self._close_lifeline()

    def cut_lifeline(self) -> int:
        """Close the supervisor's end and return the helper's exit status."""
        assert self.process
        self._close_lifeline()
        return self.process.wait(20)

    def _close_lifeline(self) -> None:
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1

    def call(self, request: Request) -> Reply:
        """Ask the helper and return its answer, errors included."""
        return asyncio.run(self.client._exchange(request))[0]

    def stream(self, desktop_id: str) -> Path:
        """Return where a desktop's streaming socket is on the host."""
        seen = f"/proc/{self.process.pid}/root" if self.process and self.prefix else ""
        return Path(f"{seen}{self.folder}/run/stream/{desktop_id}/stream.sock")

    def run(self, desktop_id: str, *argv: str, person: bool = False, timeout_s: float = 30) -> Ran:
        """Run a command in a container, as its root or as its person."""
        deadline = time.monotonic() + 10
        while True:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(timeout_s)
                try:
                    connection.connect(str(self.stream(desktop_id)))
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
                    continue
                with connection.makefile("rwb") as file:
                    file.write(json.dumps({"argv": argv, "person": person}).encode() + b"\n")
                    file.flush()
                    return Ran(**json.loads(file.readline()))

    def run_detached(self, desktop_id: str, command: str) -> None:
        """Run a shell command whose answer may never come, because it ends the desktop."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.stream(desktop_id)))
            connection.sendall(json.dumps({"argv": ["sh", "-c", command], "person": False}).encode() + b"\n")
            with suppress(OSError):
                connection.recv(1)

    def python(self, desktop_id: str, code: str, *, person: bool = False) -> Ran:
        """Run Python code in a container."""
        return self.run(desktop_id, "/usr/bin/python3", "-c", code, person=person)


@contextmanager
def open_world(*, prefix: tuple[str, ...] = (), **settings: object) -> Iterator[HelperWorld]:
    """Make a folder with image and data, start a helper on it, and remove all of it afterwards."""
    if os.geteuid() != 0:
        pytest.fail("this test needs root: it starts real containers")
    folder = Path(tempfile.mkdtemp(prefix="beamdesk-test-"))
    world = HelperWorld(folder, settings, prefix)
    try:
        folder.chmod(0o711)
        _make_image(folder)
        for name, gid in (("exp-a", 30001), ("exp-b", 30002)):
            make_experiment(folder / "data" / name, gid)
        (folder / "api").mkdir()
        (folder / "api").chmod(0o755)
        world.start()
        yield world
    finally:
        world.stop()
        shutil.rmtree(folder)


def make_experiment(folder: Path, gid: int) -> None:
    """Make an experiment's folders with a raw file in it, with the owners and modes of a beamline's storage."""
    folder.mkdir(parents=True)
    folder.parent.chmod(0o755)
    for name, owner, mode in (("", 0, 0o2750), ("raw", DAQ_UID, 0o2750), ("processed", DAQ_UID, 0o2770)):
        place = folder / name
        place.mkdir(exist_ok=True)
        os.chown(place, owner, gid)
        place.chmod(mode)
    raw = folder / "raw/scan.txt"
    raw.write_text(f"counts of {folder.name}\n")
    os.chown(raw, DAQ_UID, gid)
    raw.chmod(0o640)


def _make_image(folder: Path) -> None:
    package = folder / "layer/opt/beamdesk/lib/beamdesk/guest"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    shutil.copy(Path(__file__).with_name("guest_agent.py"), package / "__main__.py")
    subprocess.run(("chmod", "-R", "go+rX,go-w", str(folder / "layer")), check=True)
    (folder / "images").mkdir()
    index = folder / "images" / f"{IMAGE}.json"
    index.write_text(json.dumps({"layers": [str(folder / "layer"), str(minimal_root())]}))


def minimal_root() -> Path:
    """Return a minimal Debian root file system, built once a machine."""
    CACHE.mkdir(parents=True, exist_ok=True)
    root = CACHE / f"root-{'-'.join(PACKAGES)}"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            fresh = root.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            command = ("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", str(fresh))
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.fail(f"mmdebstrap cannot build the test image: {done.stderr[-1500:]}")
            fresh.chmod(0o755)
            fresh.rename(root)
    return root
