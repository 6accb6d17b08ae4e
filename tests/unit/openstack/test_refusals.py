"""Elimination of hosts: the first thing that each lacks, in words, with counts; and what a flavor asks for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from beamdesk.adapters.openstack.config import PciAlias
from beamdesk.adapters.openstack.refusals import ComputeHost, Device, Lack, Refusals, Wanted, eliminate, fewer, less
from beamdesk.adapters.openstack.why_ask import read_wanted
from beamdesk.domain.server import Remedy

HOSTS = tuple(
    ComputeHost(f"u{number}", f"host-{number}", hypervisor="QEMU", arch="x86_64", vcpus=64, memory_mib=1 << 19, disk_gib=2000)
    for number in range(5)
)
SMALL = Wanted(4, 8192, 20)
CPU, MEMORY, A100 = fewer(4, "vCPUs"), less("8 GiB of memory"), fewer(1, "a100")
ALL = frozenset(host.uuid for host in HOSTS)
CARD = Device("a100", 1, "CUSTOM_GPU", ("CUSTOM_GPU_MODEL_A100",))


def refuse(*hosts: ComputeHost, wanted: Wanted = SMALL, rooms: list[tuple[Lack, frozenset[str]]] | None = None) -> Refusals:
    return eliminate(hosts or HOSTS, wanted, rooms or [(CPU, ALL)], {})


def test_every_host_counts_for_the_first_thing_that_it_lacks() -> None:
    hosts = (replace(HOSTS[0], up=False), replace(HOSTS[1], enabled=False), *HOSTS[2:])
    told = eliminate(
        hosts,
        replace(SMALL, devices=(CARD,)),
        [(CPU, frozenset({"u0", "u1", "u4"})), (A100, frozenset({"u0"}))],
        {"a100": {"u4": 1}},
    )
    assert told.words() == "Of 5 hosts 1 does not answer, 1 is disabled, 2 have fewer than 4 vCPUs free and 1 has no free a100."
    assert told.why["host-2"] == "has fewer than 4 vCPUs free"
    assert told.remedy is Remedy.WAIT, "the host with the card could take it when others go"


def test_one_cause_for_all_is_one_sentence() -> None:
    assert refuse(rooms=[(CPU, ALL), (MEMORY, frozenset())]).words() == "All 5 hosts have less than 8 GiB of memory free."
    assert refuse(HOSTS[0], rooms=[(CPU, frozenset())]).words() == "The only host has fewer than 4 vCPUs free."


def test_what_no_host_could_ever_take_is_told_as_such() -> None:
    huge = refuse(wanted=replace(SMALL, vcpus=65), rooms=[(fewer(65, "vCPUs"), frozenset())])
    assert (huge.remedy, huge.words()) == (
        Remedy.PERSON,
        "All 5 hosts have fewer than 65 vCPUs free. None is large enough, even when it is empty.",
    )
    carded = replace(SMALL, devices=(CARD,))
    assert eliminate(HOSTS, carded, [(A100, frozenset())], {"a100": {}}).remedy is Remedy.PERSON
    assert eliminate(HOSTS, carded, [(A100, frozenset())], {"a100": {"u1": 4}}).remedy is Remedy.WAIT


def test_hosts_that_lack_nothing_known_were_refused_by_a_filter() -> None:
    told = refuse(rooms=[(CPU, frozenset({"u3", "u4"}))])
    assert told.words() == (
        "Of 5 hosts 3 have fewer than 4 vCPUs free. "
        "2 hosts have room and refused it by a rule that OpenStack tells nobody but its scheduler's log."
    )
    assert (told.left, told.remedy) == (("host-3", "host-4"), Remedy.AGAIN)


def test_cards_behind_an_alias_that_nobody_explained_are_not_guessed() -> None:
    told = refuse(wanted=replace(SMALL, devices=(Device("a100", 1),)))
    assert told.words() == "5 hosts have room, but perhaps no free a100, which OpenStack does not tell."


@pytest.mark.parametrize(
    ("wanted", "host", "words"),
    [
        (replace(SMALL, zone="gpu"), HOSTS[0], "is in another availability zone"),
        (replace(SMALL, specs={"aggregate_instance_extra_specs:gpu": "true"}), HOSTS[0], "is not set aside for this size"),
        (replace(SMALL, specs={"beamdesk:aggregates": "B7|B8"}), HOSTS[0], "is not set aside for this size"),
        (replace(SMALL, arch="aarch64"), HOSTS[0], "cannot run the image's kind of machine"),
        (replace(SMALL, hypervisor="hyperv"), HOSTS[0], "cannot run the image's kind of machine"),
    ],
)
def test_rules_keep_hosts_out_whatever_is_free(wanted: Wanted, host: ComputeHost, words: str) -> None:
    assert refuse(host, wanted=wanted).why == {host.name: words}


def test_rules_that_are_met_or_that_we_cannot_read_keep_nobody_out() -> None:
    host = replace(HOSTS[0], zone="gpu", groups=frozenset({"B7"}), properties={"ssd": frozenset({"yes", "fast"})})
    for wanted in (
        replace(SMALL, zone="gpu", arch="X86_64", hypervisor="kvm"),
        replace(SMALL, specs={"beamdesk:aggregates": "B7|B8", "aggregate_instance_extra_specs:ssd": "<or> no <or> fast"}),
        replace(SMALL, specs={"aggregate_instance_extra_specs:cores": ">= 4", "hw:cpu_policy": "shared"}),
    ):
        assert refuse(host, wanted=wanted).left == ("host-0",)


def test_a_cloud_without_hosts_says_so() -> None:
    assert eliminate((), SMALL, [], {}).words() == "The cloud has no hosts."


def test_a_flavor_is_read_as_nova_asks_placement() -> None:
    specs = {
        "pci_passthrough:alias": "a100:2, nic:1",
        "resources:VGPU": "1",
        "trait:HW_CPU_X86_AVX2": "required",
        "trait:CUSTOM_SLOW": "forbidden",
        "resources1:CUSTOM_GPU": "1",
        "trait1:CUSTOM_GPU_MODEL_A100": "required",
        "hw:cpu_policy": "dedicated",
    }
    image = {"hw_architecture": "x86_64", "img_hv_type": "kvm"}
    aliases = {"a100": PciAlias("CUSTOM_GPU", ("CUSTOM_GPU_MODEL_A100",))}
    wanted = read_wanted((4, 8192, 20), specs, image, aliases, "gpu", local_disk=True)
    assert (wanted.vcpus, wanted.pinned, wanted.disk_gib, wanted.others) == (4, True, 20, (("VGPU", 1),))
    assert wanted.traits == ("!CUSTOM_SLOW", "HW_CPU_X86_AVX2")
    assert dict(wanted.grouped) == {"resources1": "CUSTOM_GPU:1", "required1": "CUSTOM_GPU_MODEL_A100"}
    assert wanted.devices == (Device("a100", 2, "CUSTOM_GPU", ("CUSTOM_GPU_MODEL_A100",)), Device("nic", 1))
    assert (wanted.zone, wanted.arch, wanted.hypervisor) == ("gpu", "x86_64", "kvm")


def test_overrides_of_plain_resources_and_disks_elsewhere_count() -> None:
    wanted = read_wanted((4, 8192, 20), {"resources:VCPU": "0", "resources:MEMORY_MB": "1"}, {}, {}, "", local_disk=False)
    assert (wanted.vcpus, wanted.memory_mib, wanted.disk_gib) == (0, 1, 0)
