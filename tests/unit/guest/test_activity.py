import os

import pytest

from beamdesk.guest.activity import CpuMeter, available_cpus

TICK = os.sysconf("SC_CLK_TCK")


class Proc:
    """A process file system in a folder; times in seconds."""

    def __init__(self, folder):
        self.folder = folder
        self.now = 0.0

    def set(self, pid, own, children=0.0, name="(py (x) thon)"):
        (self.folder / str(pid)).mkdir(exist_ok=True)
        fields = ["S", "1"] + ["0"] * 9 + [str(round(own * TICK)), "0", str(round(children * TICK)), "0"] + ["0"] * 30
        (self.folder / str(pid) / "stat").write_text(f"{pid} {name} {' '.join(fields)}")

    def end(self, pid):
        (self.folder / str(pid) / "stat").unlink()
        (self.folder / str(pid)).rmdir()


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "uptime").write_text("1")
    return Proc(tmp_path)


def meter(proc, own=()):
    return CpuMeter(lambda: own, lambda: proc.now, proc.folder)


def test_a_computation_counts(proc):
    proc.set(10, 0)
    cpu = meter(proc)
    proc.now = 2.0
    proc.set(10, 1.0)
    assert cpu.share() == pytest.approx(0.5 / available_cpus())


def test_display_and_stream_do_not_count(proc):
    proc.set(10, 0)
    cpu = meter(proc, own=(10,))
    proc.now = 2.0
    proc.set(10, 2.0)
    assert cpu.share() == 0.0


def test_what_the_panel_started_counts_even_after_its_end(proc):
    proc.set(10, 0)
    cpu = meter(proc, own=(10,))
    proc.now = 2.0
    proc.set(10, 0, children=1.0)
    assert cpu.share() == pytest.approx(0.5 / available_cpus())


def test_an_ended_computation_is_not_counted_twice(proc):
    proc.set(10, 0)
    proc.set(11, 1.0)
    cpu = meter(proc)
    proc.now = 2.0
    proc.end(11)
    proc.set(10, 0, children=1.0)
    assert cpu.share() == 0.0


def test_an_orphan_that_ended_is_never_negative(proc):
    proc.set(11, 5.0)
    cpu = meter(proc)
    proc.now = 2.0
    proc.end(11)
    assert cpu.share() == 0.0


def test_limits_of_both_cgroup_versions_are_read(tmp_path):
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert available_cpus(tmp_path) == 0.5
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("25000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cpus(tmp_path) == 0.25
    assert available_cpus(tmp_path / "none") == len(os.sched_getaffinity(0))
