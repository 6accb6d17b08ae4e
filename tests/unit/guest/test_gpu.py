"""The meter against probes that are real processes and behave as badly as drivers make them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from beamdesk.guest import gpu
from beamdesk.guest.gpu import SILENT_S, GpuMeter
from beamdesk.protocol.guest import NO_CARD_WORKS

WELL = "import time\nwhile True:\n    print('0.750', flush=True); time.sleep(0.05)"
LIMIT_S = 10.0


class World:
    """A meter whose probe is ``program``, a clock that the test moves, and what was said."""

    def __init__(self, program):
        self.program = program
        self.now, self.cards, self.said, self.started = 100.0, True, [], []
        self.meter = GpuMeter(self.launch, lambda: self.cards, lambda: self.now, self.said.append)

    def launch(self, output):
        self.started.append(subprocess.Popen([sys.executable, "-c", self.program], stdout=output, stdin=subprocess.DEVNULL))
        return self.started[-1]

    def share_when(self, what, after=0.01):
        """Ask again and again, and return the first share of which ``what`` is true."""
        end = time.monotonic() + LIMIT_S
        while not what(share := self.meter.share()):
            assert time.monotonic() < end, share
            time.sleep(0.01)
            self.now += after
        return share


@pytest.fixture
def world():
    made = []

    def make(program):
        made.append(World(program))
        return made[-1]

    yield make
    for one in made:
        for process in one.started:
            process.kill()
            process.wait()


def test_the_share_is_what_the_probe_says(world):
    assert world(WELL).share_when(lambda share: share is not None) == 0.75


def test_the_share_is_the_mean_since_the_last_call(world):
    one = world("import time\nprint('0.2\\n0.4', flush=True)\ntime.sleep(60)")
    assert one.share_when(lambda share: share is not None) == pytest.approx(0.3)
    assert one.meter.share() == pytest.approx(0.3), "and stays while nothing newer is said"


def test_without_a_card_no_probe_is_started(world):
    one = world(WELL)
    one.cards = False
    assert one.meter.share() == NO_CARD_WORKS
    assert one.started == []
    assert one.meter.pids() == []


def test_a_card_that_does_not_work_is_no_idle_one(world):
    one = world("import time\nprint('- a card is lost', flush=True); time.sleep(0.3); print('-\\n0.4', flush=True); time.sleep(60)")
    one.share_when(lambda share: share == NO_CARD_WORKS)
    assert one.share_when(lambda share: share != NO_CARD_WORKS) == 0.4
    assert one.said == ["a card is lost"]


def test_until_the_first_word_nothing_is_known(world):
    assert world("import time; time.sleep(60)").meter.share() is None


def test_a_card_that_does_not_tell_is_not_known(world):
    one = world("import time\nprint('0.1', flush=True); time.sleep(0.3); print('0.1\\n?', flush=True); time.sleep(60)")
    one.share_when(lambda share: share == 0.1)
    one.share_when(lambda share: share is None)


def test_what_is_wrong_is_said_once(world):
    one = world("import time\nwhile True:\n    print('0.000 card 0 is lost', flush=True); time.sleep(0.02)")
    one.share_when(lambda share: share == 0.0)
    time.sleep(0.1)
    assert one.meter.share() == 0.0
    assert one.said == ["card 0 is lost"]


def test_a_driver_that_blocks_is_told_and_asking_returns_at_once(world):
    one = world("import time\nprint('0.5', flush=True)\ntime.sleep(60)")
    one.share_when(lambda share: share == 0.5)
    one.now += SILENT_S + 1
    began = time.monotonic()
    assert one.meter.share() is None
    assert time.monotonic() - began < 1
    assert one.said == ["the driver of the cards does not answer"]
    one.program = WELL
    assert one.share_when(lambda share: share is not None) == 0.75
    assert len(one.started) == 2


def test_a_probe_that_cannot_be_killed_is_not_joined_by_another(world):
    one = world("import time; time.sleep(60)")
    one.meter.share()
    one.started[0].kill = lambda: None  # as in an uninterruptible call
    for _ in range(5):
        one.now += SILENT_S + 1
        assert one.meter.share() is None
    assert len(one.started) == 1


def test_a_crashed_probe_is_started_again_ever_more_slowly(world):
    one = world("import os; os.kill(os.getpid(), 11)")
    began = one.now
    while len(one.started) < 4:
        one.share_when(lambda _: len(one.started) >= 4 or one.meter.pids() == [], after=0.5)
        one.now += 0.5
    assert one.now - began > 10
    assert one.said == ["the probe of the cards ended with code -11"]


def test_a_probe_that_cannot_be_started_ends_nothing(world):
    one = world(WELL)
    one.meter._launch = lambda output: subprocess.Popen(["/nowhere"], stdout=output)
    assert one.meter.share() is None
    assert "cannot be started" in one.said[0]


@pytest.mark.parametrize(
    "words",
    [
        "print('nonsense')",
        "print('nan')",
        "print('9e999')",
        "print('x' * 3000000)",
        "import os; os.write(1, bytes(range(256)) * 99)",
    ],
)
def test_whatever_the_person_makes_the_probe_say_is_bounded(world, words):
    one = world(f"import time\n{words}\nprint('\\n0.1', flush=True)\ntime.sleep(60)")
    share = one.share_when(lambda share: share is not None)
    assert 0.0 <= share <= 1.0
    assert all(len(said) <= 500 for said in one.said)


def test_a_flood_neither_blocks_nor_fills_the_memory(world):
    one = world("import os\nwhile True: os.write(1, b'0.5 ' + os.urandom(40).hex().encode() + b'\\n')")
    one.share_when(lambda share: share == 0.5)
    for _ in range(50):
        began = time.monotonic()
        one.meter.share()
        assert time.monotonic() - began < 1
    assert len(one.said) <= 20


def test_the_probe_is_no_use_of_the_desktop(world):
    one = world(WELL)
    one.meter.share()
    assert one.meter.pids() == [one.started[0].pid]


def test_closing_ends_the_probe(world):
    one = world(WELL)
    one.meter.share()
    one.meter.close()
    assert one.started[0].wait(LIMIT_S) == -signal.SIGKILL


def test_the_real_probe_says_what_it_sees_and_ends_with_its_listener(tmp_path):
    """Whatever is at the start of sys.path or in the environment of the agent does not reach it."""
    (tmp_path / "beamdesk.py").write_text("raise SystemExit('from the home')")
    reader, writer = os.pipe()
    probe = subprocess.Popen(gpu.command(), stdout=writer, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    os.close(writer)
    try:
        line = os.read(reader, 500).decode()
        assert line.split()[0] in "?-" or 0.0 <= float(line.split()[0]) <= 1.0
    finally:
        os.close(reader)
    assert probe.wait(LIMIT_S) == 0
