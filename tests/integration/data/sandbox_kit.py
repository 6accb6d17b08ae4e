"""Runs code inside the previews' sandbox and tells what came of it."""

from __future__ import annotations

import subprocess
import sys

_FRAME = """
import os
out = os.dup(1)
from beamdesk.adapters.preview import content, sandbox
content.warm_up()
import socket, ctypes, signal
sandbox.CPU_S = min(sandbox.CPU_S, {cpu_s}); sandbox.limit(); sandbox.enter()
def attempt():
{body}
try:
    answer = attempt()
    text = "did it: " + repr(answer)
except BaseException as error:
    text = type(error).__name__ + ": " + str(error)
os.write(out, text.encode())
os._exit(0)
"""


def confined(body: str, cpu_s: int = 10) -> str:
    """Run the lines of ``body`` confined; return what they returned or raised."""
    code = _FRAME.format(body="\n".join(f"    {line}" for line in body.splitlines()), cpu_s=cpu_s)
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout or f"ended {done.returncode}: {done.stderr[-300:]}"
