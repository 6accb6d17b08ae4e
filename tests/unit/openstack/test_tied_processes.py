"""Nothing that the tests' control plane started is left running, however the test run ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlplane.layout import Layout
from controlplane.processes import Processes, end

TESTS = Path(__file__).parents[2]
MASTER = "(trap '' TERM; while true; do sleep 0.1; done) & echo $!; wait"
"""A service whose worker does not end when it is asked to."""
RUN = """
import sys, time
from pathlib import Path
from controlplane.layout import Layout
from controlplane.processes import Processes
processes = Processes(Layout(Path(sys.argv[1]), {}), {"PATH": "/usr/bin:/bin"}, tied=True, softly_s=0.3)
processes.spawn("service", ["sh", "-c", sys.argv[2]])
print("spawned", flush=True)
time.sleep(600)
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path, {})
    made.logs.mkdir()
    made.pids.mkdir()
    return made


@pytest.fixture
def run(layout: Layout) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody who started a service whose worker does not listen."""
    program = [sys.executable, "-c", RUN, str(layout.root), MASTER]
    with subprocess.Popen(program, cwd=TESTS, stdout=subprocess.PIPE) as made:
        assert made.stdout is not None
        assert made.stdout.readline() == b"spawned\n"
        yield made
        made.kill()


def worker(layout: Layout) -> int:
    log = layout.logs / "service.log"
    reach(lambda: log.read_text().strip() != "")
    return int(log.read_text())


def reach(condition: Callable[[], bool]) -> None:
    """Wait until it is so; ten seconds are a hang."""
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it does not happen")


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_whoever_is_ended_from_outside_leaves_nothing_running(
    run: subprocess.Popen[bytes], layout: Layout, number: signal.Signals
) -> None:
    pid = worker(layout)
    assert runs(pid)
    run.send_signal(number)
    reach(lambda: not runs(pid))
    reach(lambda: not list(layout.pids.iterdir()))


def test_a_worker_that_outlives_its_master_is_ended(run: subprocess.Popen[bytes], layout: Layout) -> None:
    pid, master = worker(layout), int((layout.pids / "service").read_text().split()[0])
    os.kill(master, signal.SIGKILL)
    processes = Processes(layout, {}, tied=False, softly_s=0.3)
    reach(lambda: processes.pid("service") is None)
    assert runs(pid)
    processes.stop("service")
    reach(lambda: not runs(pid))


def test_a_recycled_id_is_nobody_of_ours(layout: Layout) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        started = Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(")")[2].split()[19]
        (layout.pids / "service").write_text(f"{stranger.pid} {int(started) - 1}")  # ours had begun before it
        end([layout.pids / "service"], softly_s=0.1)
        assert stranger.poll() is None
        stranger.kill()


def test_what_was_stopped_in_order_takes_its_watcher_along(layout: Layout) -> None:
    processes = Processes(layout, dict(os.environ), tied=True)
    processes.spawn("service", ["sleep", "60"])
    pid = processes.pid("service")
    assert pid is not None
    processes.close()
    assert not runs(pid)
    assert not list(layout.pids.iterdir())
