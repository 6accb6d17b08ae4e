"""A whole deployment whose desktops are virtual machines of Nova: portal, reconciler, gateway, guest API over HTTPS, data over NFS."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from beamdesk.adapters.demo.people import DAQ_UID, EXPERIMENTS
from controlplane.clouds import BEAMDESK
from controlplane.content import NETWORK
from controlplane.enclosure import HOST
from vm.cloud import Cloud
from vm.machine import READY_S, STEP_S, STREAM_PORT, Inside
from vm.storage import nfs_server

CACHE = Path("/var/cache/beamdesk")
SERVICES = ("serve", "reconcile", "gateway")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Site:
    """Made with `Site.running()`, in the network of its cloud."""

    folder: Path
    cloud: Cloud
    boot_timeout_s: float
    port: int = field(default_factory=free_port)
    gateway_port: int = field(default_factory=free_port)
    guest_port: int = field(default_factory=free_port)
    nfs_port: int = field(default_factory=free_port)

    @classmethod
    @contextmanager
    def running(cls, cloud: Cloud, boot_timeout_s: float = READY_S) -> Iterator[Site]:
        folder = Path(tempfile.mkdtemp(prefix="beamdesk-vm-", dir="/var/tmp"))
        folder.chmod(0o755)
        site = cls(folder, cloud, boot_timeout_s)
        try:
            with ExitStack() as stack:
                site._prepare()
                stack.enter_context(nfs_server(folder / "nfs", site._exports(), HOST, site.nfs_port))
                for name in SERVICES:
                    stack.enter_context(site._service(name))
                site._wait()
                yield site
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def password(self) -> str:
        return (self.folder / "state/app/demo-password").read_text().strip()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def inside(self, desktop_id: str) -> Inside:
        return self.cloud.inside(desktop_id)

    def stream(self, desktop_id: str) -> str:
        """Return the address at which a desktop's stream listens, as the gateway finds it."""
        (addresses,) = self.cloud.server(desktop_id).addresses.values()
        return f"http://{addresses[0]['addr']}:{STREAM_PORT}"

    def enrol(self, nonce: str) -> int:
        """Try a nonce from outside; return the guest API's status."""
        trusted = ssl.create_default_context(cafile=self.folder / "ca.pem")
        answer = httpx2.post(f"https://{HOST}:{self.guest_port}/guest/v1/enrol", json={"nonce": nonce}, verify=trusted, timeout=60)
        return answer.status_code

    def doctor(self) -> subprocess.CompletedProcess[str]:
        """Run ``beamdesk openstack doctor`` with this deployment's settings, and an administrator's eyes."""
        command = [sys.executable, "-m", "beamdesk.cli.main", "openstack", "doctor", "--admin-cloud", "admin", "--json"]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=STEP_S, check=False)

    def logs(self) -> str:
        return "\n".join(f"== {name}\n{(self.folder / f'{name}.log').read_text()[-3000:]}" for name in SERVICES)

    @contextmanager
    def api(self, login: str) -> Iterator[httpx2.Client]:
        with httpx2.Client(base_url=f"{self.origin}/api/v1", timeout=60) as client:
            answer = client.post("/logins", json={"login": login, "password": self.password})
            answer.raise_for_status()
            client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
            yield client

    # -- parts

    def _prepare(self) -> None:
        for name in ("state/app", "state/run/guest-api", "state/log", "cache"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "state/app/deployment-id").write_text(os.urandom(16).hex())
        (self.folder / "cache/selkies-web").symlink_to(CACHE / "selkies-web")
        self._write_data()
        self._certificate()
        (self.folder / "beamdesk.toml").write_text(self._settings())

    def _write_data(self) -> None:
        for experiment in EXPERIMENTS:
            for area, owner, mode in (("raw", DAQ_UID, 0o2750), ("processed", DAQ_UID, 0o2770)):
                path = self.data / experiment.folder / area
                path.mkdir(parents=True)
                (path / "about.txt").write_text(f"{area} of {experiment.folder}\n")
                for item in (path, path / "about.txt"):
                    os.chown(item, owner, experiment.gid)
                path.chmod(mode)
                (path / "about.txt").chmod(0o640)

    def _exports(self) -> dict[str, tuple[Path, bool]]:
        areas = [(experiment.folder, area) for experiment in EXPERIMENTS for area in ("raw", "processed")]
        return {f"{folder}/{area}": (self.data / folder / area, area == "processed") for folder, area in areas}

    def _certificate(self) -> None:
        """Make an authority and a certificate for the address at which the machines reach this host."""
        path = self.folder
        own = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        name = f"subjectAltName=IP:{HOST}"
        signed = ["-CA", path / "ca.pem", "-CAkey", path / "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
        steps = [
            [*own, "-subj", "/CN=test authority", "-keyout", path / "ca.key", "-out", path / "ca.pem"],
            [*own, *signed, "-subj", "/CN=guest API", "-addext", name, "-keyout", path / "guest.key", "-out", path / "guest.pem"],
        ]
        for step in steps:
            subprocess.run(step, check=True, capture_output=True)

    def _settings(self) -> str:
        areas = "".join(
            f'[[guest.storage]]\narea = "{area}"\nkind = "nfs4"\nsource = "{HOST}:/export/${{folder}}/{area}"\n'
            f'options = "port={self.nfs_port},minorversion=1"\n'
            for area in ("raw", "processed")
        )
        return f"""
cloud = "openstack"
state_dir = "{self.folder}/state"
cache_dir = "{self.folder}/cache"
port = {self.port}
gateway_port = {self.gateway_port}
[openstack]
cloud = "{BEAMDESK}"
clouds_yaml = "{self.cloud.plane.clouds_yaml}"
network = "{NETWORK}"
gateway_addresses = ["{HOST}/32"]
guest_ca = "{self.folder}/ca.pem"
call_timeout_s = 60
stream_port = {STREAM_PORT}
guest_url = "https://{HOST}:{self.guest_port}"
[guest]
host = "{HOST}"
port = {self.guest_port}
tls_certificate = "{self.folder}/guest.pem"
tls_key = "{self.folder}/guest.key"
boot_timeout_s = {self.boot_timeout_s:.0f}
silent_after_s = {STEP_S:.0f}
{areas}
"""

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "BEAMDESK_CONFIG": str(self.folder / "beamdesk.toml")}

    @contextmanager
    def _service(self, name: str) -> Iterator[None]:
        with (self.folder / f"{name}.log").open("wb") as log:
            command = [sys.executable, "-m", "beamdesk.cli.main", name]
            process = subprocess.Popen(command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)

    def _wait(self) -> None:
        deadline = time.monotonic() + STEP_S
        while time.monotonic() < deadline:
            try:
                if httpx2.get(f"{self.origin}/healthz").status_code == 200:
                    return
            except httpx2.HTTPError:
                time.sleep(0.2)
        raise AssertionError(f"the deployment did not come up\n{self.logs()}")
