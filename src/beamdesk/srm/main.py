"""The agent as a process: `enrol` spends a token, `run` reports until it is told to stop, `look` prints what it sees.

For hosts without the rest of Beamdesk: ``python3 -m beamdesk.srm``. The command ``beamdesk srm`` calls the same functions.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from beamdesk import __version__
from beamdesk.protocol.srm import Enrol
from beamdesk.srm import credential
from beamdesk.srm.agent import Agent
from beamdesk.srm.client import SrmApi
from beamdesk.srm.collect import Collector
from beamdesk.srm.config import DEFAULT, Config, load
from beamdesk.srm.errors import ApiUnavailable, SrmError
from beamdesk.srm.files import read
from beamdesk.srm.nvml import Nvml, load_nvml

_MOST_TOKEN = 1024


def enrol(config: Config, token: str) -> str:
    """Spend a one-time token, keep the credential in its file, and return the host's name.

    Raises:
        SrmError: the API does not accept it or does not answer, or the file cannot be written (the token is not spent then).
    """
    probe = config.credential.with_name(f".{config.credential.name}.probe")
    credential.save(probe, "x")
    probe.unlink()
    machine = credential.machine_digest(config.machine_id)
    with closing(SrmApi(config.api, ca_file=config.ca_file)) as api:
        enrolled = api.enrol(Enrol(token, config.host, machine, __version__))
    credential.save(config.credential, enrolled.credential)
    return enrolled.host


def run(config: Config) -> None:
    """Report until SIGTERM or SIGINT.

    Raises:
        ConfigError: no credential, no authorities, a malformed catalogue.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    api = SrmApi(config.api, ca_file=config.ca_file)
    api.use(credential.load(config.credential))
    nvml = _nvml(config)
    boot = read(config.proc / "sys/kernel/random/boot_id")[:64] or "unknown"
    machine = credential.machine_digest(config.machine_id)
    agent = Agent(config, api, Collector(config, nvml), machine=machine, boot=boot, version=__version__, log=_log)
    _log(f"reporting {config.host} to {config.api}{'' if nvml else ', without NVML'}")
    agent.run(stop.wait)
    if nvml is not None:
        nvml.close()
    _log("stopped")


def look(config: Config) -> str:
    """Return what the agent sees, as JSON."""
    seen = Collector(config, _nvml(config)).look()
    return json.dumps(asdict(seen), indent=2)


def _nvml(config: Config) -> Nvml | None:
    return load_nvml(_log) if config.nvml else None


def _log(line: str) -> None:
    sys.stderr.write(f"srm: {line}\n")
    sys.stderr.flush()


def read_token() -> str:
    """Return the token from standard input: as an argument, every account of the host could read it."""
    return sys.stdin.readline(_MOST_TOKEN).strip()


def main(arguments: list[str] | None = None) -> int:
    """Run one of the three; an error is one line on standard error."""
    parser = argparse.ArgumentParser(prog="python3 -m beamdesk.srm", description="Tell Beamdesk about this host and its GPUs.")
    parser.add_argument("command", choices=("enrol", "run", "look"), help="enrol: spend the token on standard input")
    parser.add_argument("--config", type=Path, default=Path(os.environ.get("BEAMDESK_SRM_CONFIG", str(DEFAULT))))
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "look":
            config = load(chosen.config) if chosen.config.exists() else Config("https://localhost", os.uname().nodename)
            sys.stdout.write(f"{look(config)}\n")
        elif chosen.command == "enrol":
            host = enrol(load(chosen.config), read_token())
            _log(f"enrolled as {host}")
        else:
            run(load(chosen.config))
    except SrmError as error:
        _log(str(error))
        return 75 if isinstance(error, ApiUnavailable) else 78
    return 0
