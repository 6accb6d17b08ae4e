"""A look from inside a desktop: commands in its container, as root there or as its person, entered from the host by its first process."""

from __future__ import annotations

import subprocess
from pathlib import Path


def first_process(desktop_id: str) -> int:
    """Return the guest agent's process id on the host."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            if (
                b"beamdesk.guest" not in arguments
                or int((folder / "status").read_text().split("NSpid:")[1].split("\n")[0].split()[-1]) > 2
            ):
                continue
            config = (folder / "root/run/beamdesk/agent/config.json").read_text()
        except (OSError, ValueError, IndexError):
            continue
        if desktop_id in config:
            return int(folder.name)
    raise AssertionError(f"no container of {desktop_id} runs")


def run(desktop_id: str, command: str, *, uid: int = 0, gids: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a shell command inside, with its namespaces, as ``uid`` of the container."""
    pid = first_process(desktop_id)
    groups = ["--groups", ",".join(map(str, gids))] if gids else ["--clear-groups"]
    entered = ["nsenter", "-t", str(pid), "-U", "-m", "-u", "-i", "-n", "-p", "-r", "-w", "-S", "0", "-G", "0"]
    dropped = ["setpriv", "--reuid", str(uid), "--regid", str(uid), *groups, "sh", "-c", command]
    return subprocess.run([*entered, *dropped], capture_output=True, text=True, timeout=60, check=False)
