import os
import subprocess
import sys

import pytest

from beamdesk.guest import gpu_probe
from beamdesk.guest.gpu_probe import Look
from nvidiadriver import Card, Driver


@pytest.fixture
def desk(tmp_path):
    """Device files of two NVIDIA cards and one of AMD."""
    dev, sys = tmp_path / "dev", tmp_path / "sys"
    device = sys / "devices/amd"
    for folder in (dev / "dri", device, sys / "drivers/amdgpu", sys / "class/drm/renderD128"):
        folder.mkdir(parents=True)
    for name in ("nvidia0", "nvidia1", "dri/renderD128"):
        (dev / name).touch()
    (device / "driver").symlink_to(sys / "drivers/amdgpu")
    (device / "gpu_busy_percent").write_text("40\n")
    (sys / "class/drm/renderD128/device").symlink_to(device)
    return dev, sys


def look(desk, *cards):
    driver = Driver({str(number): card for number, card in enumerate(cards)})
    return Look(lambda: driver, dev=desk[0], sys=desk[1])


def test_the_busiest_card_counts_whoever_made_it(desk):
    assert look(desk, Card(gpu_percent=7), Card(gpu_percent=90))() == "0.900"
    assert look(desk, Card(gpu_percent=7), Card(gpu_percent=9))() == "0.400"


def test_one_card_that_does_not_tell_leaves_the_whole_unknown(desk):
    assert look(desk, Card(gpu_percent=90), Card(gpu_percent=None, processes=1))() == "?"


def test_a_lost_card_is_told_beside_the_share_of_the_others(desk):
    assert look(desk, Card(errors={"*": 15}), Card(gpu_percent=50))() == "0.500 card 0 is lost"


def test_without_cards_that_is_said(tmp_path):
    assert Look(dev=tmp_path, sys=tmp_path)() == "-"


def test_cards_that_are_all_lost_are_no_idle_ones(desk):
    (desk[0] / "dri/renderD128").unlink()
    assert look(desk, Card(errors={"*": 15}), Card(errors={"*": 15}))() == "- card 0 is lost; card 1 is lost"


def test_a_driver_without_its_library_is_told(desk):
    def missing():
        raise OSError("no such file")

    assert Look(missing, dev=desk[0], sys=desk[1])() == "0.400 NVIDIA's library cannot be used: no such file"


def test_what_the_agent_started_is_the_desktops_own_and_what_those_start_is_not():
    program = (
        "import os, subprocess, sys\n"
        "from beamdesk.guest.gpu_probe import our_programs\n"
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "found = our_programs()\n"
        "print(os.getppid() in found, os.getpid() in found, child.pid in found)\n"
        "child.communicate(b'\\n')\n"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split() == [
        "True",
        "True",
        "False",
    ]


def test_it_ends_when_nobody_listens(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)

    class Out:
        def fileno(self):
            return writer

    monkeypatch.setattr(sys, "stdout", Out())
    gpu_probe.run(lambda: "0.1")
    os.close(writer)
