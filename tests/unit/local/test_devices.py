from __future__ import annotations

import os
from pathlib import Path

import pytest

from beamdesk.adapters.local.helper.devices import Card, Node, choose, described, discover
from beamdesk.adapters.local.helper.errors import HelperError
from beamdesk.protocol.helper import GpuCard

CARDS = tuple(Card(f"nvidia{n}", (Node(f"nvidia{n}", 195, n),)) for n in range(3))


def machine(
    tmp_path: Path, numbers: dict[str, tuple[int, int]], renders: dict[str, tuple[str, str]], minors: dict[str, int]
) -> tuple[Card, ...]:
    """Make fake /dev, /sys and /proc; ``renders``: name -> (PCI address, driver); ``minors``: PCI address -> number of nvidiaN."""
    for name in numbers:
        path = tmp_path / "dev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name, (address, driver) in renders.items():
        device = tmp_path / "sys/devices" / address
        (device).mkdir(parents=True)
        (tmp_path / "sys/drivers" / driver).mkdir(parents=True, exist_ok=True)
        (device / "driver").symlink_to(tmp_path / "sys/drivers" / driver)
        (tmp_path / "sys/class/drm" / name).mkdir(parents=True)
        (tmp_path / "sys/class/drm" / name / "device").symlink_to(device)
    for address, minor in minors.items():
        folder = tmp_path / "proc/driver/nvidia/gpus" / address
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t Card\nDevice Minor: \t {minor}\n")
    dev = tmp_path / "dev"
    return discover(
        dev,
        tmp_path / "sys",
        lambda path: os.makedev(*numbers[str(path.relative_to(dev))]) if str(path.relative_to(dev)) in numbers else None,
    )


def test_a_machine_without_cards_has_none(tmp_path: Path) -> None:
    assert machine(tmp_path, {"null": (1, 3)}, {}, {}) == ()


def test_nvidia_cards_come_with_their_own_render_node_and_the_control_nodes(tmp_path: Path) -> None:
    numbers = {
        "nvidia0": (195, 0),
        "nvidia1": (195, 1),
        "nvidiactl": (195, 255),
        "nvidia-uvm": (510, 0),
        "dri/renderD128": (226, 128),
        "dri/renderD129": (226, 129),
    }
    renders = {"renderD128": ("0000:41:00.0", "nvidia"), "renderD129": ("0000:01:00.0", "nvidia")}
    first, second = machine(tmp_path, numbers, renders, {"0000:01:00.0": 0, "0000:41:00.0": 1})
    assert [node.path for node in first.nodes] == ["nvidia0", "dri/renderD129", "nvidiactl", "nvidia-uvm"]
    assert [node.path for node in second.nodes] == ["nvidia1", "dri/renderD128", "nvidiactl", "nvidia-uvm"]


def test_cards_have_the_pci_address_and_ids_that_the_kernel_tells(tmp_path: Path) -> None:
    numbers = {"nvidia0": (195, 0), "dri/renderD128": (226, 128)}
    found = machine(tmp_path, numbers, {"renderD128": ("0000:41:00.0", "amdgpu")}, {"0000:01:00.0": 0})
    for address, device in (("0000:01:00.0", "0x1eb8"), ("0000:41:00.0", "0x740f")):
        folder = tmp_path / "sys/bus/pci/devices" / address
        folder.mkdir(parents=True)
        for name, value in (("vendor", "0x10de"), ("device", device), ("subsystem_device", "0x12a2")):
            (folder / name).write_text(f"{value}\n")
    assert described(found, tmp_path / "sys") == (
        GpuCard("nvidia0", "0000:01:00.0", "10de", "1eb8", "12a2"),
        GpuCard("renderD128", "0000:41:00.0", "10de", "740f", "12a2"),
    )


def test_a_card_without_an_address_is_only_a_name(tmp_path: Path) -> None:
    assert described(CARDS[:1], tmp_path / "sys") == (GpuCard("nvidia0"),)


def test_other_cards_are_their_render_nodes_and_test_devices_are_none(tmp_path: Path) -> None:
    numbers = {"dri/renderD128": (226, 128), "dri/renderD129": (226, 129)}
    (card,) = machine(tmp_path, numbers, {"renderD128": ("a", "amdgpu"), "renderD129": ("b", "vgem")}, {})
    assert (card.name, [str(node.rule) for node in card.nodes]) == ("renderD128", ["c 226:128 rw"])


def test_rocm_gets_its_control_node_with_cards_of_amd_only(tmp_path: Path) -> None:
    numbers = {"dri/renderD128": (226, 128), "dri/renderD129": (226, 129), "kfd": (240, 0)}
    amd, intel = machine(tmp_path, numbers, {"renderD128": ("a", "amdgpu"), "renderD129": ("b", "i915")}, {})
    assert [node.path for node in amd.nodes] == ["dri/renderD128", "kfd"]
    assert [node.path for node in intel.nodes] == ["dri/renderD129"]


def test_a_file_that_is_no_device_is_no_card(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    assert discover(tmp_path / "dev", tmp_path / "sys") == ()


def test_a_card_may_be_asked_for_by_its_address() -> None:
    cards = (Card("nvidia0", (), "0000:01:00.0"), Card("nvidia1", (), "0000:41:00.0"))
    assert [card.name for card in choose(("0000:41:00.0",), cards, ())] == ["nvidia1"]


def test_free_cards_are_chosen_and_none_is_shared() -> None:
    assert [card.name for card in choose(("any", "any"), CARDS, {"nvidia1"})] == ["nvidia0", "nvidia2"]
    assert [card.name for card in choose(("any", "nvidia0"), CARDS, ())] == ["nvidia0", "nvidia1"]


@pytest.mark.parametrize(
    ("wanted", "taken", "code"),
    [
        (("any",) * 4, (), "no_capacity"),
        (("nvidia1",), ("nvidia1",), "no_capacity"),
        (("nvidia0", "nvidia0"), (), "no_capacity"),
        (("nvidia9",), (), "out_of_range"),
        (("../kvm",), (), "out_of_range"),
    ],
)
def test_what_is_not_free_or_not_there_is_refused(wanted: tuple[str, ...], taken: tuple[str, ...], code: str) -> None:
    with pytest.raises(HelperError) as refused:
        choose(wanted, CARDS, taken)
    assert refused.value.code == code
