"""What this machine offers, and whether its kernel can isolate desktops: tried out for real, not guessed from versions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from beamdesk.adapters.local.helper import children, devices, idmap, layers, nspawn, syscalls
from beamdesk.adapters.local.helper.cgroup import Cgroups, GroupLimits
from beamdesk.adapters.local.helper.config import Config
from beamdesk.protocol.helper import HostFacts

_PROGRAMS = (nspawn.PROGRAM, "mkfs.ext4", "e2fsck", "resize2fs")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_NSPAWN_VERSION = 249
"""The first with --private-users-ownership; without seccomp it would silently load no filter."""
CPU_OVERCOMMIT = 4
"""vCPUs offered for each CPU of the machine unless configured: desktops wait for their user most of the time."""
_PROBE = "probe"


def facts(config: Config, missing: tuple[str, ...]) -> HostFacts:
    """Return the totals that desktops may use; what the configuration leaves open comes from the machine."""
    cards = devices.discover()
    return HostFacts(
        vcpus=config.vcpus or (os.cpu_count() or 1) * CPU_OVERCOMMIT,
        memory_mib=config.memory_mib or _memory_mib(),
        disk_gib=config.disk_gib or _disk_gib(config.homes_dir),
        gpus=tuple(card.name for card in cards),
        missing=missing,
        images=layers.installed(config.images_index_dir),
        cards=devices.described(cards),
    )


def _memory_mib() -> int:
    """All memory but a tenth, at least 1 GiB, for the host itself."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    return max(total - max(total // 10, 1024), 0)


def _disk_gib(homes: Path) -> int:
    """What is free and what homes occupy already, but a tenth: images are sparse, a full disk would hurt everybody."""
    status = os.statvfs(homes)
    occupied = sum(path.stat().st_blocks * 512 for path in homes.glob("*.img"))
    return int((status.f_bavail * status.f_frsize + occupied) * 0.9) // 2**30


async def find_missing(config: Config, cgroups: Cgroups) -> tuple[str, ...]:
    """Try everything that isolation needs and name what does not work on this machine; empty means all is there."""
    missing = _look(cgroups)
    if not await _works(lambda: os.close(_mapping(config))):
        missing.append("user namespaces")
        return tuple(missing)
    for folder in dict.fromkeys((config.images_index_dir, config.homes_dir, config.data_root, config.guest_api_dir)):
        if not folder.is_dir():
            missing.append(f"folder {folder}")
        elif not await _works(lambda folder=folder: _try_idmapped(config, folder)):  # type: ignore[misc]
            missing.append(f"idmapped mounts on {folder}")
    if not await _works(lambda: _try_overlay(config)):
        missing.append("overlayfs with idmapped layers")
    return tuple(missing)


def _nspawn_is_able() -> bool:
    done = subprocess.run((nspawn.PROGRAM, "--version"), capture_output=True, text=True, check=False, timeout=10)
    version = re.match(r"systemd (\d+)", done.stdout)
    return version is not None and int(version.group(1)) >= _NSPAWN_VERSION and "+SECCOMP" in done.stdout.split()


def _look(cgroups: Cgroups) -> list[str]:
    missing = [f"program {name}" for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
    if nspawn.PROGRAM not in " ".join(missing) and not _nspawn_is_able():
        missing.append(f"systemd-nspawn {_NSPAWN_VERSION} or later with seccomp")
    missing += cgroups.missing() or _try_limits(cgroups)
    if not Path("/dev/loop-control").exists():
        missing.append("loop devices (/dev/loop-control)")
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        missing.append("the initial user namespace (this is already a container)")
    return missing


async def _works(attempt: Callable[[], None]) -> bool:
    def quietly() -> None:
        try:
            attempt()
        except OSError:
            os._exit(1)

    return await children.wait(children.fork(quietly)) == 0


def _try_limits(cgroups: Cgroups) -> tuple[str, ...]:
    try:
        cgroups.create(_PROBE, GroupLimits(1, 128 * 2**20, 16, devices.STANDARD))
    except OSError as error:
        return (f"cgroup limits or device filter ({error.filename}: {error.strerror})",)
    finally:
        cgroups.remove(_PROBE)
    return ()


def _mapping(config: Config) -> int:
    lines = idmap.whole_lines(config.container_ids.first)
    return idmap.open_mapping(lines, lines)


def _private(config: Config) -> tuple[Path, int]:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("beamdesk", str(config.stage_dir), "tmpfs", 0, "mode=0700,size=1m")
    return config.stage_dir, _mapping(config)


def _idmapped(source: Path, place: Path, mapping: int) -> None:
    place.mkdir()
    tree = syscalls.open_tree(-100, str(source))
    syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_IDMAP | syscalls.MOUNT_ATTR_RDONLY, mapping)
    syscalls.move_mount(tree, str(place))


def _try_idmapped(config: Config, folder: Path) -> None:
    stage, mapping = _private(config)
    _idmapped(folder, stage / "lower", mapping)


def _try_overlay(config: Config) -> None:
    stage, mapping = _private(config)
    _idmapped(config.images_index_dir, stage / "lower", mapping)
    for name in ("upper", "work", "root"):
        (stage / name).mkdir()
    os.chdir(stage)
    syscalls.mount("overlay", "root", "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work")
