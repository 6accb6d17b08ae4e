"""The stand-in for NVIDIA's library is one: the real loader takes it, and the agent's own look through it sees the card."""

import ctypes

import standin_driver
from beamdesk.guest.nvml import Nvml


def test_the_stand_in_is_a_library_with_a_busy_card(tmp_path):
    path = tmp_path / "libnvidia-ml.so.1"
    path.write_bytes(standin_driver.nvml(73, minor=1))
    said = []
    look = Nvml(lambda: ctypes.CDLL(str(path)), said.append, frozenset)
    assert look.uses([1]) == [0.73]
    assert look.uses([0]) == [None]
    assert said == []
