"""Starts a real desktop from a built image, with a guest API of our own on the host: what the agent's integration tests stand on.

Run as a program (``python tests/integration/guest/container.py IMAGE``) it starts one, prints the times of its steps and waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from beamdesk.protocol.codec import decode, encode
from beamdesk.protocol.guest import Account, Enrol, Group, Identity, Mount, Report, ReportReply, Step, StepName, StepState, Stream

CACHE = Path(os.environ.get("BEAMDESK_IMAGE_CACHE", "/var/cache/beamdesk/images"))
UID, GID, TEAM = 20001, 20001, 30001
EXPERIMENT = "heps-2026-0147"


@dataclass
class FakeApi:
    """The guest API in memory: accepts one nonce once and keeps what the agent says."""

    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    language: str = "en"
    mounts: tuple[Mount, ...] = ()
    account: Account = field(
        default_factory=lambda: Account("ada", UID, GID, "Ada Lin", (Group("ada", GID), Group(EXPERIMENT, TEAM)), "/home/ada")
    )
    spent: bool = False
    revoked: bool = False
    enrolments: int = 0
    reports: list[tuple[float, Report]] = field(default_factory=list)
    thumbnails: list[tuple[float, bytes]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def identity(self) -> Identity:
        stream = Stream("unix:/run/beamdesk/stream/stream.sock", self.secret)
        return Identity("d0123456789", self.token, "Test", self.account, self.mounts, stream, self.language)

    def answer(self, path: str, token: str, body: bytes) -> tuple[int, bytes]:
        with self.changed:
            self.changed.notify_all()
            if path.endswith("/enrol"):
                self.enrolments += 1
                if self.spent or decode(Enrol, body).nonce != self.nonce:
                    return 403, b"{}"
                self.spent = True
                return 200, encode(self.identity())
            if self.revoked or not secrets.compare_digest(token, f"Bearer {self.token}"):
                return 401, b"{}"
            if path.endswith("/thumbnail"):
                self.thumbnails.append((time.monotonic(), body))
                return 200, b"{}"
            self.reports.append((time.monotonic(), decode(Report, body)))
            messages, self.messages = tuple(self.messages), []
            return 200, encode(ReportReply(messages))

    @contextlib.contextmanager
    def serving(self, path: Path) -> Iterator[None]:
        """Serve on a Unix socket."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = api.answer(self.path, self.headers.get("Authorization", ""), body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def address_string(self) -> str:
                return "guest"

            def log_message(self, *_: object) -> None:
                pass

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            def __init__(self, *arguments: object) -> None:
                super().__init__(*arguments)
                self.open: list[socket.socket] = []

            def get_request(self) -> tuple[socket.socket, str]:
                connection, _ = self.socket.accept()
                self.open.append(connection)
                return connection, "guest"

            def hang_up(self) -> None:
                for connection in self.open:
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)

        path.unlink(missing_ok=True)
        with Server(str(path), Handler) as server:
            path.chmod(0o666)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                server.hang_up()
                thread.join()
                path.unlink(missing_ok=True)

    def latest(self) -> dict[StepName, Step]:
        with self.changed:
            return {step.name: step for step in self.reports[-1][1].steps} if self.reports else {}

    def wait_for(self, what, timeout: float = 20.0):
        """Wait until ``what(self)`` is true and return it."""
        end = time.monotonic() + timeout
        with self.changed:
            while not (found := what(self)):
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"not within {timeout} s; last report: {self.reports[-1:]}")
                self.changed.wait(min(left, 0.2))
            return found

    def wait_up(self, timeout: float = 20.0) -> None:
        self.wait_for(lambda api: bool(steps := api.latest()) and all(s.state is StepState.DONE for s in steps.values()), timeout)


