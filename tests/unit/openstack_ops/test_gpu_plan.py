"""GPU plans of common machines: what is found, and that the right files and commands are printed for it."""

from __future__ import annotations

import configparser
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from beamdesk.adapters.openstack.gpu_plan import make_plan
from beamdesk.adapters.openstack.gpu_plan_cards import MODELS
from beamdesk.adapters.openstack.gpu_plan_facts import HostFacts, collect, from_json, to_json
from beamdesk.adapters.openstack.gpu_plan_model import Plan
from beamdesk.adapters.openstack.gpu_plan_text import render
from beamdesk.srm import catalogue
from openstack_ops.machines import (
    A40,
    MI210,
    NETWORK,
    T4,
    Device,
    Machine,
    a40,
    a100_sxm,
    ready,
    two_models_on_amd,
    untouched,
)


def facts(tmp_path: Path, machine: Machine) -> HostFacts:
    return collect(machine.write(tmp_path))


def planned(tmp_path: Path, machine: Machine, *only: str) -> Plan:
    return make_plan(facts(tmp_path, machine), only)


def file(plan: Plan, name: str) -> list[str]:
    """Return the content that the plan gives a file."""
    return [line for step in plan.steps for action in step.actions if action.path.startswith(name) for line in action.lines]


def commands(plan: Plan, number: int) -> str:
    return "\n".join(line for action in plan.steps[number - 1].actions for line in action.lines if not action.path)


def test_a_console_chip_of_a_server_is_not_lent(tmp_path: Path) -> None:
    assert [one.card.address for one in planned(tmp_path, ready()).lent] == ["0000:3b:00.0"]


def test_the_audio_function_leaves_the_host_with_its_card(tmp_path: Path) -> None:
    plan = planned(tmp_path, untouched())
    assert "options vfio-pci ids=10de:22ba,10de:26b1 disable_vga=1" in file(plan, "/etc/modprobe.d")
    assert {"blacklist nouveau", "blacklist nvidia", "blacklist snd_hda_intel"} <= set(file(plan, "/etc/modprobe.d"))
    assert any("0000:3b:00.1 10de:22ba audio: driver snd_hda_intel" in found for found in plan.steps[2].found)


def test_a_card_without_audio_leaves_audio_alone(tmp_path: Path) -> None:
    assert "snd_hda_intel" not in render(planned(tmp_path, a100_sxm()))


def test_intel_hosts_get_the_kernel_words(tmp_path: Path) -> None:
    assert file(planned(tmp_path, untouched()), "/etc/default/grub.d") == [
        'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT intel_iommu=on iommu=pt"'
    ]


def test_a_host_whose_iommu_is_on_needs_nothing_in_step_one(tmp_path: Path) -> None:
    plan = planned(tmp_path, ready())
    assert plan.steps[0].actions == ()
    assert plan.steps[0].undo == ("# Nothing was added.",)


def test_amd_hosts_get_no_word_of_intel_and_lose_what_switches_it_off(tmp_path: Path) -> None:
    text = render(planned(tmp_path, two_models_on_amd()))
    assert "intel_iommu" not in text
    assert "remove: amd_iommu=off" in text
    assert "AMD-Vi (IOMMU) and SVM" in text


def test_words_are_right_and_no_group_means_the_firmware(tmp_path: Path) -> None:
    machine = ready()
    machine.groups = 0
    assert any("the firmware has it off" in found for found in planned(tmp_path, machine).steps[0].found)


def test_rhel_hosts_get_grubby_and_dracut(tmp_path: Path) -> None:
    plan = planned(tmp_path, a40())
    text = render(plan)
    assert 'grubby --update-kernel=ALL --args="intel_iommu=on iommu=pt"' in text
    assert file(plan, "/etc/dracut.conf.d") == ['force_drivers+=" vfio vfio_iommu_type1 vfio_pci "']
    assert "update-grub" not in text
    assert "initramfs-tools" not in text


def test_display_emulators_go_into_cards_with_outputs_only(tmp_path: Path) -> None:
    plan = planned(tmp_path, two_models_on_amd())
    assert "0000:41:00.0" in commands(plan, 2)
    assert "0000:81:00.0" not in commands(plan, 2)


def nova_lines(plan: Plan, key: str) -> list[dict[str, Any]]:
    found = file(plan, "/etc/nova/nova.conf, section [pci]")
    return [json.loads(line.split(" = ", 1)[1]) for line in found if line.startswith(f"{key} = ")]


