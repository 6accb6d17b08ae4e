"""Resource limits and device filters of containers, on cgroup v1, v2 and the mix of both.

One parent group a helper (``beamdesk-<tag>``) holds one group a desktop. Where a controller lives is looked up, not assumed. On v1
the parent is made below the helper's own group; on v2 at the top of the tree, as container runtimes do, because a group with
processes in it cannot have controlled children.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from beamdesk.adapters.local.helper import bpf
from beamdesk.adapters.local.helper.devices import DeviceRule

NEEDED = ("cpu", "memory", "pids")
_PERIOD_US = 100_000
_MAX_SUBGROUPS = 64
_V1_UNUSED = frozenset({"cpuset", "net_cls", "net_prio", "rdma", "misc", "hugetlb", "perf_event"})
"""v1 hierarchies that containers stay out of: nothing is limited there, and a new cpuset group refuses processes."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup tree; ``base`` is the folder below which the helper makes its parent group."""

    version: int
    base: Path
    controllers: frozenset[str]


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """Limits of one container."""

    vcpus: int
    memory_bytes: int
    pids: int
    devices: tuple[DeviceRule, ...]


def detect(mountinfo: str, own: str, read_controllers: bool = True) -> tuple[Hierarchy, ...]:
    """Find the hierarchies from the texts of /proc/self/mountinfo and /proc/self/cgroup; the first mount of each counts."""
    own_paths = {names: path for _id, names, path in (line.split(":", 2) for line in own.splitlines())}
    found: dict[tuple[int, frozenset[str]], Hierarchy] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _source, options = right.split(" ", 2)
        root, point = (part.replace("\\040", " ") for part in left.split(" ")[3:5])
        if kind == "cgroup2":
            controllers = _controllers(Path(point)) if read_controllers else frozenset()
            found.setdefault((2, frozenset()), Hierarchy(2, Path(point), controllers))
        elif kind == "cgroup":
            for names, path in own_paths.items():
                if names and set(names.split(",")) <= set(options.split(",")):
                    base = Path(point) / path.removeprefix(root).lstrip("/")
                    controllers = frozenset(names.split(","))
                    found.setdefault((1, controllers), Hierarchy(1, base, controllers))
    return tuple(found.values())


