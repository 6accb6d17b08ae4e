"""The doctor on hypervisors: each thing that is broken in a host's files is found, by its own check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from beamdesk.adapters.openstack.doctor import Finding, Verdict, examine_host
from beamdesk.adapters.openstack.doctor_host import CHECKS
from beamdesk.adapters.openstack.gpu_plan_facts import collect
from openstack_ops.machines import (
    A40,
    ADA,
    ADA_AUDIO,
    NETWORK,
    NOVA,
    VFIO,
    Device,
    Machine,
    a40,
    ready,
    two_models_on_amd,
    untouched,
)


def examined(tmp_path: Path, machine: Machine) -> dict[str, Finding]:
    return {one.id: one for one in examine_host(CHECKS, collect(machine.write(tmp_path)))}


def failed(findings: dict[str, Finding]) -> list[str]:
    return [one.id for one in findings.values() if one.failed]


def test_a_finished_host_is_fine(tmp_path: Path) -> None:
    assert {one.verdict for one in examined(tmp_path, ready()).values()} == {Verdict.OK}


def test_an_untouched_host_fails_in_every_step_of_the_plan(tmp_path: Path) -> None:
    findings = examined(tmp_path, untouched())
    assert failed(findings) == ["host.virtualisation", "host.iommu", "host.groups", "host.binding", "host.audio", "host.blacklist"]
    assert findings["host.device-spec"].verdict is Verdict.UNKNOWN


def test_a_host_without_gpus_needs_nothing_of_it(tmp_path: Path) -> None:
    machine = Machine([Device("0000:17:00.0", NETWORK)], groups=0, cmdline="", files={"dev/kvm": ""})
    assert failed(examined(tmp_path, machine)) == []


def nova(old: str, new: str) -> Callable[[Machine], None]:
    def change(machine: Machine) -> None:
        assert old in NOVA
        machine.files["etc/nova/nova.conf"] = NOVA.replace(old, new)

    return change


def device(number: int, driver: str) -> Callable[[Machine], None]:
    def change(machine: Machine) -> None:
        machine.devices[number].driver = driver

    return change


def no_kvm(machine: Machine) -> None:
    del machine.files["dev/kvm"]


def no_groups(machine: Machine) -> None:
    machine.groups = 0


def stranger(machine: Machine) -> None:
    machine.devices[3].group = 30


def nothing_kept_away(machine: Machine) -> None:
    machine.files["etc/modprobe.d/vfio.conf"] = "# nothing\n"
    machine.modules = ("nouveau",)


def not_in_libvirt(machine: Machine) -> None:
    machine.files["etc/group"] = "nova:x:64060:\nlibvirt:x:110:\nkvm:x:105:nova\n"


def broken_spec(machine: Machine) -> None:
    machine.files["etc/nova/nova.conf"] = (
        '[pci]\ndevice_spec = {vendor_id: 10de}\nreport_in_placement = true\nalias = {"name": "a"}\n'
    )


def no_alias(machine: Machine) -> None:
    machine.files["etc/nova/nova.conf"] = "\n".join(line for line in NOVA.splitlines() if not line.startswith("alias"))


@pytest.mark.parametrize(
    ("break_it", "id_", "fact"),
    [
        (no_kvm, "host.virtualisation", "no /dev/kvm"),
        (no_groups, "host.iommu", "no IOMMU group"),
        (stranger, "host.groups", "shares group 30 with 0000:17:00.0"),
        (device(0, "nouveau"), "host.binding", "RTX 6000 Ada Generation: driver nouveau"),
        (device(0, ""), "host.binding", "driver none"),
        (device(1, "snd_hda_intel"), "host.audio", "0000:3b:00.1 audio: driver snd_hda_intel"),
        (nothing_kept_away, "host.blacklist", "not kept away: nouveau"),
        (nova('"product_id": "26b1",\n', '"product_id": "20b5",\n'), "host.device-spec", "no device_spec names it"),
        (broken_spec, "host.device-spec", "not JSON: {vendor_id"),
        (no_alias, "host.alias", "[pci]alias is not set"),
        (nova('{"name": "rtx-6000-ada", ', '{"title": "x", '), "host.alias", "not an alias"),
        (nova('"rtx-6000-ada", "vendor_id": "10de", "product_id": "26b1", ', '"ada", '), "host.alias", "alias ada has no ids"),
        (nova("report_in_placement = True", "report_in_placement = False"), "host.placement", "report_in_placement is off"),
        (nova("report_in_placement = True\n", ""), "host.placement", "report_in_placement is off"),
        (nova("ComputeFilter,PciPassthroughFilter", "ComputeFilter"), "host.scheduler", "ComputeFilter"),
        (not_in_libvirt, "host.account", "nova is not in libvirt"),
    ],
)
def test_what_is_broken_is_found_with_a_remedy(tmp_path: Path, break_it: Callable[[Machine], None], id_: str, fact: str) -> None:
    machine = ready()
    break_it(machine)
    finding = examined(tmp_path, machine)[id_]
    assert finding.failed
    assert finding.remedy
    assert any(fact in said for said in finding.facts)


def test_one_broken_thing_is_one_finding(tmp_path: Path) -> None:
    machine = ready()
    not_in_libvirt(machine)
    assert failed(examined(tmp_path, machine)) == ["host.account"]


def test_an_alias_that_nova_can_never_match_is_found(tmp_path: Path) -> None:
    machine = a40()
    machine.devices[0].driver = "vfio-pci"
    spec = '{"vendor_id": "10de", "product_id": "2235"}'
    machine.files["etc/nova/nova.conf"] = (
        f'[pci]\ndevice_spec = {spec}\nalias = {{"name": "a40", {spec[1:]}\nreport_in_placement=1\n'
    )
    finding = examined(tmp_path, machine)["host.alias"]
    assert finding.verdict is Verdict.WRONG
    assert "type-PF" in finding.remedy


def test_a_card_that_lends_vgpus_stays_with_its_driver(tmp_path: Path) -> None:
    machine = Machine([Device("0000:81:00.0", A40, 44, "nvidia", {"sriov_totalvfs": "32", "sriov_numvfs": "16"})])
    findings = examined(tmp_path, machine)
    assert findings["host.binding"].verdict is Verdict.OK
    assert findings["host.blacklist"].verdict is Verdict.OK


def test_one_of_two_models_left_to_the_host_is_named(tmp_path: Path) -> None:
    machine = two_models_on_amd()
    machine.groups = 80
    machine.devices[0].driver = machine.devices[1].driver = "vfio-pci"
    finding = examined(tmp_path, machine)["host.binding"]
    assert [said for said in finding.facts if "nouveau" in said] == ["0000:81:00.0 Tesla T4: driver nouveau"]


def test_an_audio_id_that_is_forgotten_is_a_warning(tmp_path: Path) -> None:
    machine = ready()
    machine.files["etc/modprobe.d/vfio.conf"] = VFIO.replace(",10de:22ba", "")
    finding = examined(tmp_path, machine)["host.blacklist"]
    assert finding.verdict is Verdict.WARNING
    assert finding.facts == ("not in its ids: 10de:22ba",)


def test_a_device_spec_by_address_names_its_card_only(tmp_path: Path) -> None:
    machine = Machine(
        [
            Device("0000:3b:00.0", ADA, 30, "vfio-pci"),
            Device("0000:3b:00.1", ADA_AUDIO, 30, "vfio-pci"),
            Device("0000:5e:00.0", ADA, 31, "vfio-pci"),
        ],
        files={"etc/nova/nova.conf": '[pci]\ndevice_spec = {"address": "3b:00.0", "resource_class": "CUSTOM_GPU"}\n'},
    )
    assert examined(tmp_path, machine)["host.device-spec"].facts == (
        "0000:5e:00.0 RTX 6000 Ada Generation: no device_spec names it",
    )


def test_a_later_file_replaces_a_key_as_oslo_does(tmp_path: Path) -> None:
    machine = ready()
    machine.files["etc/nova/nova.conf.d/90-pci.conf"] = "[pci]\nreport_in_placement = false\n"
    assert examined(tmp_path, machine)["host.placement"].verdict is Verdict.WRONG


def test_ids_are_unique() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS)
