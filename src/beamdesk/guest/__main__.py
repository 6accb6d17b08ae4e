"""Process main of the guest agent: ``python3 -m beamdesk.guest`` as root of a desktop."""

import time

_STARTED = time.monotonic()

import sys  # noqa: E402 the clock above is the agent's first instruction
from pathlib import Path  # noqa: E402

from beamdesk.guest.agent import Agent  # noqa: E402
from beamdesk.guest.config import AgentFiles  # noqa: E402
from beamdesk.guest.console import Console  # noqa: E402

if __name__ == "__main__":
    console = Console(started=_STARTED)
    console.say("start", imports_s=round(time.monotonic() - _STARTED, 3))
    sys.exit(Agent(AgentFiles(Path("/run/beamdesk/agent"), Path("/var/lib/beamdesk-guest")), console, time.monotonic).run())
