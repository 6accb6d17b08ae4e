"""Limits on fake trees of cgroup v1, v2 and the mix; the one of the running machine is tested with real containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from beamdesk.adapters.local.helper import bpf
from beamdesk.adapters.local.helper.cgroup import Cgroups, GroupLimits, Hierarchy, detect
from beamdesk.adapters.local.helper.devices import STANDARD, DeviceRule

LIMITS = GroupLimits(vcpus=2, memory_bytes=512 << 20, pids=100, devices=STANDARD)

V1_MOUNTS = """\
30 24 0:26 / /cg ro,nosuid - tmpfs tmpfs rw
31 30 0:27 / /cg/systemd rw - cgroup cgroup rw,xattr,name=systemd
32 30 0:28 / /cg/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /cg/memory rw - cgroup cgroup rw,memory
34 30 0:30 /outer /cg/pids rw - cgroup cgroup rw,pids
35 30 0:31 / /cg/unified rw - cgroup2 cgroup2 rw
36 24 0:32 / /elsewhere/memory rw - cgroup cgroup rw,memory
"""
V1_OWN = """\
9:pids:/outer/inner
4:memory:/service
3:cpu,cpuacct:/
1:name=systemd:/
0::/
"""


def test_v1_trees_are_found_below_the_own_group() -> None:
    found = {item.base: item for item in detect(V1_MOUNTS, V1_OWN, read_controllers=False)}
    assert set(found) == {
        Path("/cg/systemd"),
        Path("/cg/cpu,cpuacct"),
        Path("/cg/memory/service"),
        Path("/cg/pids/inner"),
        Path("/cg/unified"),
    }
    assert found[Path("/cg/cpu,cpuacct")].controllers == {"cpu", "cpuacct"}
    assert found[Path("/cg/unified")].version == 2


def test_v2_alone_is_found() -> None:
    (only,) = detect("25 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n", "0::/user.slice\n", read_controllers=False)
    assert (only.version, only.base) == (2, Path("/sys/fs/cgroup"))


def test_a_hidden_v2_mount_offers_nothing(tmp_path: Path) -> None:
    (only,) = detect(f"25 24 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw\n", "0::/\n")
    assert only.controllers == frozenset()


class Tree:
    """A folder that looks like cgroup files: every group made in it gets the kernel's files."""

    def __init__(self, base: Path, version: int, controllers: frozenset[str], files: tuple[str, ...]) -> None:
        self.base = base
        self.hierarchy = Hierarchy(version, base, controllers)
        for folder in (base, base / "beamdesk-t", base / "beamdesk-t/desk"):
            folder.mkdir()
            for name in files:
                (folder / name).touch()

    def read(self, name: str) -> str:
        return (self.base / "beamdesk-t/desk" / name).read_text()


V2_FILES = (
    "cgroup.procs",
    "cgroup.kill",
    "cgroup.subtree_control",
    "cgroup.max.descendants",
    "cpu.weight",
    "cpu.max",
    "memory.max",
    "memory.swap.max",
    "memory.events",
    "pids.max",
)


@pytest.fixture
def v2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Tree, Cgroups, list[tuple[Path, object]]]:
    tree = Tree(tmp_path / "cg", 2, frozenset({"cpu", "memory", "pids"}), V2_FILES)
    attached: list[tuple[Path, object]] = []
    monkeypatch.setattr(bpf, "attach", lambda group, rules: attached.append((group, rules)))
    return tree, Cgroups((tree.hierarchy,), "t"), attached


def test_v2_limits_everything_and_filters_devices(v2: tuple[Tree, Cgroups, list[tuple[Path, object]]]) -> None:
    tree, cgroups, attached = v2
    cgroups.create("desk", LIMITS)
    assert tree.read("cpu.max") == "200000 100000"
    assert tree.read("memory.max") == str(512 << 20)
    assert tree.read("memory.swap.max") == "0"
    assert tree.read("pids.max") == "100"
    assert tree.read("cgroup.max.descendants") == "64"
    assert attached == [(tree.base / "beamdesk-t/desk", STANDARD)]
    assert "+pids" in (tree.base / "cgroup.subtree_control").read_text()


