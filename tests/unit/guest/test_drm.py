"""Figures of /proc/<pid>/fdinfo as Linux documents them (Documentation/gpu/drm-usage-stats.rst), in a folder."""

import os

import pytest

from beamdesk.guest.cards import RenderNode
from beamdesk.guest.drm import DrmMeter

I915 = """pos:\t0
flags:\t02400002
drm-driver:\ti915
drm-client-id:\t{client}
drm-pdev:\t0000:00:02.0
drm-engine-render:\t{render} ns
drm-engine-copy:\t0 ns
drm-engine-video:\t{video} ns
drm-engine-capacity-video:\t2
"""
XE = """drm-driver:\txe
drm-client-id:\t{client}
drm-cycles-rcs:\t{cycles}
drm-total-cycles-rcs:\t{passed}
"""
SILENT = "drm-driver:\tnouveau\ndrm-client-id:\t3\n"


class Proc:
    """Processes that have a card open; ``now``: seconds."""

    def __init__(self, folder):
        self.proc, self.now = folder / "proc", 0.0
        self.proc.mkdir()
        (self.proc / "uptime").touch()
        self.device = folder / "device"
        self.device.mkdir()
        self.node = RenderNode(folder / "dev/dri/renderD128", "i915", self.device)
        self.ours = {1}
        self.meter = DrmMeter(lambda: self.now, lambda: self.ours, self.proc)

    def opens(self, pid, text, *, fd=5, path=None):
        for name in ("fd", "fdinfo"):
            (self.proc / str(pid) / name).mkdir(parents=True, exist_ok=True)
        link = self.proc / str(pid) / "fd" / str(fd)
        link.unlink(missing_ok=True)
        link.symlink_to(path or self.node.path)
        (self.proc / str(pid) / "fdinfo" / str(fd)).write_text(text)

    def use(self, after=2.0):
        self.now += after
        (use,) = self.meter.uses([self.node])
        return use


@pytest.fixture
def proc(tmp_path):
    return Proc(tmp_path)


def i915(render=0, video=0, client=1):
    return I915.format(client=client, render=round(render * 1e9), video=round(video * 1e9))


def test_amds_own_figure_is_taken(proc):
    (proc.device / "gpu_busy_percent").write_text("93\n")
    assert proc.use() == 0.93


def test_amds_virtual_functions_without_the_figure_are_asked_by_their_clients(proc):
    (proc.device / "gpu_busy_percent").mkdir()
    assert proc.use() == 0.0


def test_a_program_that_draws_or_computes_is_use(proc):
    proc.opens(10, i915(render=1.0))
    assert proc.use() == 0.0, "what it used before is not known"
    proc.opens(10, i915(render=2.5))
    assert proc.use() == pytest.approx(0.75)


def test_programs_add_up_and_the_busiest_engine_counts(proc):
    for pid in (10, 11):
        proc.opens(pid, i915(client=pid))
    proc.use()
    for pid in (10, 11):
        proc.opens(pid, i915(render=0.5, video=0.2, client=pid))
    assert proc.use() == pytest.approx(0.5)


def test_an_engine_that_is_there_twice_is_busy_when_both_are(proc):
    proc.opens(10, i915())
    proc.use()
    proc.opens(10, i915(video=2.0))
    assert proc.use() == pytest.approx(0.5)


def test_a_card_that_is_opened_twice_by_one_client_counts_once(proc):
    proc.opens(10, i915())
    proc.opens(11, i915())
    proc.use()
    proc.opens(10, i915(render=1.0))
    proc.opens(11, i915(render=1.0), fd=7)
    assert proc.use() == pytest.approx(0.5)


def test_the_desktops_own_programs_do_not_count(proc):
    proc.ours = {10}
    proc.opens(10, i915())
    proc.use()
    proc.opens(10, i915(render=2.0))
    assert proc.use() == 0.0


def test_xe_counts_cycles(proc):
    proc.opens(10, XE.format(client=1, cycles=1000, passed=10000))
    proc.use()
    proc.opens(10, XE.format(client=1, cycles=3000, passed=20000))
    assert proc.use() == pytest.approx(0.2)


def test_another_card_is_not_ours(proc):
    proc.opens(10, i915(), path="/dev/dri/renderD129")
    proc.use()
    proc.opens(10, i915(render=2.0), path="/dev/dri/renderD129")
    assert proc.use() == 0.0


def test_a_driver_that_counts_nothing_may_be_in_use(proc):
    assert proc.use() == 0.0
    proc.opens(10, SILENT)
    assert proc.use() is None


def test_processes_of_others_and_files_that_go_are_passed_over(proc):
    (proc.proc / "12").mkdir()
    proc.opens(13, i915())
    (proc.proc / "13/fdinfo/5").unlink()
    assert proc.use() == 0.0


@pytest.mark.parametrize(
    "text", ["", "drm-engine-render:", "drm-engine-render: 12 %", "drm-client-id\x00", "drm-engine-render: -5 ns"]
)
def test_figures_that_are_none_end_nothing(proc, text):
    proc.opens(10, text)
    assert proc.use() is None


def test_counters_that_jump_back_are_no_use(proc):
    proc.opens(10, i915(render=5.0))
    proc.use()
    proc.opens(10, i915(render=1.0))
    assert proc.use() == 0.0


def test_the_real_process_file_system_is_read(tmp_path):
    node = RenderNode(tmp_path / "renderD128", "nouveau", tmp_path)  # nobody else opens it
    node.path.touch()
    with node.path.open():
        assert DrmMeter(lambda: 0.0, tuple).uses([node]) == [None], "this process has it open, and nothing is counted"
        assert DrmMeter(lambda: 0.0, lambda: [os.getpid()]).uses([node]) == [0.0]
