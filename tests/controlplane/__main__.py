"""The test control plane by hand: ``python -m tests.controlplane up|down|status|clouds|remove``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .layout import CACHE
from .plane import ControlPlane, ControlPlaneError, Options


def main() -> int:
    """Do what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.controlplane", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status", "clouds", "remove"))
    parser.add_argument("--state", type=Path, default=CACHE / "by-hand", help="folder of the instance")
    parser.add_argument("--hosts", type=int, default=5, help="simulated hosts, at the first start")
    parser.add_argument("--hosts-per-process", type=int, default=None)
    parser.add_argument("--no-volumes", action="store_true", help="without Cinder, at the first start")
    chosen = parser.parse_args()
    per_process = chosen.hosts_per_process or (3 if chosen.hosts <= 12 else 50)
    options = Options(hosts=chosen.hosts, hosts_per_process=per_process, volumes=not chosen.no_volumes)
    try:
        plane = ControlPlane(chosen.state, options, tied=False, say=_say)
        return _do(chosen.command, plane)
    except ControlPlaneError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _do(command: str, plane: ControlPlane) -> int:
    if command == "up":
        plane.up()
        _say(f"export OS_CLIENT_CONFIG_FILE={plane.clouds_yaml} OS_CLOUD=beamdesk")
    elif command == "down":
        plane.down()
    elif command == "remove":
        plane.remove()
    elif command == "clouds":
        _say(str(plane.clouds_yaml))
    else:
        found = plane.status()
        for name, pid in found.items():
            _say(f"{name:18} {pid or 'dead'}")
        return 0 if found and all(found.values()) else 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
