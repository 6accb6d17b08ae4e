"""The supervisor with real processes: what dies is started again, and nothing outlives it however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
from beamdesk.cli.supervisor import Service, Supervisor
folder = Path(sys.argv[1])
def service(name, code, lifeline=False):
    return Service(name, (sys.executable, "-c", code, str(folder), name, "{lifeline}"), None, folder / f"{name}.log", lifeline)
STAMP = "import os,sys,time,pathlib;p=pathlib.Path(sys.argv[1]);(p/f'{sys.argv[2]}-{os.getpid()}.pid').write_text('');"
codes = {
    "steady": STAMP + "time.sleep(60)",
    "lifeline": STAMP + "import signal;signal.signal(signal.SIGTERM,signal.SIG_IGN);os.read(int(sys.argv[3]),1)",
    "misconfigured": STAMP + "sys.exit(78)",
}
names = sys.argv[2].split(",")
sys.exit(Supervisor([service(n, codes[n], n == "lifeline") for n in names], lambda line: print(line, flush=True)).run())
"""


def _pids(folder: Path, name: str) -> set[int]:
    return {int(path.stem.rsplit("-", 1)[1]) for path in folder.glob(f"{name}-*.pid")}


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _until(condition, seconds=8.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("did not happen in time")


@pytest.fixture
def supervise(tmp_path):
    started = []

    def start(names):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path), names], stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
    for path in tmp_path.glob("*.pid"):
        pid = int(path.stem.rsplit("-", 1)[1])
        if _alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_service_that_dies_is_started_again(supervise, tmp_path):
    supervise("steady")
    _until(lambda: _pids(tmp_path, "steady"))
    (first,) = _pids(tmp_path, "steady")
    os.kill(first, signal.SIGKILL)
    _until(lambda: len(_pids(tmp_path, "steady")) == 2)


def test_nothing_outlives_a_killed_supervisor(supervise, tmp_path):
    process = supervise("lifeline,steady")
    _until(lambda: _pids(tmp_path, "steady") and _pids(tmp_path, "lifeline"))
    process.kill()
    everyone = _pids(tmp_path, "steady") | _pids(tmp_path, "lifeline")
    _until(lambda: not any(map(_alive, everyone)), seconds=3)


def test_a_signal_stops_everything_and_ends_with_status_zero(supervise, tmp_path):
    process = supervise("lifeline,steady")
    _until(lambda: _pids(tmp_path, "steady") and _pids(tmp_path, "lifeline"))
    process.terminate()
    assert process.wait(10) == 0
    assert not any(map(_alive, _pids(tmp_path, "steady") | _pids(tmp_path, "lifeline")))


def test_a_refused_configuration_stops_everything_with_its_status(supervise, tmp_path):
    process = supervise("steady,misconfigured")
    assert process.wait(10) == 78
    assert b"refused its configuration" in process.stdout.read()
    assert len(_pids(tmp_path, "misconfigured")) == 1
    assert not any(map(_alive, _pids(tmp_path, "steady")))