def test_v2_kills_by_the_kernels_own_switch(v2: tuple[Tree, Cgroups, object]) -> None:
    tree, cgroups, _attached = v2
    cgroups.kill("desk")
    assert tree.read("cgroup.kill") == "1"


def test_v2_counts_kills_at_the_memory_limit(v2: tuple[Tree, Cgroups, object]) -> None:
    tree, cgroups, _attached = v2
    (tree.base / "beamdesk-t/desk/memory.events").write_text("low 0\noom 4\noom_kill 3\noom_group_kill 0\n")
    assert cgroups.out_of_memory_kills("desk") == 3


@pytest.fixture
def v1(tmp_path: Path) -> tuple[dict[str, Tree], Cgroups]:
    files = {
        "cpu": ("cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"),
        "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.swappiness", "memory.oom_control"),
        "pids": ("pids.max",),
        "devices": ("devices.deny", "devices.allow"),
        "freezer": ("freezer.state",),
        "name=systemd": (),
    }
    trees = {name: Tree(tmp_path / name, 1, frozenset({name}), ("cgroup.procs", *names)) for name, names in files.items()}
    return trees, Cgroups(tuple(tree.hierarchy for tree in trees.values()), "t")


def test_v1_limits_everything_and_denies_devices(v1: tuple[dict[str, Tree], Cgroups]) -> None:
    trees, cgroups = v1
    cgroups.create("desk", LIMITS)
    assert trees["cpu"].read("cpu.cfs_quota_us") == "200000"
    assert trees["memory"].read("memory.limit_in_bytes") == str(512 << 20)
    assert trees["memory"].read("memory.memsw.limit_in_bytes").endswith(str(512 << 20)[1:])
    assert trees["pids"].read("pids.max") == "100"
    assert trees["devices"].read("devices.deny") == "a"
    assert trees["devices"].read("devices.allow").startswith("c 136:* rwm")


def test_a_process_joins_every_tree(v1: tuple[dict[str, Tree], Cgroups]) -> None:
    trees, cgroups = v1
    cgroups.join("desk")
    assert {tree.read("cgroup.procs") for tree in trees.values()} == {"0"}


def test_v1_counts_kills_at_the_memory_limit(v1: tuple[dict[str, Tree], Cgroups]) -> None:
    trees, cgroups = v1
    (trees["memory"].base / "beamdesk-t/desk/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert cgroups.out_of_memory_kills("desk") == 2


def test_v1_freezes_before_and_thaws_after_killing(v1: tuple[dict[str, Tree], Cgroups]) -> None:
    trees, cgroups = v1
    cgroups.kill("desk")
    assert trees["freezer"].read("freezer.state") == "THAWED"


def test_a_missing_controller_is_named(v1: tuple[dict[str, Tree], Cgroups]) -> None:
    trees, cgroups = v1
    assert cgroups.missing() == ()
    assert Cgroups((trees["cpu"].hierarchy, trees["pids"].hierarchy), "t").missing() == ("cgroup controller memory",)


def test_without_a_limit_nothing_is_made(v1: tuple[dict[str, Tree], Cgroups]) -> None:
    trees, _cgroups = v1
    lacking = Cgroups(tuple(tree.hierarchy for name, tree in trees.items() if name != "devices"), "t")
    with pytest.raises(OSError, match="no cgroup tree can filter devices"):
        lacking.create("desk", LIMITS)


def test_groups_are_listed_and_removed(tmp_path: Path) -> None:
    base = tmp_path / "cg"
    (base / "beamdesk-t/desk/payload/deeper").mkdir(parents=True)
    cgroups = Cgroups((Hierarchy(2, base, frozenset({"pids"})),), "t")
    assert cgroups.names() == ("desk",)
    assert cgroups.remove("desk")
    assert cgroups.remove("desk")
    cgroups.remove_parent()
    assert list(base.iterdir()) == []


def test_device_rules_read_as_the_kernel_wants_them() -> None:
    assert str(DeviceRule("c", 195, 0, "rw")) == "c 195:0 rw"
    assert str(DeviceRule("c", 136, None)) == "c 136:* rwm"
