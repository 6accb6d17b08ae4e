"""What the agent sees of a host: sysfs, the catalogue, NVML, who holds a card."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from beamdesk.domain.srm_checks import check_report
from beamdesk.protocol.srm import FactsFrom, LendMode, LinkFacts, NumaFacts
from beamdesk.srm import catalogue, delta
from beamdesk.srm.catalogue import Catalogue
from beamdesk.srm.collect import Cards, Collector, Seen
from beamdesk.srm.config import Config
from beamdesk.srm.errors import ConfigError
from beamdesk.srm.nvml import NvmlCard
from srmtree import Tree

FIRST, SECOND = "0000:3b:00.0", "0000:af:00.0"
SERVER = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def look(tree: Tree, nvml: Cards | None = None) -> Seen:
    return Collector(config(tree), nvml).look()


def config(tree: Tree) -> Config:
    return Config("https://localhost", "gpu01", sys=tree.sys, proc=tree.proc, disk=tree.root)


def test_a_host_without_cards_is_a_cpu_host(tree: Tree) -> None:
    seen = look(tree)
    assert seen.cards == {}
    assert (seen.host.cpus, seen.host.memory_mib, seen.host.cpu_model) == (16, 131072, "AMD EPYC 7313 16-Core")
    assert seen.host.numa == (NumaFacts(8, 65536), NumaFacts(8, 65536))
    assert seen.host.links == (LinkFacts("eth0", True, 100000),)
    assert seen.load.memory_used_mib == 32768


def test_load_is_what_happened_since_the_last_look(tree: Tree) -> None:
    collector = Collector(config(tree))
    tree.busy(400, 1600)
    tree.link("eth0", received=10**9)
    load = collector.look().load
    assert load.cpu == 0.3
    assert load.received_bytes_s > 0
    assert collector.look().load.cpu == 0.0
    tree.busy(0, 0)
    assert collector.look().load.cpu == 0.0, "counters that went backwards"


def test_a_card_on_vfio_is_known_by_its_pci_id(tree: Tree) -> None:
    tree.plug(FIRST, node=1)
    card = look(tree).cards[FIRST]
    assert (card.model, card.memory_mib, card.cores, card.bandwidth_gbs, card.clock_mhz) == ("RTX A6000", 49152, 10752, 768, 1800)
    assert (card.mode, card.driver, card.numa, card.iommu_group) == (LendMode.PASSTHROUGH, "vfio-pci", 1, 42)
    assert (card.link_width, card.link_gts, card.nvenc, card.facts_from) == (16, 16.0, True, FactsFrom.CATALOGUE)


def test_one_device_id_may_be_two_products(tree: Tree) -> None:
    tree.plug(FIRST, "1e30", "12ba")
    tree.plug(SECOND, "1e30", "129e", group=43)
    assert {card.model for card in look(tree).cards.values()} == {"Quadro RTX 6000", "Quadro RTX 8000"}


def test_a_board_with_four_gpus_is_four_cards(tree: Tree) -> None:
    for slot in range(4):
        tree.plug(f"0000:{0x40 + slot:x}:00.0", "25b6", "14a9", group=60 + slot)
    cards = look(tree).cards.values()
    assert [(card.model, card.memory_mib) for card in cards] == [("A16", 16384)] * 4


def test_a_card_of_another_builder_is_the_product_of_its_device_id(tree: Tree) -> None:
    tree.plug(FIRST, "1e30", "1234")
    assert look(tree).cards[FIRST].model == "Quadro RTX 6000"


def test_an_accelerator_without_graphics_is_a_card(tree: Tree) -> None:
    tree.plug(FIRST, "74a1", "74a1", vendor="1002", kind="0x120000")
    card = look(tree).cards[FIRST]
    assert (card.model, card.memory_mib, card.nvenc) == ("Instinct MI300X", 196608, False)


def test_an_unknown_card_is_told_without_numbers(tree: Tree) -> None:
    tree.plug(FIRST, "ffff")
    card = look(tree).cards[FIRST]
    assert (card.model, card.memory_mib, card.facts_from) == ("unknown 10de:ffff", None, FactsFrom.UNKNOWN)


def test_other_devices_are_no_cards(tree: Tree) -> None:
    tree.plug("0000:01:00.0", "2000", vendor="1a03")  # a server's own console graphics
    tree.plug("0000:3b:00.1", "1aef", kind="0x040300")  # a card's sound
    virtual = tree.plug("0000:3b:00.4")
    (virtual / "physfn").symlink_to("../0000:3b:00.0")
    assert look(tree).cards == {}


def test_a_sites_own_catalogue_wins(tree: Tree, tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text(",".join(catalogue.COLUMNS) + "\n1002,744b,,Radeon PRO,48,6144,864,2156,53000,no,yes,the manufacturer\n")
    tree.plug(FIRST, "744b", vendor="1002")
    seen = Collector(replace(config(tree), catalogue=own)).look()
    assert seen.cards[FIRST].model == "Radeon PRO"
    assert look(tree).cards == {}


@pytest.mark.parametrize("row", ["10de,1,,X,48,1,1,1,1,maybe,yes,s", "10de,1,,X,-,1,1,1,1,no,yes,s", "10de,1"])
def test_a_malformed_catalogue_names_its_row(tmp_path: Path, row: str) -> None:
    own = tmp_path / "own.csv"
    own.write_text(",".join(catalogue.COLUMNS) + f"\n{row}\n")
    with pytest.raises(ConfigError, match="row 1"):
        catalogue.load(own)


def shipped() -> Catalogue:
    return catalogue.load(None)


@pytest.mark.parametrize("row", shipped().rows, ids=lambda row: row.model)
def test_the_catalogues_numbers_agree_with_each_other(row: catalogue.Known) -> None:
    assert re.fullmatch("[0-9a-f]{4}", row.device)
    assert re.fullmatch("([0-9a-f]{4})?", row.subsystem)
    # CDNA 3 and RDNA 3 issue two instructions a clock, and AMD counts both
    issues = 2 if row.vendor == "1002" and "two instructions" in row.source else 1
    expected = issues * 2 * row.cores * row.clock_mhz / 1000
    assert row.fp32_gflops == pytest.approx(expected, rel=0.01), "peak FP32 is 2 x cores x clock"
    assert row.memory_mib % 1024 == 0


@pytest.mark.parametrize("row", shipped().rows, ids=lambda row: row.model)
def test_each_row_names_the_texts_that_it_was_compared_with(row: catalogue.Known) -> None:
    texts = [part for part in row.source.split("; ") if not part.startswith("one text") and "differs" not in part]
    assert len(texts) >= 2


def test_what_was_found_in_one_text_only_is_listed_in_the_reference() -> None:
    reference = (Path(__file__).parents[3] / "docs/reference/srm.md").read_text()
    listed = re.search(r"found in one text only: (.*?)\.\n", reference, re.DOTALL)
    assert listed is not None
    assert {name.strip() for name in listed[1].split(",")} == {row.model for row in shipped().rows if "one text" in row.source}


def test_the_catalogue_names_each_card_once() -> None:
    ids = [(row.vendor, row.device, row.subsystem) for row in shipped().rows]
    assert len(set(ids)) == len(ids)


def test_the_server_that_holds_a_card_is_known(tree: Tree) -> None:
    tree.plug(FIRST, group=42)
    tree.plug(SECOND, group=43)
    tree.start_server(4711, SERVER, 42)
    loads = look(tree).loads
    assert (loads[FIRST].held, loads[FIRST].holder) == (True, SERVER)
    assert (loads[SECOND].held, loads[SECOND].holder) == (False, "")


def test_a_server_that_came_and_went_between_two_looks_is_told_once(tree: Tree) -> None:
    tree.plug(FIRST, group=42)
    collector = Collector(config(tree))
    assert not collector.look().loads[FIRST].held
    tree.start_server(4711, SERVER, 42)
    collector.watch()
    tree.stop_server(4711)
    collector.watch()
    for _ in range(2):
        seen = collector.look()
        assert (seen.loads[FIRST].held, seen.loads[FIRST].holder) == (True, SERVER), "until the API knows"
    collector.told(seen.visits)
    assert not collector.look().loads[FIRST].held


def test_a_second_visit_while_the_first_is_told_is_not_lost(tree: Tree) -> None:
    tree.plug(FIRST, group=42)
    collector = Collector(config(tree))
    collector.look()
    tree.start_server(4711, SERVER, 42)
    collector.watch()
    seen = collector.look()
    collector.watch()
    collector.told(seen.visits)
    tree.stop_server(4711)
    assert collector.look().loads[FIRST].held


def test_the_iommufd_device_of_a_card_counts_too(tree: Tree) -> None:
    folder = tree.plug(FIRST, group=42)
    (folder / "vfio-dev/vfio7").mkdir(parents=True)
    tree.start_server(4711, "no uuid", "devices/vfio7")
    load = look(tree).loads[FIRST]
    assert (load.held, load.holder) == (True, "")


def test_a_broken_tree_is_an_empty_one(tmp_path: Path) -> None:
    seen = Collector(Config("https://localhost", "x", sys=tmp_path / "no", proc=tmp_path / "no", disk=tmp_path / "no")).look()
    assert (seen.host.cpus, seen.host.memory_mib, seen.cards) == (1, 1, {})


@pytest.mark.parametrize("garbage", ["", "0x", "99999999999999999999", "-1", "\x00\xff", "16.0"])
def test_garbage_in_sysfs_makes_no_report_that_is_refused(tree: Tree, garbage: str) -> None:
    folder = tree.plug(FIRST)
    for name in ("device", "subsystem_device", "numa_node", "max_link_width", "max_link_speed"):
        (folder / name).write_text(garbage)
    check_report(delta.full(look(tree), "s", 1, ()))


# --- cards that a driver of the host has


@pytest.mark.parametrize("driver", ["vfio-pci", "nvgrace_gpu_vfio_pci", "pci-stub", ""])
def test_a_card_that_the_host_leaves_alone_is_passed_through(tree: Tree, driver: str) -> None:
    tree.plug(FIRST, driver=driver)
    assert look(tree).cards[FIRST].mode is LendMode.PASSTHROUGH


@pytest.mark.parametrize("driver", ["nvidia", "nouveau", "amdgpu"])
def test_a_card_that_a_driver_of_the_host_runs_is_not_also_without_nvml(tree: Tree, driver: str) -> None:
    tree.plug(FIRST, driver=driver)
    seen = look(tree)
    assert seen.cards[FIRST].mode is LendMode.HOST
    check_report(delta.full(seen, "s", 1, ()))


def test_nvml_is_asked_about_cards_of_nvidias_driver_only(tree: Tree) -> None:
    asked: list[tuple[str, ...]] = []

    class Ask:
        def cards(self, addresses: Collection[str]) -> tuple[NvmlCard, ...]:
            asked.append(tuple(addresses))
            return ()

    tree.plug(FIRST, driver="nvidia")
    tree.plug(SECOND)
    look(tree, Ask())
    assert asked == [(FIRST,)]


# --- what of it is told


def test_what_did_not_change_is_not_told(tree: Tree) -> None:
    tree.plug(FIRST)
    seen, told = look(tree), delta.Told()
    delta.learn(told, delta.full(seen, "s", 1, ()))
    report = delta.changed(told, seen, "s", 2, ())
    assert (report.host, report.load, report.cards, report.loads, report.gone) == (None, None, (), (), ())


def test_a_drift_is_told_when_it_adds_up(tree: Tree) -> None:
    tree.plug(FIRST)
    seen, told, sent = look(tree), delta.Told(), []
    for temperature in range(40, 50):
        seen = replace(seen, loads={FIRST: replace(seen.loads[FIRST], temperature_c=temperature)})
        report = delta.changed(told, seen, "s", 1, ())
        delta.learn(told, report)
        sent += [load.temperature_c for load in report.loads]
    assert sent == [40, 42, 44, 46, 48]


def test_a_card_that_is_gone_is_told_once(tree: Tree) -> None:
    tree.plug(FIRST)
    told = delta.Told()
    delta.learn(told, delta.full(look(tree), "s", 1, ()))
    tree.unplug(FIRST)
    report = delta.changed(told, look(tree), "s", 2, ())
    assert report.gone == (FIRST,)
    delta.learn(told, report)
    assert delta.changed(told, look(tree), "s", 3, ()).gone == ()
