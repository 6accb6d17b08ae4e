"""Virtual machines on this host, behind the cloud port: QEMU started directly, one folder a desktop, nothing held in memory.

For tests only: any process that knows the folder sees the same machines, as with a real cloud. The network is QEMU's own: the
machine reaches this host's loopback at 10.0.2.2, and this host reaches the machine's stream at a port of its loopback.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from beamdesk.adapters.openstack.config import GuestApi
from beamdesk.adapters.openstack.userdata import user_data
from beamdesk.domain.errors import CloudError
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.ports.cloud import Capacity, Observation, Server, ServerSpec, ServerStatus

HOST = "10.0.2.2"
STREAM_PORT = 8082


@dataclass(frozen=True)
class Plan:
    """What all machines have in common: written once, read by every process."""

    folder: Path
    disk: Path
    guest_url: str
    ca: str
    accelerator: str

    @property
    def file(self) -> Path:
        return self.folder / "plan.json"

    def write(self) -> None:
        values = {"disk": str(self.disk), "guest_url": self.guest_url, "ca": self.ca, "accelerator": self.accelerator}
        self.file.write_text(json.dumps(values))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        values = json.loads((folder / "plan.json").read_text())
        return cls(folder, Path(values["disk"]), values["guest_url"], values["ca"], values["accelerator"])


class QemuCloud:
    """A `Cloud` of machines started here."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def create_server(self, spec: ServerSpec) -> Server:
        found = self._server(spec.desktop_id)
        return found or await asyncio.to_thread(self._create, spec)

    async def start_server(self, server_id: ServerId, spec: ServerSpec) -> None:
        await asyncio.to_thread(self._start, self._home(server_id), spec)

    async def stop_server(self, server_id: ServerId) -> None:
        end(self._home(server_id))

    async def delete_server(self, server_id: ServerId) -> None:
        end(self._home(server_id))
        shutil.rmtree(self._home(server_id), ignore_errors=True)

    async def delete_home(self, desktop_id: DesktopId) -> None:
        pass

    async def find_servers(self, desktop_id: DesktopId) -> Observation:
        found = self._server(desktop_id)
        return Observation((found,) if found else ())

    async def list_servers(self) -> Observation:
        servers = [self._server(path.parent.name) for path in self._plan.folder.glob("*/server.json")]
        return Observation(tuple(server for server in servers if server))

    async def list_homes(self) -> tuple[DesktopId, ...]:
        return ()

    async def console_log(self, server_id: ServerId, lines: int = 200) -> str:
        text = (self._home(server_id) / "console.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    async def capacity(self) -> Capacity | None:
        return None

    async def close(self) -> None:
        pass

    def _home(self, desktop_id: str) -> Path:
        return self._plan.folder / desktop_id

    def _server(self, desktop_id: str) -> Server | None:
        home = self._home(desktop_id)
        try:
            facts = json.loads((home / "server.json").read_text())
        except (OSError, ValueError):
            return None
        return Server(
            ServerId(desktop_id),
            DesktopId(desktop_id),
            ServerStatus.ACTIVE if runs(home) else ServerStatus.SHUTOFF,
            datetime.fromtimestamp(facts["created_at"], UTC),
            f"tcp:127.0.0.1:{facts['port']}",
        )

    def _create(self, spec: ServerSpec) -> Server:
        home = self._home(spec.desktop_id)
        home.mkdir(exist_ok=True)
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", self._plan.disk, "-F", "qcow2", home / "disk.qcow2"]
        self._run([*command, f"{spec.disk_gib}G"])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            facts = {"created_at": time.time(), "port": probe.getsockname()[1]}
        (home / "server.new").write_text(json.dumps(facts))
        (home / "server.new").rename(home / "server.json")
        self._start(home, spec)
        server = self._server(spec.desktop_id)
        if server is None:
            raise CloudError("The machine vanished while it was made.")
        return server

    def _start(self, home: Path, spec: ServerSpec) -> None:
        if runs(home):
            return
        seed(home, user_data(GuestApi(self._plan.guest_url, self._plan.ca), spec.desktop_id, spec.nonce))
        port = json.loads((home / "server.json").read_text())["port"]
        self._run(
            [
                "qemu-system-x86_64",
                *("-machine", f"q35,accel={self._plan.accelerator}", "-cpu", "max"),
                *("-smp", str(spec.vcpus), "-m", str(spec.memory_mib)),
                *("-display", "none", "-vga", "none", "-nodefaults", "-no-user-config"),
                *("-serial", f"file:{home}/console.log"),
                *("-drive", f"file={home}/disk.qcow2,if=virtio,cache=unsafe"),
                *("-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=seed"),
                *("-drive", f"file={home}/seed.iso,format=raw,if=none,id=seed,readonly=on"),
                *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:{STREAM_PORT}"),
                *("-device", "virtio-net-pci,netdev=net,romfile="),
                *("-device", "virtio-rng-pci"),
                *("-device", "virtio-serial", "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
                *("-chardev", f"socket,id=agent,path={home}/agent.sock,server=on,wait=off"),
                *("-daemonize", "-pidfile", f"{home}/pid"),
            ]
        )

    def _run(self, command: list[object]) -> None:
        result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if result.returncode:
            raise CloudError(f"{command[0]} failed: {result.stderr.strip()}")


def seed(home: Path, encoded: str) -> None:
    """Write the disc with user-data; a new instance id makes cloud-init write the files again."""
    folder = home / "seed"
    folder.mkdir(exist_ok=True)
    (folder / "user-data").write_bytes(base64.b64decode(encoded))
    (folder / "meta-data").write_text(f"instance-id: {time.time_ns()}\n")
    command = ["genisoimage", "-quiet", "-output", home / "seed.iso", "-volid", "cidata", "-joliet", "-rock"]
    subprocess.run([*command, folder / "user-data", folder / "meta-data"], check=True, capture_output=True)
    shutil.rmtree(folder)


def pid_of(home: Path) -> int | None:
    """Return the process of a machine, if it is that machine's."""
    try:
        pid = int((home / "pid").read_text())
        return pid if str(home).encode() in Path(f"/proc/{pid}/cmdline").read_bytes() else None
    except (OSError, ValueError):
        return None


def runs(home: Path) -> bool:
    return pid_of(home) is not None


def end(home: Path) -> None:
    """Switch a machine off, as by its power button held down."""
    pid = pid_of(home)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    while runs(home):
        time.sleep(0.02)


class Inside:
    """Commands inside a machine, as its root, through the QEMU guest agent; what an administrator of the hypervisor can do."""

    def __init__(self, home: Path) -> None:
        self._path = home / "agent.sock"

    def run(self, command: str, *, uid: int = 0, gids: str = "", timeout: float = 120) -> tuple[int, str]:
        """Return exit code and output of a shell command."""
        drop = ["/usr/bin/setpriv", f"--reuid={uid}", f"--regid={uid}", f"--groups={gids or uid}"] if uid else []
        argv = [*drop, "/bin/sh", "-c", command]
        started = self._ask("guest-exec", path=argv[0], arg=argv[1:], **{"capture-output": True})["pid"]
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            state = self._ask("guest-exec-status", pid=started)
            if state["exited"]:
                output = base64.b64decode(state.get("out-data", "")) + base64.b64decode(state.get("err-data", ""))
                return int(state.get("exitcode", -1)), output.decode(errors="replace")
            time.sleep(0.5)
        raise AssertionError(f"{command!r} did not end within {timeout} s")

    def _ask(self, what: str, **arguments: object) -> dict:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(str(self._path))
            stream = sock.makefile("rwb")
            mark = time.time_ns() % 10**9
            for name, values in (("guest-sync", {"id": mark}), (what, arguments)):
                stream.write(json.dumps({"execute": name, "arguments": values}).encode() + b"\n")
                stream.flush()
                answer = json.loads(stream.readline())
                while name == "guest-sync" and answer.get("return") != mark:
                    answer = json.loads(stream.readline())
            if "return" not in answer:
                raise AssertionError(f"the QEMU guest agent refuses {what}: {answer}")
            return answer["return"]


def accelerator(disk: Path) -> str:
    """Return ``kvm`` if a kernel really starts with it here, else ``tcg``: /dev/kvm may open and still not work."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    command = ["qemu-system-x86_64", "-machine", "q35,accel=kvm", "-cpu", "max", "-m", "512", "-display", "none", "-no-reboot"]
    command += ["-kernel", f"{disk}.vmlinuz", "-append", "console=ttyS0 panic=-1", "-serial", "stdio", "-nodefaults"]
    try:
        said = subprocess.run(command, capture_output=True, timeout=10, check=False, stdin=subprocess.DEVNULL).stdout
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
    return "kvm" if b"Linux version" in said else "tcg"
