"""Devices: the filters of both cgroup versions on the running kernel, and GPU cards that belong to one desktop at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from beamdesk.adapters.local.driver import LocalCloud
from beamdesk.adapters.local.helper import bpf
from beamdesk.adapters.local.helper.cgroup import Cgroups, GroupLimits
from beamdesk.adapters.local.helper.devices import STANDARD, DeviceRule
from beamdesk.domain.errors import CloudError
from beamdesk.domain.ids import ServerId
from beamdesk.scheduling.claims import Claim, Grant, claim
from beamdesk.scheduling.decide import decide
from beamdesk.scheduling.policy import make
from beamdesk.scheduling.request import CardDemand, Request
from beamdesk.scheduling.state import HostTable
from integration.local.conftest import start_desktop
from integration.local.helper_world import CHEN, IMAGE, HelperWorld, open_world
from standin_cards import TWO_CARDS

pytestmark = pytest.mark.root

KVM_LIKE = "/dev/fuse"


def opens(path: str, group: list[Path]) -> str:
    """Join ``group`` in a child and tell whether ``path`` can be opened there."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        for folder in group:
            (folder / "cgroup.procs").write_text("0")
        try:
            os.close(os.open(path, os.O_RDWR))
            os.write(write_end, b"opened")
        except PermissionError:
            os.write(write_end, b"refused")
        os._exit(0)
    os.close(write_end)
    said = os.read(read_end, 100).decode()
    os.close(read_end)
    os.waitpid(child, 0)
    return said


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    found = Cgroups.of_this_machine(f"test-{os.getpid()}")
    yield found
    for name in found.names():
        assert found.remove(name)
    found.remove_parent()


def folders(name: str) -> list[Path]:
    return [Path(folder) for folder, _names, _files in os.walk("/sys/fs/cgroup") if folder.endswith(f"-{os.getpid()}/{name}")]


def test_the_machines_own_filter_lets_only_listed_devices_through(cgroups: Cgroups) -> None:
    rules = GroupLimits(1, 256 << 20, 16, STANDARD)
    cgroups.create("plain", rules)
    assert opens("/dev/null", folders("plain")) == "opened"
    assert opens(KVM_LIKE, folders("plain")) == "refused"
    info = Path(KVM_LIKE).stat().st_rdev
    granted = DeviceRule("c", os.major(info), os.minor(info), "rw")
    cgroups.create("granted", GroupLimits(1, 256 << 20, 16, (*STANDARD, granted)))
    assert opens(KVM_LIKE, folders("granted")) == "opened"


def test_the_bpf_filter_lets_only_listed_devices_through(cgroups: Cgroups) -> None:
    unified = next((item for item in cgroups.hierarchies if item.version == 2), None)
    if unified is None:
        pytest.fail("this test needs a mounted cgroup2 file system")
    group = unified.base / f"beamdesk-test-{os.getpid()}" / "bpf"
    group.mkdir(parents=True)
    bpf.attach(group, STANDARD)
    assert opens("/dev/null", [group]) == "opened"
    assert opens(KVM_LIKE, [group]) == "refused"


@pytest.fixture
def gpu_world() -> Iterator[HelperWorld]:
    """A helper that sees two cards."""
    with open_world(prefix=TWO_CARDS) as world:
        yield world


def test_the_card_that_the_scheduler_chose_is_the_one_in_the_desktop(gpu_world: HelperWorld) -> None:
    cloud = LocalCloud(gpu_world.client, "tests")
    (host,) = asyncio.run(cloud.hosts())
    assert [card.address for card in host.cards] == ["nvidia0", "nvidia1"]
    table = HostTable([host])
    claim(table, Claim("another", host.name, 0, 0, grants=(Grant("nvidia0"),)))
    decision = decide(table, make("beamdesk", table), Request("mine", 1000, 512, cards=CardDemand(1, container=True)))
    desktop = start_desktop(gpu_world, gpus=1, cards=tuple(grant.address for grant in decision.grants))
    assert gpu_world.run(desktop, "sh", "-c", "ls /dev | grep nvidia").out.split() == ["nvidia1", "nvidiactl"]
    with pytest.raises(CloudError, match="No GPU card is free"):
        start_desktop(gpu_world, gpus=1, cards=("nvidia1",))


def test_parts_of_a_card_are_for_those_who_asked_for_parts(gpu_world: HelperWorld) -> None:
    first = start_desktop(gpu_world, gpus=1, cards=("nvidia0",), shared=True)
    second = start_desktop(gpu_world, gpus=1, cards=("nvidia0",), shared=True)
    for desktop in (first, second):
        assert gpu_world.run(desktop, "sh", "-c", "ls /dev | grep nvidia").out.split() == ["nvidia0", "nvidiactl"]
    with pytest.raises(CloudError, match="No GPU card is free"):
        start_desktop(gpu_world, gpus=1, cards=("nvidia0",))
    whole = start_desktop(gpu_world, gpus=1, cards=("nvidia1",))
    assert gpu_world.run(whole, "sh", "-c", "ls /dev | grep nvidia").out.split() == ["nvidia1", "nvidiactl"]
    with pytest.raises(CloudError, match="No GPU card is free"):
        start_desktop(gpu_world, gpus=1, cards=("nvidia1",), shared=True)


def test_the_images_that_lie_here_are_told(gpu_world: HelperWorld) -> None:
    (gpu_world.folder / "images" / f"{'ab' * 16}.json").write_text('{"layers": ["/nowhere"]}')
    (host,) = asyncio.run(LocalCloud(gpu_world.client, "tests").hosts())
    assert host.images == frozenset({IMAGE})


def test_a_card_is_given_to_one_desktop_at_a_time(gpu_world: HelperWorld) -> None:
    cloud = LocalCloud(gpu_world.client, "tests")
    capacity = asyncio.run(cloud.capacity())
    assert capacity
    assert capacity.gpus == 2
    first = start_desktop(gpu_world, gpus=1)
    second = start_desktop(gpu_world, gpus=1)
    without = start_desktop(gpu_world, CHEN, "exp-b")
    list_cards = ("sh", "-c", "ls /dev | grep nvidia")
    assert gpu_world.run(first, *list_cards).out.split() == ["nvidia0", "nvidiactl"]
    assert gpu_world.run(second, *list_cards).out.split() == ["nvidia1", "nvidiactl"]
    assert gpu_world.run(without, *list_cards).out == ""
    use = "import os; os.open('/dev/nvidia0', os.O_RDWR); os.open('/dev/nvidiactl', os.O_WRONLY); print('used')"
    code = gpu_world.run(first, "/usr/bin/python3", "-c", use, person=True)
    assert code.out == "used\n"
    with pytest.raises(CloudError, match="No GPU card is free"):
        start_desktop(gpu_world, gpus=1)
    asyncio.run(cloud.stop_server(ServerId(first)))
    third = start_desktop(gpu_world, gpus=1)
    assert gpu_world.run(third, *list_cards).out.split() == ["nvidia0", "nvidiactl"]