def _controllers(point: Path) -> frozenset[str]:
    """Return what a cgroup2 mount offers; nothing where another mount hides it."""
    try:
        return frozenset((point / "cgroup.controllers").read_text().split())
    except OSError:
        return frozenset()


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The groups of one helper."""

    hierarchies: tuple[Hierarchy, ...]
    tag: str

    @classmethod
    def of_this_machine(cls, tag: str) -> Cgroups:
        """Look at the running system."""
        mountinfo, own = (Path(f"/proc/self/{name}").read_text() for name in ("mountinfo", "cgroup"))
        return cls(detect(mountinfo, own), tag)

    def missing(self) -> tuple[str, ...]:
        """Name the controllers that isolation needs and nobody offers."""
        return tuple(f"cgroup controller {name}" for name in NEEDED if self._holder(name) is None)

    def create(self, name: str, limits: GroupLimits) -> None:
        """Make the groups of one container with all their limits; a group left from before is reused.

        Raises:
            OSError: a limit cannot be set; nothing may be started then.
        """
        for hierarchy in self._used():
            self._make_parent(hierarchy)
            group = self._group(hierarchy, name)
            group.mkdir(exist_ok=True)
            if hierarchy.version == 2:
                _write(group / "cgroup.max.descendants", _MAX_SUBGROUPS)
        for controller in NEEDED:
            holder = self._holder(controller)
            if holder is None:
                raise FileNotFoundError(2, "cgroup controller is missing", controller)
            group = self._group(holder, name)
            (_limit_v1 if holder.version == 1 else _limit_v2)(controller, group, limits)
        self._filter_devices(name, limits.devices)

    def join(self, name: str) -> None:
        """Move the calling process into the groups of one container."""
        for hierarchy in self._used():
            _write(self._group(hierarchy, name) / "cgroup.procs", 0)

    def processes(self, name: str) -> tuple[int, ...]:
        """List the processes of one container, with its supervisor."""
        holder = self._holder("pids")
        if holder is None:
            return ()
        found: list[int] = []
        for folder in _subtree(self._group(holder, name)):
            with contextlib.suppress(OSError):
                found += [int(line) for line in (folder / "cgroup.procs").read_text().split()]
        return tuple(pid for pid in found if pid > 0)

    def kill(self, name: str) -> None:
        """Kill every process of one container: by cgroup.kill on v2, else frozen first so that none can fork away."""
        holder = self._holder("pids")
        if holder is not None and holder.version == 2:
            with contextlib.suppress(OSError):
                _write(self._group(holder, name) / "cgroup.kill", 1)
                return
        freezer = self._holder("freezer")
        state = self._group(freezer, name) / "freezer.state" if freezer else None
        with contextlib.suppress(OSError):
            if state:
                _write(state, "FROZEN")
        for pid in self.processes(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            if state:
                _write(state, "THAWED")

    def remove(self, name: str) -> bool:
        """Remove the empty groups of one container; false while some process is still dying in one."""
        done = True
        for hierarchy in self._used():
            for folder in reversed(list(_subtree(self._group(hierarchy, name)))):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    continue
                except OSError:
                    done = False
        return done

    def names(self) -> tuple[str, ...]:
        """List the containers that have groups."""
        found = set()
        for hierarchy in self._used():
            parent = hierarchy.base / self._parent_name()
            if parent.is_dir():
                found |= {path.name for path in parent.iterdir() if path.is_dir()}
        return tuple(sorted(found))

    def remove_parent(self) -> None:
        """Remove the helper's own parent groups where they are empty."""
        for hierarchy in self._used():
            with contextlib.suppress(OSError):
                (hierarchy.base / self._parent_name()).rmdir()

    def out_of_memory_kills(self, name: str) -> int:
        """Count the processes of one container that the kernel killed at its memory limit."""
        holder = self._holder("memory")
        if holder is None:
            return 0
        file = "memory.oom_control" if holder.version == 1 else "memory.events"
        try:
            lines = (self._group(holder, name) / file).read_text().splitlines()
        except OSError:
            return 0
        return sum(int(value) for key, _, value in (line.partition(" ") for line in lines) if key == "oom_kill")

    def _parent_name(self) -> str:
        return f"beamdesk-{self.tag}"

    def _group(self, hierarchy: Hierarchy, name: str) -> Path:
        return hierarchy.base / self._parent_name() / name

    def _holder(self, controller: str) -> Hierarchy | None:
        return next((item for item in self.hierarchies if controller in item.controllers), None)

    def _used(self) -> Iterator[Hierarchy]:
        return (item for item in self.hierarchies if not item.controllers & _V1_UNUSED or item.version == 2)

    def _make_parent(self, hierarchy: Hierarchy) -> None:
        parent = hierarchy.base / self._parent_name()
        parent.mkdir(exist_ok=True)
        if hierarchy.version == 2:
            wanted = [name for name in NEEDED if name in hierarchy.controllers]
            for folder in (hierarchy.base, parent):
                enabled = (folder / "cgroup.subtree_control").read_text().split()
                for name in wanted:
                    if name not in enabled:
                        _write(folder / "cgroup.subtree_control", f"+{name}")

    def _filter_devices(self, name: str, rules: Sequence[DeviceRule]) -> None:
        holder = self._holder("devices")
        if holder is not None:
            group = self._group(holder, name)
            _write(group / "devices.deny", "a")
            for rule in rules:
                _write(group / "devices.allow", rule)
            return
        unified = next((item for item in self.hierarchies if item.version == 2), None)
        if unified is None:
            raise FileNotFoundError(2, "no cgroup tree can filter devices", "devices")
        bpf.attach(self._group(unified, name), rules)


def _limit_v1(controller: str, group: Path, limits: GroupLimits) -> None:
    if controller == "cpu":
        _write(group / "cpu.shares", 1024 * limits.vcpus)
        _write(group / "cpu.cfs_period_us", _PERIOD_US)
        _write(group / "cpu.cfs_quota_us", _PERIOD_US * limits.vcpus)
    elif controller == "memory":
        swap = group / "memory.memsw.limit_in_bytes"
        if swap.exists():  # a group reused with other limits: memory may never exceed memory and swap
            _write(swap, -1)
        _write(group / "memory.limit_in_bytes", limits.memory_bytes)
        if swap.exists():
            _write(swap, limits.memory_bytes)
        _write(group / "memory.swappiness", 0)
    else:
        _write(group / "pids.max", limits.pids)


def _limit_v2(controller: str, group: Path, limits: GroupLimits) -> None:
    if controller == "cpu":
        _write(group / "cpu.weight", min(100 * limits.vcpus, 10_000))
        _write(group / "cpu.max", f"{_PERIOD_US * limits.vcpus} {_PERIOD_US}")
    elif controller == "memory":
        _write(group / "memory.max", limits.memory_bytes)
        if (group / "memory.swap.max").exists():
            _write(group / "memory.swap.max", 0)
    else:
        _write(group / "pids.max", limits.pids)


def _write(path: Path, value: object) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)


def _subtree(group: Path) -> Iterator[Path]:
    """Yield ``group`` and every group below it, parents first."""
    if group.is_dir():
        yield group
        with contextlib.suppress(OSError):
            for child in sorted(group.iterdir()):
                if child.is_dir() and not child.is_symlink():
                    yield from _subtree(child)
