"""What NVIDIA's cards say of their use: our few calls held against NVIDIA's binding, on the same driver of ours below both."""

import ctypes

import pynvml
import pytest

from beamdesk.guest import nvml
from beamdesk.guest.nvml import Nvml
from nvidiadriver import Card, Driver, under

NO_PERMISSION, LOST, MISMATCH, UNKNOWN = 4, 15, 18, 999


def divided(*programs: int) -> Card:
    return Card(mig=1, gpu_percent=None, parts=list(programs))


class Desk:
    """A desktop whose driver has these cards; ``said``: what was wrong."""

    def __init__(self, *cards: Card, ours: tuple[int, ...] = ()) -> None:
        self.driver = Driver({f"0000:0{number}:00.0": card for number, card in enumerate(cards)})
        self.said: list[str] = []
        self.nvml = Nvml(lambda: self.driver, self.said.append, lambda: ours)

    def uses(self, *minors: int):
        return self.nvml.uses(minors or range(len(self.driver.cards)))


def test_each_card_tells_its_share() -> None:
    assert Desk(Card(gpu_percent=37), Card(gpu_percent=0)).uses() == [0.37, 0.0]


def test_the_binding_sees_the_same() -> None:
    desk = Desk(Card(gpu_percent=81, processes=3), Card(gpu_percent=5))
    with under(desk.driver) as binding:
        binding.nvmlInit()
        handles = [binding.nvmlDeviceGetHandleByIndex(index) for index in range(binding.nvmlDeviceGetCount())]
        seen = [binding.nvmlDeviceGetUtilizationRates(handle).gpu / 100 for handle in handles]
    assert desk.uses() == seen


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(nvml.Utilization, pynvml.c_nvmlUtilization_t), (nvml.ProcessInfo, pynvml.c_nvmlProcessInfo_v3_t)],
)
def test_structures_are_laid_out_as_in_the_binding(ours: type[ctypes.Structure], theirs: type[ctypes.Structure]) -> None:
    def layout(kind: type[ctypes.Structure]) -> list[tuple[str, int, int]]:
        return [(name, getattr(kind, name).offset, getattr(kind, name).size) for name, *_ in kind._fields_]

    assert layout(ours) == layout(theirs)
    assert ctypes.sizeof(ours) == ctypes.sizeof(theirs)


def test_error_codes_are_those_of_the_binding() -> None:
    named = ["UNINITIALIZED", "INSUFFICIENT_SIZE", "DRIVER_NOT_LOADED", "LIBRARY_NOT_FOUND", "GPU_IS_LOST", "RESET_REQUIRED"]
    theirs = [getattr(pynvml, f"NVML_ERROR_{name}") for name in [*named, "LIB_RM_VERSION_MISMATCH"]]
    ours = [nvml._NOT_INITIALIZED, nvml._TOO_SMALL, nvml._NO_DRIVER, nvml._NO_LIBRARY, nvml._LOST, nvml._RESET, nvml._MISMATCH]
    assert ours == theirs
    assert nvml._MIG_ENABLED == pynvml.NVML_DEVICE_MIG_ENABLE


def test_another_desktops_card_does_not_count() -> None:
    """In a container the driver counts all cards of the host: ours are those whose device files are here."""
    hidden = Card(gpu_percent=99, errors={"nvmlDeviceGetHandleByIndex_v2": NO_PERMISSION})
    shown = Card(gpu_percent=99, minor=1)
    assert Desk(hidden, shown, Card(gpu_percent=2, minor=2)).uses(2) == [0.02]


def test_without_a_card_the_driver_is_left_alone() -> None:
    desk = Desk(Card())
    assert desk.nvml.uses([]) == []
    assert desk.driver.opened == 0


def test_a_divided_card_is_in_use_while_a_program_computes_on_it() -> None:
    assert Desk(divided(0, 2)).uses() == [None]
    assert Desk(divided(0, 0)).uses() == [0.0]


def test_the_streaming_server_on_a_divided_card_is_no_use() -> None:
    assert Desk(divided(1), ours=(4000,)).uses() == [0.0]


def test_older_libraries_are_asked_as_they_can_be() -> None:
    desk = Desk(divided(1))
    desk.driver.lacks = {"nvmlDeviceGetComputeRunningProcesses_v3"}
    assert desk.uses() == [None]
    desk.driver.lacks |= {"nvmlDeviceGetComputeRunningProcesses_v2"}
    assert desk.uses() == [None], "who cannot be asked about may compute"


def test_a_card_without_a_share_and_without_programs_is_unused() -> None:
    assert Desk(Card(gpu_percent=None)).uses() == [0.0]
    assert Desk(Card(gpu_percent=None, processes=1)).uses() == [None]


def test_more_programs_than_there_is_room_for_are_use() -> None:
    assert Desk(Card(gpu_percent=None, processes=300)).uses() == [None]


@pytest.mark.parametrize("symbol", ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUtilizationRates"])
def test_a_lost_card_is_told_and_the_others_are_measured(symbol: str) -> None:
    desk = Desk(Card(errors={symbol: LOST}), Card(gpu_percent=50))
    assert desk.uses() == [0.5]
    assert desk.said == ["card 0 is lost"]


def test_a_card_that_does_not_answer_may_be_in_use() -> None:
    assert Desk(Card(errors={"*": UNKNOWN})).uses() == [None]
    assert Desk(Card(errors={"nvmlDeviceGetHandleByIndex_v2": UNKNOWN})).uses() == [None]


def test_without_the_library_nothing_computes() -> None:
    def missing():
        raise OSError("libnvidia-ml.so.1: cannot open shared object file")

    said: list[str] = []
    assert Nvml(missing, said.append, tuple).uses([0]) == []
    assert "libnvidia-ml.so.1" in said[0]


@pytest.mark.parametrize(("code", "uses"), [(MISMATCH, []), (9, []), (UNKNOWN, [None])])
def test_a_driver_that_cannot_be_opened(code: int, uses: list[float | None]) -> None:
    desk = Desk(Card())
    desk.driver.init = code
    assert desk.uses() == uses
    assert desk.uses() == uses, "until it is tried again"
    assert desk.said == [f"NVIDIA's driver does not answer: NVML error {code}"]
    desk.driver.init = 0
    seen = [desk.uses() for _ in range(nvml._RETRY_LOOKS)]
    assert seen[-1] == [0.37], "a driver that comes late is found"


def test_a_driver_that_goes_is_opened_again() -> None:
    desk = Desk(Card())
    assert desk.uses() == [0.37]
    desk.driver.is_open = False
    assert desk.uses() == [None]
    assert desk.uses() == [0.37]
