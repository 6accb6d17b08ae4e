"""Cards that NVIDIA's driver runs, through the real nvidia-ml-py: only what lies below it is ours (`nvidiadriver`)."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from beamdesk.domain.srm_checks import check_report
from beamdesk.protocol.srm import FactsFrom, LendMode
from beamdesk.srm import delta
from beamdesk.srm.collect import Collector, Seen
from beamdesk.srm.config import Config
from beamdesk.srm.nvml import Nvml, NvmlCard, load_nvml
from nvidiadriver import NOT_SUPPORTED, NUMBERS, Card, Driver, under
from srmtree import Tree

FIRST, SECOND = "0000:3b:00.0", "0000:af:00.0"
UNINITIALIZED, NO_PERMISSION, NOT_LOADED, LOST, MUST_RESET, MISMATCH = 1, 4, 9, 15, 16, 18


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def look(tree: Tree, card: Card) -> Seen:
    """Look at a host whose first card NVIDIA's driver runs."""
    with under(Driver({FIRST: card})) as library:
        config = Config("https://localhost", "gpu01", sys=tree.sys, proc=tree.proc, disk=tree.root)
        seen = Collector(config, Nvml(library)).look()
    check_report(delta.full(seen, "s", 1, ()))
    return seen


def ask(card: Card) -> NvmlCard:
    with under(Driver({FIRST: card})) as library:
        (answer,) = Nvml(library).cards([FIRST])
    return answer


def test_nvml_says_what_sysfs_cannot(tree: Tree) -> None:
    tree.plug(FIRST, "ffff", driver="nvidia")
    seen = look(tree, Card())
    card, load = seen.cards[FIRST], seen.loads[FIRST]
    assert (card.model, card.mode, card.facts_from, card.uuid) == ("Test 9000", LendMode.HOST, FactsFrom.NVML, "GPU-1")
    assert (card.memory_mib, card.cores, card.clock_mhz, card.fp32_gflops, card.bandwidth_gbs) == (49152, 1000, 1500, 3000, 864)
    assert (card.nvenc, card.ecc) == (True, True)
    assert (load.busy, load.memory_used_mib, load.temperature_c, load.power_w, load.held) == (0.37, 2048, 61, 120, False)
    assert (load.ecc_uncorrected, load.fault) == (0, "")


def test_published_numbers_win_over_nvmls(tree: Tree) -> None:
    tree.plug(FIRST, driver="nvidia")
    card = look(tree, Card(total=51527024640, used=0)).cards[FIRST]
    assert (card.model, card.memory_mib, card.mode, card.uuid) == ("RTX A6000", 49152, LendMode.HOST, "GPU-1")


def test_a_process_on_a_card_holds_it() -> None:
    assert not ask(Card()).held
    assert ask(Card(processes=2)).held


def test_what_nvml_does_not_support_is_not_known(tree: Tree) -> None:
    tree.plug(FIRST, "ffff", driver="nvidia")
    names = (*NUMBERS, "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMaxClockInfo")
    names += ("nvmlDeviceGetName", "nvmlDeviceGetUUID", "nvmlDeviceGetComputeRunningProcesses_v3")
    seen = look(tree, Card(ecc=None, errors=dict.fromkeys(names, NOT_SUPPORTED)))
    card, load = seen.cards[FIRST], seen.loads[FIRST]
    assert (card.model, card.mode, card.uuid) == ("unknown 10de:ffff", LendMode.HOST, "")
    assert (card.memory_mib, card.cores, card.bandwidth_gbs, card.clock_mhz) == (None, None, None, None)
    assert (card.nvenc, card.ecc) == (None, None)
    assert (load.busy, load.memory_used_mib, load.temperature_c, load.power_w, load.ecc_uncorrected) == (None,) * 5
    assert (load.held, load.fault) == (False, "")


def test_a_function_that_an_older_driver_does_not_have_is_one_answer_less() -> None:
    driver = Driver({FIRST: Card()})
    driver.lacks = {"nvmlDeviceGetNumGpuCores"}
    with under(driver) as library:
        (card,) = Nvml(library).cards([FIRST])
    assert (card.cores, card.clock_mhz) == (None, 1500)


