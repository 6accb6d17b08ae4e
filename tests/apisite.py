"""A real site for tests: `beamdesk serve` and `beamdesk reconcile` as processes, on the fake cloud and a database of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = (sys.executable, "-m", "beamdesk.cli.main")
_READY_S = 40.0


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Site:
    """A running site. ``url`` is its portal's origin."""

    root: Path
    port: int
    environment: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}"

    @property
    def scheme(self) -> str:
        return "https" if "BEAMDESK_TLS_CERTIFICATE" in self.environment else "http"

    @property
    def password(self) -> str:
        return (self.root / "app" / "demo-password").read_text().strip()

    def log(self, name: str) -> str:
        """Return what a process wrote."""
        return (self.root / f"{name}.log").read_text(errors="replace")

    def start(self, name: str) -> None:
        """Start a service."""
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                (*PROGRAM, name), env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.root
            )

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """Stop a service and wait for its end."""
        process = self.processes.pop(name)
        process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def wait_ready(self) -> None:
        """Wait until the portal answers."""
        deadline = time.monotonic() + _READY_S
        while True:
            try:
                url, unverified = f"{self.scheme}://127.0.0.1:{self.port}/healthz", ssl._create_unverified_context()
                with urllib.request.urlopen(url, timeout=1, context=unverified):
                    return
            except (urllib.error.URLError, OSError):
                ended = [name for name, process in self.processes.items() if process.poll() is not None]
                assert not ended, f"{ended} ended: {''.join(map(self.log, ended))}"
                assert time.monotonic() < deadline, f"the portal does not answer: {self.log('serve')}"
                time.sleep(0.1)


@contextmanager
def running_site(root: Path, *, reconcile: bool = True, **settings: str) -> Iterator[Site]:
    """Run portal, API and (unless told not to) the reconciler until the end of the block. ``settings``: BEAMDESK_ variables."""
    port = free_port()
    for name in ("app", "run/guest-api", "log", "data", "cache/images"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "app" / "deployment-id").write_text("0" * 32 + "\n")
    (root / "cache" / "images" / "catalog.json").write_text(json.dumps(_CATALOGUE))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BEAMDESK_")}
    environment |= {
        "BEAMDESK_STATE_DIR": str(root),
        "BEAMDESK_CACHE_DIR": str(root / "cache"),
        "BEAMDESK_PORT": str(port),
        "BEAMDESK_GATEWAY_PORT": str(free_port()),
        "BEAMDESK_CLOUD": "fake",
        "BEAMDESK_LOG_FORMAT": "json",
        "BEAMDESK_CONFIG": str(root / "beamdesk.toml"),
    } | settings
    (root / "beamdesk.toml").write_text("")
    site = Site(root, port, environment)
    try:
        site.start("serve")
        site.wait_ready()  # first alone: it makes the demo password
        if reconcile:
            site.start("reconcile")
        yield site
    finally:
        for name in tuple(site.processes):
            site.stop(name)


def _words(text: str) -> dict[str, str]:
    return {"en": text, "zh": text}


_CATALOGUE = {
    "format": 1,
    "images": [
        {
            "id": name,
            "hash": digit * 64,
            "title": _words(title),
            "description": _words(title),
            "beamlines": beamlines,
            "software": [{"name": "silx view", "command": "silx view", "icon": "silx", "description": _words("Looks at HDF5")}],
            "size_bytes": 1,
        }
        for name, digit, title, beamlines in (("general", "a", "General Linux", []), ("imaging", "b", "Imaging beamline", ["B7"]))
    ],
}
