"""A container's mounts, prepared in a private mount namespace: nothing here ever shows on the host.

The root is an overlay of the image's layers, each idmapped into the container's uid range, under a small file system in memory.
Home and data are idmapped copies of their mounts, so that uid 20001 on disk is uid 20001 inside; on data nobody else's uid is.
Runs in the set-up child only, as root, and is undone by the kernel when the namespace's last process dies.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from beamdesk.adapters.local.helper import homes, idmap, syscalls
from beamdesk.adapters.local.helper.config import Config
from beamdesk.adapters.local.helper.errors import HelperError
from beamdesk.adapters.local.helper.plan import Plan
from beamdesk.protocol.helper import DataMount

AGENT_DIR = "/run/beamdesk/agent"
API_DIR = "/run/beamdesk/api"
STREAM_DIR = "/run/beamdesk/stream"
_ENROL_URL = f"http+unix://{API_DIR}/guest.sock"
_PLAIN = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
_READ_ONLY = _PLAIN | syscalls.MOUNT_ATTR_RDONLY
_RESOLVE = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
_HOST_FILES = ("/etc/os-release", "/usr/lib/os-release")
"""systemd-nspawn shows the host's own to every container; ours says nothing."""


@dataclass(frozen=True, slots=True)
class Bind:
    """A prepared mount or device node and where it goes in the container."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(slots=True)
class Stage:
    """The prepared root file system and what is bound into it."""

    folder: Path
    binds: list[Bind] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """The overlay."""
        return self.folder / "root"

    def attach(self, tree_fd: int, target: str, attributes: int, mapping_fd: int) -> None:
        """Add a detached mount with ``attributes``; it is idmapped by ``mapping_fd`` and consumed."""
        place = self.folder / f"bind{len(self.binds)}"
        place.mkdir()
        _attach(tree_fd, place, attributes, mapping_fd)
        self.binds.append(Bind(place, target, bool(attributes & syscalls.MOUNT_ATTR_RDONLY)))


def build(config: Config, plan: Plan) -> Stage:
    """Leave the host's mount namespace and prepare everything ``plan`` names.

    Raises:
        HelperError: data or home cannot be used, with the cause.
        OSError: the kernel refuses a mount; nothing may be started then.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
    mapping = idmap.open_mapping(idmap.whole_lines(plan.base), idmap.whole_lines(plan.base))
    shared = idmap.open_mapping(
        idmap.person_lines(plan.base, plan.quarantine, {plan.account.uid}),
        idmap.person_lines(plan.base, plan.quarantine, {plan.account.gid, *plan.account.gids}),
    )
    stage = Stage(config.stage_dir)
    flags = syscalls.MS_NOSUID | syscalls.MS_NOEXEC
    syscalls.mount("beamdesk", str(stage.folder), "tmpfs", flags, "mode=0700,size=1m,nr_inodes=1024")
    _hide_host(stage)
    _root(stage, plan, mapping, config.scratch_percent)
    for mount in plan.data:
        _data(stage, config, mount, shared)
    _home(stage, plan, mapping)  # after the data: a refused start makes no home
    _beamdesk(stage, config, plan, mapping)
    _devices(stage, plan)
    os.close(mapping)
    os.close(shared)
    return stage


def _attach(tree_fd: int, place: Path, attributes: int, mapping_fd: int | None) -> None:
    try:
        if mapping_fd is None:
            syscalls.mount_setattr(tree_fd, attributes)
        else:
            syscalls.mount_setattr(tree_fd, attributes | syscalls.MOUNT_ATTR_IDMAP, mapping_fd)
        syscalls.move_mount(tree_fd, str(place))
    finally:
        os.close(tree_fd)


def _hide_host(stage: Stage) -> None:
    """Give systemd-nspawn working folders of its own, and nothing of the host to show."""
    work = Path("/run/systemd/nspawn")
    work.mkdir(parents=True, exist_ok=True)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("beamdesk", str(work), "tmpfs", flags, "mode=0755,size=1m,nr_inodes=256")
    release = stage.folder / "os-release"
    release.write_text("ID=beamdesk\nNAME=Beamdesk\n")
    release.chmod(0o644)
    for path in _HOST_FILES:
        if Path(path).exists():
            syscalls.mount(str(release), path, "", syscalls.MS_BIND)