def test_processes_are_seen_with_drivers_that_have_the_older_function_only() -> None:
    driver = Driver({FIRST: Card(processes=1), SECOND: Card()})
    driver.lacks = {"nvmlDeviceGetComputeRunningProcesses_v3"}
    with under(driver) as library:
        assert [card.held for card in Nvml(library).cards([FIRST, SECOND])] == [True, False]


@pytest.mark.parametrize("odd", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_an_odd_answer_of_nvml_does_not_cost_the_report(tree: Tree, odd: int) -> None:
    tree.plug(FIRST, "ffff", driver="nvidia")
    look(tree, Card(numbers=dict.fromkeys(NUMBERS, odd), gpu_percent=odd, total=odd << 20, used=odd << 20, clocks={1: odd, 2: odd}))


def test_an_encoder_without_capacity_is_either_none_or_in_use() -> None:
    assert ask(Card(numbers={"nvmlDeviceGetEncoderCapacity": 1})).nvenc is True
    assert ask(Card(numbers={"nvmlDeviceGetEncoderCapacity": 0})).nvenc is None


# --- faults, and a driver that goes


@pytest.mark.parametrize(("code", "fault"), [(LOST, "GPU is lost"), (MUST_RESET, "GPU requires restart")])
def test_a_card_that_is_lost_is_a_fault(tree: Tree, code: int, fault: str) -> None:
    tree.plug(FIRST, driver="nvidia")
    seen = look(tree, Card(errors={"nvmlDeviceGetTemperature": code}))
    assert (seen.loads[FIRST].fault, seen.cards[FIRST].uuid) == (fault, "GPU-1")


def test_a_card_whose_very_handle_is_lost_is_a_fault_of_that_card(tree: Tree) -> None:
    tree.plug(FIRST, driver="nvidia")
    seen = look(tree, Card(errors={"nvmlDeviceGetHandleByPciBusId_v2": LOST}))
    assert (seen.loads[FIRST].fault, seen.cards[FIRST].mode) == ("GPU is lost", LendMode.HOST)


def test_one_lost_card_does_not_hide_the_next() -> None:
    with under(Driver({FIRST: Card(errors={"*": LOST}), SECOND: Card(uuid="GPU-2")})) as library:
        cards = Nvml(library).cards([FIRST, SECOND])
    assert [(card.address, card.fault, card.uuid) for card in cards] == [(FIRST, "GPU is lost", ""), (SECOND, "", "GPU-2")]


@pytest.mark.parametrize("code", [NO_PERMISSION, 6])
def test_a_card_that_nvml_does_not_show_is_left_to_sysfs(code: int) -> None:
    with under(Driver({FIRST: Card(errors={"nvmlDeviceGetHandleByPciBusId_v2": code})})) as library:
        assert Nvml(library).cards([FIRST]) == ()


def test_a_driver_that_comes_later_is_asked_then_and_its_absence_told_once() -> None:
    driver, said = Driver({FIRST: Card()}), []
    driver.init = NOT_LOADED
    with under(driver) as library:
        nvml = Nvml(library, said.append)
        assert nvml.cards([FIRST]) == nvml.cards([FIRST]) == ()
        driver.init = MISMATCH
        assert nvml.cards([FIRST]) == ()
        driver.init = 0
        assert [card.uuid for card in nvml.cards([FIRST])] == ["GPU-1"]
    assert said == [
        "NVML does not answer: Driver Not Loaded",
        "NVML does not answer: RM has detected an NVML/RM version mismatch.",
    ]


def test_a_library_that_lost_its_driver_is_opened_anew() -> None:
    driver = Driver({FIRST: Card()})
    with under(driver) as library:
        nvml = Nvml(library)
        assert len(nvml.cards([FIRST])) == 1
        driver.is_open = False
        assert nvml.cards([FIRST]) == ()
        assert len(nvml.cards([FIRST])) == 1
    assert driver.opened == 2


def test_the_driver_is_let_go_when_it_has_no_card_any_more_and_never_held_without_one() -> None:
    driver = Driver({FIRST: Card()})
    with under(driver) as library:
        nvml = Nvml(library)
        assert nvml.cards([]) == ()
        assert (driver.opened, driver.closed) == (0, 0)
        nvml.cards([FIRST])
        nvml.cards([FIRST])
        assert (driver.opened, driver.closed) == (1, 0)
        nvml.cards([])
        nvml.cards([])
        nvml.close()
    assert (driver.opened, driver.closed) == (1, 1)


def test_without_the_drivers_library_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    said: list[str] = []
    with under(None) as library:
        monkeypatch.setattr(library, "CDLL", missing)
        nvml = load_nvml(said.append)
        assert nvml is not None
        assert nvml.cards([FIRST]) == ()
    assert said == ["NVML does not answer: NVML Shared Library Not Found"]


def test_the_unit_leaves_the_agent_the_cards_devices_but_no_clock() -> None:
    """Before systemd 253 ProtectClock= is a list of allowed devices with one entry, which the cards' are not."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(Path(__file__).parents[3] / "deploy/systemd/beamdesk-srm.service")
    service = unit["Service"]
    assert not {"protectclock", "privatedevices", "devicepolicy", "deviceallow"} & set(service)
    assert not {"CAP_SYS_TIME", "CAP_WAKE_ALARM"} & set(service["CapabilityBoundingSet"].split())


# --- cards in parts

A100_PROFILES = {
    0: (19, 1, 9856, b"MIG 1g.10gb"),
    1: (14, 2, 19968, b"MIG 2g.20gb"),
    4: (0, 7, 80384, b"MIG 7g.80gb"),
    9: (15, 1, 19968, b"MIG 1g.20gb"),
    0x10: (20, 1, 9856, b"MIG 1g.10gb+me.all"),
}
A100_PLACES = {
    19: [(one, 1) for one in range(7)],
    14: [(one, 2) for one in (4, 2, 0)],
    0: [(0, 8)],
    15: [(one, 2) for one in (0, 2, 4, 6)],
    20: [(one, 1) for one in range(7)],
}


def test_a_mig_card_offers_its_profiles(tree: Tree) -> None:
    tree.plug(FIRST, "20b5", driver="nvidia")
    card = look(tree, Card(mig=1, gpu_percent=None, profiles=A100_PROFILES, places=A100_PLACES)).cards[FIRST]
    assert card.mode is LendMode.MIG
    assert card.parts is not None
    assert (card.parts.slots, card.parts.mixed) == (8, True)
    assert [(one.name, one.milli, one.span, one.starts, one.memory_mib) for one in card.parts.profiles] == [
        ("1g.10gb", 142, 1, (0, 1, 2, 3, 4, 5, 6), 9856),
        ("2g.20gb", 285, 2, (0, 2, 4), 19968),
        ("7g.80gb", 1000, 8, (0,), 80384),
        ("1g.20gb", 142, 2, (0, 2, 4, 6), 19968),
        ("1g.10gb+me.all", 142, 1, (0, 1, 2, 3, 4, 5, 6), 9856),
    ]


def test_a_card_in_mig_mode_that_can_be_divided_no_way_is_the_hosts() -> None:
    card = ask(Card(mig=1))
    assert (card.mode, card.parts) == (LendMode.HOST, None)


def test_a_card_whose_mig_is_off_is_the_hosts() -> None:
    assert ask(Card(mig=0, profiles=A100_PROFILES, places=A100_PLACES)).mode is LendMode.HOST


def test_a_vgpu_card_offers_its_types(tree: Tree) -> None:
    tree.plug(FIRST, "2235", driver="nvidia")
    seen = look(tree, Card(virtualization=3, vgpus=[1, 2]))
    parts = seen.cards[FIRST].parts
    assert parts is not None
    assert (seen.cards[FIRST].mode, parts.slots, parts.mixed) == (LendMode.VGPU, 6, False)
    assert [(one.name, one.milli, len(one.starts), one.memory_mib) for one in parts.profiles] == [
        ("A40-8Q", 166, 6, 8192),
        ("A40-48Q", 1000, 1, 49152),
    ]