def test_two_models_are_two_devices_two_aliases_two_flavors(tmp_path: Path) -> None:
    plan = planned(tmp_path, two_models_on_amd())
    assert [(spec["vendor_id"], spec["product_id"]) for spec in nova_lines(plan, "device_spec")] == [
        ("10de", "26b1"),
        ("10de", "1eb8"),
    ]
    assert [alias["name"] for alias in nova_lines(plan, "alias")] == ["rtx-6000-ada", "t4"]
    assert "gpu.rtx-6000-ada" in commands(plan, 4)
    assert "gpu.t4" in commands(plan, 4)


def test_four_equal_cards_are_one_device_line(tmp_path: Path) -> None:
    plan = planned(tmp_path, a100_sxm())
    assert len(nova_lines(plan, "device_spec")) == 1
    assert "CUSTOM_GPU_MODEL_A100_SXM4_80G,CUSTOM_GPU_MEM_GE_8G" in nova_lines(plan, "device_spec")[0]["traits"]
    assert "# 4 lines: one for each card" in "\n".join(plan.steps[3].verify)


def test_a_card_with_possible_virtual_functions_is_a_physical_function_to_nova(tmp_path: Path) -> None:
    assert nova_lines(planned(tmp_path, a40()), "alias")[0]["device_type"] == "type-PF"


def test_a_card_without_them_is_a_plain_device(tmp_path: Path) -> None:
    assert nova_lines(planned(tmp_path, ready()), "alias")[0]["device_type"] == "type-PCI"


def test_one_of_two_equal_cards_is_bound_by_address(tmp_path: Path) -> None:
    machine = Machine([Device("0000:81:00.0", T4, 40, "nvidia"), Device("0000:82:00.0", T4, 41, "nvidia")])
    plan = planned(tmp_path, machine, "82:00.0")
    text = render(plan)
    assert "driverctl set-override 0000:82:00.0 vfio-pci" in text
    assert "options vfio-pci ids" not in text
    assert "blacklist nvidia" not in text
    assert nova_lines(plan, "device_spec")[0]["address"] == "0000:82:00.0"


def test_an_address_that_is_no_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"0000:17:00\.0 is not a GPU of gpu01; its GPUs: 0000:3b:00\.0"):
        planned(tmp_path, ready(), "17:00.0")


def test_mig_and_nvswitch_are_told_before_the_first_step(tmp_path: Path) -> None:
    problems = "\n".join(planned(tmp_path, a100_sxm()).problems)
    assert "-mig 0" in problems
    assert "Fabric Manager" in problems


def test_strangers_in_the_group_are_told(tmp_path: Path) -> None:
    machine = Machine([Device("0000:81:00.0", A40, 44), Device("0000:82:00.0", NETWORK, 44, "i40e")])
    assert any("shares IOMMU group 44 with 0000:82:00.0" in problem for problem in planned(tmp_path, machine).problems)


def test_bridges_and_the_cards_own_functions_are_no_strangers(tmp_path: Path) -> None:
    machine = two_models_on_amd()
    machine.groups = 80
    assert not any("shares IOMMU group" in problem for problem in planned(tmp_path, machine).problems)


def test_the_console_of_the_host_is_told(tmp_path: Path) -> None:
    assert any("console of this host" in problem for problem in planned(tmp_path, untouched()).problems)


def test_vgpu_in_use_is_told(tmp_path: Path) -> None:
    machine = Machine([Device("0000:81:00.0", A40, 44, "nvidia", {"sriov_totalvfs": "32", "sriov_numvfs": "16"})])
    assert any("16 virtual functions" in problem for problem in planned(tmp_path, machine).problems)


def test_virtual_functions_are_not_cards(tmp_path: Path) -> None:
    machine = a40()
    machine.write(tmp_path)
    Machine([Device("0000:81:00.4", A40, 45, "nvidia")]).write(tmp_path)
    (tmp_path / "sys/bus/pci/devices/0000:81:00.4/physfn").symlink_to("../0000:81:00.0")
    assert [card.address for card in collect(tmp_path).gpus] == ["0000:81:00.0"]


def test_an_amd_accelerator_is_a_card_and_amdgpu_leaves_it(tmp_path: Path) -> None:
    plan = planned(
        tmp_path, Machine([Device("0000:c1:00.0", MI210, 60, "amdgpu")], vendor="AuthenticAMD", flags="svm", cmdline="iommu=pt")
    )
    assert "blacklist amdgpu" in file(plan, "/etc/modprobe.d")
    assert "nvidia-smi" not in render(plan)


def test_an_unknown_card_is_planned_by_its_id(tmp_path: Path) -> None:
    plan = planned(tmp_path, Machine([Device("0000:c1:00.0", ("0x10de", "0xffff", "0x030200"), 60)]))
    assert nova_lines(plan, "alias")[0]["traits"] == "CUSTOM_GPU_MODEL_10DE_FFFF"