def _root(stage: Stage, plan: Plan, mapping: int, scratch_percent: int) -> None:
    names = []
    for number, layer in enumerate(plan.layers):
        place = stage.folder / f"l{number}"
        place.mkdir()
        _attach(syscalls.open_tree(-100, str(layer)), place, _READ_ONLY, mapping)
        names.append(place.name)
    scratch = stage.folder / "scratch"
    scratch.mkdir()
    size_kib = plan.memory_mib * 1024 * scratch_percent // 100
    options = f"mode=0700,size={size_kib}k,nr_inodes={max(size_kib // 8, 16384)}"
    syscalls.mount("beamdesk", str(scratch), "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)
    for name in ("upper", "work"):
        (scratch / name).mkdir(mode=0o755)
    (scratch / "upper").chmod(0o755)
    os.chown(scratch / "upper", plan.base, plan.base)
    # In the empty upper layer no link of an image can lead elsewhere.
    for path in ("data", *(f"data/{mount.experiment}" for mount in plan.data)):
        parent = scratch / "upper" / path
        if not parent.exists():
            parent.mkdir()
            parent.chmod(0o755)
            os.chown(parent, plan.base, plan.base)
    stage.root.mkdir()
    os.chdir(stage.folder)  # short relative names: the option string has a page at most
    options = f"lowerdir={':'.join(names)},upperdir=scratch/upper,workdir=scratch/work"
    syscalls.mount("overlay", "root", "overlay", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)
    os.chdir("/")


def _home(stage: Stage, plan: Plan, mapping: int) -> None:
    homes.prepare(plan.home_image, plan.disk_gib)
    volume = stage.folder / "volume"
    volume.mkdir()
    home = homes.mount(plan.home_image, volume, plan.account.uid, plan.account.gid)
    stage.attach(syscalls.open_tree(-100, str(home)), f"/home/{plan.account.login}", _PLAIN, mapping)


def _data(stage: Stage, config: Config, mount: DataMount, mapping: int) -> None:
    root = os.open(config.data_root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        folder = syscalls.openat2(root, f"{mount.experiment}/{mount.area}", os.O_PATH | os.O_DIRECTORY, _RESOLVE)
    except OSError as error:
        raise HelperError("unknown_data", f"The data folder {mount.experiment}/{mount.area} is not there.") from error
    finally:
        os.close(root)
    try:
        tree = syscalls.open_tree(folder, "")
    finally:
        os.close(folder)
    attributes = _PLAIN if mount.writable else _READ_ONLY
    stage.attach(tree, f"/data/{mount.experiment}/{mount.area}", attributes, mapping)


def _beamdesk(stage: Stage, config: Config, plan: Plan, mapping: int) -> None:
    """Prepare /run/beamdesk as one small folder of the container's root, with the other mounts in it."""
    folder = stage.folder / "beamdesk"
    closed = _PLAIN | syscalls.MOUNT_ATTR_NOEXEC
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    folder.mkdir()
    syscalls.mount("beamdesk", str(folder), "tmpfs", flags, f"mode=0755,size=1m,nr_inodes=256,uid={plan.base},gid={plan.base}")
    agent, stream, api = (folder / Path(path).name for path in (AGENT_DIR, STREAM_DIR, API_DIR))
    for place, mode in ((agent, 0o700), (stream, 0o755), (api, 0o755)):
        place.mkdir()
        place.chmod(mode)
        os.chown(place, plan.base, plan.base)
    configuration = json.dumps({"enrol_url": _ENROL_URL, "desktop_id": plan.desktop_id})
    for name, content in (("nonce", plan.nonce), ("config.json", configuration)):
        fd = os.open(agent / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:  # noqa: PTH123 - a descriptor
            file.write(content)
            os.fchown(fd, plan.base, plan.base)
    _attach(syscalls.open_tree(-100, str(plan.stream_dir)), stream, closed, None)
    _attach(syscalls.open_tree(-100, str(config.guest_api_dir)), api, closed | syscalls.MOUNT_ATTR_RDONLY, mapping)
    stage.binds.append(Bind(folder, str(Path(AGENT_DIR).parent)))


def _devices(stage: Stage, plan: Plan, make: Callable[[Path, int, int], None] | None = None) -> None:
    """Make our own nodes of the granted cards: the host's keep their owners, and only these are bound."""
    folder = stage.folder / "dev"
    for number, node in enumerate(plan.gpu_nodes):
        folder.mkdir(exist_ok=True)
        place = folder / str(number)
        (make or _make_node)(place, os.makedev(node.major, node.minor), plan.base)
        stage.binds.append(Bind(place, f"/dev/{node.path}"))


def _make_node(place: Path, device: int, owner: int) -> None:
    os.mknod(place, stat.S_IFCHR, device)
    place.chmod(0o666)
    os.chown(place, owner, owner)
