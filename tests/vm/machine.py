"""A machine from the side of its hypervisor: commands inside, and whether this host can do more than emulate."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

STREAM_PORT = 8082
SLOW = 10 if os.environ.get("BEAMDESK_TEST_SLOW") else 4
"""How many times longer than on a quiet machine with KVM anything may take; emulation takes three times as long."""
READY_S = 375.0 * SLOW
"""From the application to a desktop that can be used. All other patience is a part of it."""
STEP_S = READY_S / 5
"""For one step: a picture, a window, an ended machine."""


@dataclass(frozen=True)
class Inside:
    """Commands inside a machine, as its root, through the QEMU guest agent; what an administrator of the hypervisor can do."""

    socket: Path
    domain: str

    def run(self, command: str, *, uid: int = 0, gids: str = "", timeout: float = STEP_S) -> tuple[int, str]:
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
        question = json.dumps({"execute": what, "arguments": arguments})
        command = ["virsh", "-c", f"qemu+unix:///system?socket={self.socket}", "qemu-agent-command", "--timeout", "60"]
        done = subprocess.run([*command, self.domain, question], capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"the QEMU guest agent refuses {what}: {done.stderr.strip()}")
        return json.loads(done.stdout)["return"]


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