def test_two_products_of_one_id_are_told_apart_by_their_subsystem(tmp_path: Path) -> None:
    turing = ("0x10de", "0x1e30", "0x030000")
    ids = {"subsystem_vendor": "0x1028", "subsystem_device": "0x129e"}  # Dell's
    plan = planned(tmp_path, Machine([Device("0000:c1:00.0", turing, 60, files=ids), Device("0000:c2:00.0", turing, 61)]))
    assert [one.model.name for one in plan.lent] == ["Quadro RTX 8000", "Quadro RTX 6000"]


def test_an_a2_is_no_a16(tmp_path: Path) -> None:
    ampere = ("0x10de", "0x25b6", "0x030200")
    small = {"subsystem_vendor": "0x10de", "subsystem_device": "0x157e"}
    plan = planned(tmp_path, Machine([Device("0000:c1:00.0", ampere, 60, files=small), Device("0000:c2:00.0", ampere, 61)]))
    assert [one.model.trait for one in plan.lent] == ["CUSTOM_GPU_MODEL_A2", "CUSTOM_GPU_MODEL_A16"]


def test_the_plan_and_the_agents_catalogue_agree_on_memory() -> None:
    catalogued = {f"{row.vendor}:{row.device}": row.memory_mib // 1024 for row in catalogue.load().rows if not row.subsystem}
    both = catalogued.keys() & MODELS.keys()
    assert len(both) > 30
    assert {key: MODELS[key].memory_gib for key in both} == {key: catalogued[key] for key in both}


def test_a_host_without_cards_has_no_steps(tmp_path: Path) -> None:
    plan = planned(tmp_path, Machine([Device("0000:17:00.0", NETWORK)]))
    assert plan.steps == ()
    assert "No GPU was found" in render(plan)


MACHINES = [ready, untouched, a100_sxm, a40, two_models_on_amd]


@pytest.mark.parametrize("machine", MACHINES)
def test_every_step_says_how_to_verify_and_undo_it(tmp_path: Path, machine: Any) -> None:
    steps = planned(tmp_path, machine()).steps
    assert [step.number for step in steps] == [1, 2, 3, 4, 5]
    assert all(step.verify and step.undo for step in steps)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_command_is_valid_shell(tmp_path: Path, machine: Any) -> None:
    plan = planned(tmp_path, machine())
    script = [line for step in plan.steps for action in step.actions if not action.path for line in action.lines]
    script += [line for step in plan.steps for line in (*step.verify, *step.undo)]
    subprocess.run(["bash", "-n"], input="\n".join(script).encode(), check=True)


def test_the_nova_lines_are_a_configuration(tmp_path: Path) -> None:
    lines = file(planned(tmp_path, a40()), "/etc/nova/nova.conf, section [pci]")
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string("\n".join(lines))
    assert parser.getboolean("pci", "report_in_placement")


def test_facts_travel_as_a_file(tmp_path: Path) -> None:
    known = facts(tmp_path, ready())
    assert from_json(to_json(known)) == known


def test_no_secret_of_nova_conf_travels(tmp_path: Path) -> None:
    text = to_json(facts(tmp_path, ready()))
    assert "CUSTOM_GPU_MODEL_RTX_6000_ADA" in text
    assert "rabbit" not in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "not a facts file"),
        ({"host": "a; reboot"}, "host is not a host name"),
        ({"colour": "red"}, "another shape"),
        ({"devices": [{"address": "0000:01:00.0;reboot", "vendor": "0x10de", "device": "0x20b2"}]}, "no PCI address"),
        ({"devices": [{"address": "0000:01:00.0", "vendor": "0x10de$(reboot)", "device": "0x20b2"}]}, "not a PCI id"),
        ({"devices": [{"address": "0000:01:00.0"}]}, "lacks a fact"),
        ({"devices": None}, "lacks a fact"),
    ],
)
def test_a_facts_file_that_could_write_commands_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    document = {**json.loads(to_json(facts(tmp_path, ready()))), **change}
    with pytest.raises(ValueError, match=reason):
        from_json(json.dumps(document))


def test_what_is_no_document_is_refused() -> None:
    for text in ("", "[]", "{", "[" * 100_000):
        with pytest.raises(ValueError, match=r"Expecting|facts file|nested"):
            from_json(text)


def test_a_machine_without_any_of_the_files_has_no_facts_and_no_error(tmp_path: Path) -> None:
    assert collect(tmp_path).devices == ()
