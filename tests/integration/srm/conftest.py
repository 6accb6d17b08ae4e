"""A real site on HTTPS, operators' and strangers' requests to it, and real agent processes on generated trees."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from apisite import PROGRAM, Site, running_site
from srmtree import Tree

PATIENCE_S = 60.0


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Return a certificate for localhost, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


@dataclass
class Answer:
    """What the site answered."""

    status: int
    body: Any
    headers: dict[str, str]


@dataclass
class Desk:
    """A site as operators and programs talk to it."""

    site: Site
    certificate: Path
    token: str = ""

    def ask(self, method: str, path: str, body: object = None, *, token: str | None = None, **headers: str) -> Answer:
        """Send one request; no status is an error."""
        carried = self.token if token is None else token
        data = json.dumps(body).encode() if body is not None else None
        known = {"Content-Type": "application/json"} if data else {}
        known |= {"Authorization": f"Bearer {carried}"} if carried else {}
        known |= {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self.site.url}/api/v1{path}", data, known, method=method)
        context = ssl.create_default_context(cafile=str(self.certificate)) if self.site.scheme == "https" else None
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as answer:
                return Answer(answer.status, _read(answer.read()), {k.lower(): v for k, v in answer.headers.items()})
        except urllib.error.HTTPError as error:
            return Answer(error.code, _read(error.read()), {k.lower(): v for k, v in error.headers.items()})

    def sign_in(self, login: str = "olga") -> None:
        """Sign in."""
        self.token = self.ask("POST", "/logins", {"login": login, "password": self.site.password}, token="").body["token"]

    def host(self, name: str = "gpu01") -> dict[str, Any]:
        """Return a host as operators see it."""
        body = self.ask("GET", f"/srm/hosts/{name}").body
        assert isinstance(body, dict)
        return body

    def states(self, name: str = "gpu01") -> dict[str, str]:
        """Return the states of a host's cards."""
        return {card["address"]: card["state"] for card in self.host(name).get("cards", [])}

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the data of the newest events of a kind."""
        items = self.ask("GET", "/events?limit=100").body["items"]
        return [dict(one["data"]) for one in items if one["kind"] == kind]

    def until(self, fact: Callable[[], bool], what: str) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + PATIENCE_S
        while not fact():
            assert time.monotonic() < deadline, f"never: {what}\n{self.site.log('serve')[-3000:]}"
            time.sleep(0.05)


def _read(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode(errors="replace")


@dataclass
class AgentProcess:
    """`python -m beamdesk.srm` on a tree."""

    root: Path
    tree: Tree
    site: Site
    certificate: Path
    name: str = "gpu01"
    clean: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def configure(self) -> None:
        """Write its configuration."""
        lines = {
            "api": self.site.url, "host": self.name, "credential": str(self.root / "credential"), **({"ca_file": str(self.certificate)} if self.site.scheme == "https" else {}),
            "sys": str(self.tree.sys), "proc": str(self.tree.proc), "disk": str(self.root), "nvml": False, "report_every_s": 0.6,
            "machine_id": str(self.tree.root / "machine-id"),
        }  # fmt: skip
        text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items())
        if self.clean:
            text += f"[clean]\ncommand = {json.dumps(self.clean)}\ntimeout_s = 30\n"
        (self.root / "srm.toml").write_text(text)

    def _command(self, what: str) -> list[str]:
        return [sys.executable, "-m", "beamdesk.srm", what, "--config", str(self.root / "srm.toml")]

    def enrol(self, token: str) -> subprocess.CompletedProcess[str]:
        """Spend a token."""
        self.configure()
        return subprocess.run(self._command("enrol"), input=f"{token}\n", capture_output=True, text=True, timeout=60, check=False)

    def start(self) -> None:
        """Start it."""
        with (self.root / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(self._command("run"), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it and return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(30)
        self.process = None
        return status

    @property
    def log(self) -> str:
        """Return what it wrote."""
        return (self.root / "agent.log").read_text()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A site on HTTPS with an operator signed in."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = make_certificate(folder)
    settings = {"BEAMDESK_TLS_CERTIFICATE": str(certificate), "BEAMDESK_TLS_KEY": str(key), "BEAMDESK_SRM__STALE_AFTER_S": "4"}
    with running_site(tmp_path_factory.mktemp("site"), **settings) as site:
        desk = Desk(site, certificate)
        desk.sign_in()
        yield desk


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Desk]:
    """A site without TLS: the command line speaks to this machine's sites only so, or with a certificate that the system knows."""
    with running_site(tmp_path / "plain", reconcile=False) as site:
        desk = Desk(site, Path())
        desk.sign_in()
        yield desk


@pytest.fixture
def make_agent(desk: Desk, tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    """Make agents that are stopped at the end."""
    made: list[AgentProcess] = []

    def make(name: str, clean: tuple[str, ...] = ()) -> AgentProcess:
        root = tmp_path / f"agent{len(made)}"
        tree = Tree(root / "tree")
        (tree.root / "machine-id").write_text(f"{os.urandom(16).hex()}\n")
        made.append(AgentProcess(root, tree, desk.site, desk.certificate, name, clean))
        return made[-1]

    yield make
    for agent in made:
        if agent.process is not None:
            agent.stop(signal.SIGKILL)


def command_line(desk: Desk, config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as the operator."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    own = {"XDG_CONFIG_HOME": str(config), "BEAMDESK_URL": desk.site.url}
    return subprocess.run(
        (*PROGRAM, *arguments), env=kept | own, capture_output=True, text=True, timeout=60, check=False, input=desk.site.password
    )
