"""A whole one-machine deployment for tests: installed program, own state directory and ports, real containers."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

PREFIX = Path(os.environ.get("BEAMDESK_PREFIX", "/opt/beamdesk"))
CACHE = Path(os.environ.get("BEAMDESK_CACHE_DIR", "/var/cache/beamdesk"))
DEMO_DATA = CACHE / "test" / "demo-data"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Deployment:
    """Started with `start()`, ended with `remove()`; `environment` is what every command of it needs.

    ``prefix``: put before the command that starts it.
    """

    state: Path
    port: int
    gateway_port: int
    extra: dict[str, str]
    prefix: tuple[str, ...] = ()

    @classmethod
    def make(cls, *, prefix: tuple[str, ...] = (), **extra: str) -> Deployment:
        # Not below pytest's directory: that is closed to the service account.
        state = Path(tempfile.mkdtemp(prefix="beamdesk-test-", dir="/var/tmp"))
        state.chmod(0o755)
        return cls(state, free_port(), free_port(), extra, prefix)

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.state),
            "LANG": "C.UTF-8",
            "BEAMDESK_STATE_DIR": str(self.state),
            "BEAMDESK_CACHE_DIR": str(CACHE),
            "BEAMDESK_PORT": str(self.port),
            "BEAMDESK_GATEWAY_PORT": str(self.gateway_port),
        }
        return own | {f"BEAMDESK_{key.upper()}": value for key, value in self.extra.items()}

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def data(self) -> Path:
        return self.state / "data"

    def beamdesk(
        self, *arguments: str, check: bool = True, timeout: float = 90, prefix: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, PREFIX / "venv/bin/beamdesk", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=check,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    def copy_demo_data(self) -> None:
        """Generate the sample data once per machine, then copy; another process of the tests waits for that."""
        python = PREFIX / "venv/bin/python"
        DEMO_DATA.parent.mkdir(parents=True, exist_ok=True)
        with DEMO_DATA.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            subprocess.run(
                [python, "-m", "beamdesk.adapters.demo.data", "--root", DEMO_DATA], check=True, stdout=subprocess.DEVNULL
            )
            subprocess.run(["cp", "-a", "--reflink=auto", DEMO_DATA, self.data], check=True)

    def start(self) -> str:
        result = self.beamdesk("up", "--detach", check=False, prefix=self.prefix)
        if result.returncode:
            raise AssertionError(f"up failed: {result.stdout}{result.stderr}{self.logs()}")
        return result.stdout

    def stop(self) -> None:
        self.beamdesk("down")

    @property
    def password(self) -> str:
        return (self.state / "app" / "demo-password").read_text().strip()

    @contextmanager
    def api(self, login: str) -> Iterator[httpx2.Client]:
        """Give a client of the API, signed in."""
        with httpx2.Client(base_url=f"{self.origin}/api/v1", timeout=20) as client:
            answer = client.post("/logins", json={"login": login, "password": self.password})
            answer.raise_for_status()
            client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
            yield client

    def processes(self) -> set[int]:
        """Return the processes of this deployment, containers included, by the state directory in their environment or memory maps."""
        mark = str(self.state).encode()
        found = set()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if (
                    mark in (folder / "environ").read_bytes()
                    or mark in (folder / "cmdline").read_bytes()
                    or mark in (folder / "mountinfo").read_bytes()
                ):
                    found.add(int(folder.name))
            except OSError:
                continue
        return found

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-4000:]}" for path in sorted((self.state / "log").glob("*.log")))

    def remove(self) -> None:
        self.beamdesk("down", check=False)
        shutil.rmtree(self.state, ignore_errors=True)