@dataclass
class Container:
    """A running desktop."""

    folder: Path
    api: FakeApi
    process: subprocess.Popen[bytes]
    started: float

    @property
    def socket(self) -> Path:
        return self.folder / "stream" / "stream.sock"

    def leader(self) -> int:
        """Host pid of the agent (its parent is the stub init)."""
        return next(pid for pid in self.pids() if self.command(pid)[1:] == ["-m", "beamdesk.guest"])

    def pids(self) -> list[int]:
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                todo += map(int, children)
                found += map(int, children)
        return found

    def command(self, pid: int) -> list[str]:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")
        return []

    def find(self, program: str) -> int:
        """Host pid of the person's program whose file is called ``program``."""
        return next(pid for pid in self.pids() if any(part.rsplit("/", 1)[-1] == program for part in self.command(pid)[:3]))

    def enter(self, command: list[str], *, root: bool = False, display: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as the person."""
        who = [] if root else ["setpriv", f"--reuid={UID}", f"--regid={GID}", f"--groups={GID},{TEAM}", "--no-new-privs"]
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/home/ada", "LANG": "en_US.UTF-8"}
        if display:
            content = Path(f"/proc/{self.find('xfce4-panel')}/environ").read_text()
            env = dict(item.split("=", 1) for item in content.split("\0") if "=" in item)
        inside = [
            "nsenter",
            "-t",
            str(self.leader()),
            "-m",
            "-p",
            "-n",
            "-i",
            "-u",
            "-r",
            "-w",
            "env",
            "-i",
            *(f"{k}={v}" for k, v in env.items()),
        ]
        return subprocess.run([*inside, *who, *command], capture_output=True, text=True, timeout=120, check=False)

    def console(self) -> str:
        return (self.folder / "console.log").read_text(errors="replace")


def image_layers(image: str) -> list[Path]:
    """Layers of an image of the cache, topmost first."""
    catalog = json.loads((CACHE / "catalog.json").read_text())
    (entry,) = [entry for entry in catalog["images"] if entry["id"] == image]
    return [Path(layer) for layer in json.loads((CACHE / "index" / f"{entry['hash']}.json").read_text())["layers"]]


@contextlib.contextmanager
def desktop(
    folder: Path,
    image: str,
    api: FakeApi | None = None,
    *,
    serve: bool = True,
    writable_raw: bool = False,
    prepare: Callable[[Path], None] = lambda _root: None,
    binds: Sequence[str] = (),
) -> Iterator[Container]:
    """Start a desktop of ``image`` below ``folder``; everything is taken away at the end.

    ``prepare`` changes its root file system before; ``binds``: further options of systemd-nspawn.
    """
    api = api or FakeApi()
    for name in ("agent", "api", "stream", "home", "raw", "processed", "scratch"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "processed").chmod(0o2770)
    os.chown(folder / "processed", 0, TEAM)
    os.chown(folder / "raw", 0, TEAM)
    (folder / "raw").chmod(0o2750)
    os.chown(folder / "stream", UID, GID)
    nonce = folder / "agent" / "nonce"
    nonce.touch(mode=0o600)
    nonce.write_text(api.nonce)
    (folder / "agent" / "config.json").write_text(
        json.dumps({"enrol_url": "http+unix:///run/beamdesk/api/guest.sock", "desktop_id": "d0123456789"})
    )
    api.mounts = (
        Mount("bind", "", "/home/ada", writable=True),
        Mount("bind", "", f"/data/{EXPERIMENT}/raw", writable=False),
        Mount("bind", "", f"/data/{EXPERIMENT}/processed", writable=True),
    )
    with contextlib.ExitStack() as stack:
        if serve:
            stack.enter_context(api.serving(folder / "api" / "guest.sock"))
        root = stack.enter_context(_root(folder, image))
        prepare(root)
        with (folder / "console.log").open("wb") as log:
            process = subprocess.Popen(
                _nspawn(folder, root, raw="" if writable_raw else "-ro", more=binds),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        container = Container(folder, api, process, time.monotonic())
        try:
            yield container
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def _root(folder: Path, image: str) -> Iterator[Path]:
    scratch, root = folder / "scratch", folder / "root"
    root.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "none", str(scratch)], check=True)
    try:
        (scratch / "upper").mkdir()
        (scratch / "work").mkdir()
        lower = ":".join(map(str, image_layers(image)))
        options = f"lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "none", str(root)], check=True)
        try:
            yield root
        finally:
            subprocess.run(["umount", "-l", str(root)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(scratch)], check=True)


def _nspawn(folder: Path, root: Path, raw: str, more: Sequence[str]) -> list[str]:
    binds = [
        f"--bind={folder}/agent:/run/beamdesk/agent",
        f"--bind-ro={folder}/api:/run/beamdesk/api",
        f"--bind={folder}/stream:/run/beamdesk/stream",
        f"--bind={folder}/home:/home/ada",
        f"--bind{raw}={folder}/raw:/data/{EXPERIMENT}/raw",
        f"--bind={folder}/processed:/data/{EXPERIMENT}/processed",
    ]
    options = [
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--settings=no",
        f"--directory={root}",
        f"--machine=guesttest{os.getpid()}",
    ]
    options += [
        "--private-network",
        "--no-new-privileges=yes",
        "--drop-capability=CAP_SYS_ADMIN,CAP_SYS_NICE,CAP_SYS_RESOURCE",
        "--console=pipe",
    ]
    options += ["--resolv-conf=off", "--timezone=off", "--link-journal=no", "--as-pid2", "--setenv=PYTHONPATH=/opt/beamdesk/lib"]
    return ["systemd-nspawn", *options, *binds, *more, "--", "/usr/bin/python3", "-m", "beamdesk.guest"]


def main() -> None:
    """Start one desktop and print what happens."""
    image = sys.argv[1]
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "/tmp/beamdesk-guest-try")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with desktop(folder, image) as container:
        with contextlib.suppress(AssertionError):
            container.api.wait_up(30)
        sys.stdout.write(f"{container.console()}\nmaster token: {container.api.secret} socket: {container.socket}\n")
        sys.stdout.flush()
        if "--wait" in sys.argv:
            with contextlib.suppress(KeyboardInterrupt):
                container.process.wait()


if __name__ == "__main__":
    main()
