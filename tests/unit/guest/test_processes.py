import os
import signal
import time
from pathlib import Path

import pytest

from beamdesk.guest import processes
from beamdesk.guest.accounts import Person


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def output(said):
    return processes.Output(lambda name, line: said.append((name, line)))


@pytest.fixture
def start(output, tmp_path):
    begun = []
    person = Person("me", os.getuid(), os.getgid(), tuple(os.getgroups()) or (os.getgid(),), tmp_path)

    def begin(script, name="program", **options):
        process = processes.start(name, ["sh", "-c", script], person, {"PATH": os.environ["PATH"]}, output, **options)
        begun.append(process)
        return process

    yield begin
    processes.stop_all(begun, 0.5)
    for process in begun:
        process.close()


def ended(process):
    end = time.monotonic() + 5
    while (how := process.ended()) is None:
        assert time.monotonic() < end
        time.sleep(0.005)
    return how


def test_the_cause_of_an_end_carries_the_last_words(start):
    assert ended(start("echo first; echo cannot open display >&2; exit 3")) == "ended with code 3: cannot open display"


def test_last_words_are_never_missed(start):
    for number in range(30):
        assert ended(start(f"echo word{number}; exit 1")).endswith(f"word{number}")


def test_a_signal_is_named(start):
    assert ended(start("kill -9 $$")) == "was ended by signal 9 (SIGKILL)"


def test_a_chatty_program_neither_blocks_nor_floods_the_console(start, said):
    assert ended(start("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done", name="chatty")) == "ended with code 0"
    assert len([line for name, line in said if name == "chatty"]) <= 200


def test_output_held_open_by_a_child_does_not_block(start):
    process = start("sleep 30 & echo bye; exit 2")
    began = time.monotonic()
    assert ended(process).endswith("bye")
    assert time.monotonic() - began < 3


def test_all_of_a_program_is_stopped_even_if_it_refuses(start, tmp_path):
    process = start(f"trap '' TERM; (trap '' TERM; echo $BASHPID $$; sleep 60) & echo $! > {tmp_path}/pid; wait")
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        time.sleep(0.01)
    child = int((tmp_path / "pid").read_text())
    began = time.monotonic()
    processes.stop_all([process], 0.2)
    assert time.monotonic() - began < 2
    ended(process)
    end = time.monotonic() + 2
    while Path(f"/proc/{child}").exists() and "State:\tZ" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_priority_and_umask_are_set(start, tmp_path):
    ended(start(f"nice > {tmp_path}/nice; umask >> {tmp_path}/nice", nice=7))
    assert (tmp_path / "nice").read_text().split() == [str(os.nice(0) + 7), "0002"]


def test_signalling_the_dead_is_fine(start):
    process = start("exit 0")
    ended(process)
    process.signal(signal.SIGTERM)


def test_nothing_of_ours_is_inherited(start, tmp_path):
    ended(start(f"ls /proc/self/fd | wc -l > {tmp_path}/count; env > {tmp_path}/env"))
    assert int((tmp_path / "count").read_text()) <= 4
    assert "HOME" not in (tmp_path / "env").read_text()
