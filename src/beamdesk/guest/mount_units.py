"""Writes a mount as a systemd unit, so that the system keeps, orders and ends it like its own.

Pure text; whoever starts the units is :mod:`beamdesk.guest.storage`. Values come from the guest API over TLS and are checked all
the same: a unit is a program of sorts, and nothing but a mount may come of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from beamdesk.guest.errors import SetupError
from beamdesk.protocol.guest import Mount

TIMEOUT_S = 180
"""A busy storage server may take its time; people wait no longer than for the boot itself."""
_TARGET = re.compile(r"/(data|home)(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+\Z")
_OPTIONS = re.compile(r"[A-Za-z0-9_=.:/@+-]+(,[A-Za-z0-9_=.:/@+-]+)*\Z")
_OURS = frozenset(
    {
        "rw",
        "ro",
        "suid",
        "dev",
        "nosuid",
        "nodev",
        "remount",
        "bind",
        "rbind",
        "loop",
        "move",
        "secret",
        "secretfile",
        "users",
        "owner",
    }
)
"""Options that this module sets itself, or that would make something else than a mount."""
_ALWAYS = ("nosuid", "nodev")
_HOST = r"(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])"
_PATH = r"/[A-Za-z0-9_./-]*"
_NFS = re.compile(rf"{_HOST}:{_PATH}\Z")


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one kind of storage is mounted: the file system's name, the shape of its source, options that are always right."""

    type: str
    source: re.Pattern[str]
    options: tuple[str, ...] = ()


_KINDS = {
    # hard: a server that restarts makes programs wait, not fail with half-written files
    "nfs": _Kind("nfs", _NFS, ("hard", "proto=tcp")),
    "nfs4": _Kind("nfs4", _NFS, ("hard", "proto=tcp")),
    # OceanStor is mounted by its NFS service; large blocks as its guide for Linux clients says
    "oceanstor": _Kind("nfs", _NFS, ("hard", "proto=tcp", "timeo=600", "rsize=1048576", "wsize=1048576")),
    "ceph": _Kind(
        "ceph", re.compile(rf"(?:{_HOST}(?::\d+)?(?:,{_HOST}(?::\d+)?)*:|[A-Za-z0-9_.-]+@[0-9a-f-]*\.[A-Za-z0-9_-]+=){_PATH}\Z")
    ),
    # flock: HDF5 locks its files
    "lustre": _Kind("lustre", re.compile(rf"{_HOST}@[a-z0-9]+(?:[:,]{_HOST}@[a-z0-9]+)*:{_PATH}\Z"), ("flock",)),
    "disk": _Kind("ext4", re.compile(r"/dev/(?:disk/by-[a-z]+/)?[A-Za-z0-9_.-]+\Z"), ("noatime",)),
}


def unit_name(target: str) -> str:
    """Return the name that systemd wants for a mount at ``target`` (systemd.unit(5), "String Escaping")."""
    name = target.strip("/")
    plain = re.compile(r"[A-Za-z0-9:_]")
    escaped = [
        "-"
        if char == "/"
        else char
        if plain.match(char) or (char == "." and place)
        else "".join(f"\\x{byte:02x}" for byte in char.encode())
        for place, char in enumerate(name)
    ]
    return "".join(escaped) + ".mount"


def options(mount: Mount, secret_file: str = "") -> str:
    """Return the mount's options.

    Raises:
        SetupError: the mount is not of the shape that its kind has.
    """
    kind = _KINDS.get(mount.kind)
    if kind is None:
        raise SetupError(f"storage of kind {mount.kind!r} is not supported")
    if not _TARGET.match(mount.target) or ".." in mount.target.split("/"):
        raise SetupError("a mount has a target that is not allowed: it must lie below /data or /home")
    if not kind.source.match(mount.source) or ".." in mount.source.split("/"):
        raise SetupError(f"the source of the {mount.kind} mount at {mount.target} is not understood")
    if mount.options and (not _OPTIONS.match(mount.options) or _names(mount.options) & _OURS):
        raise SetupError(f"an option of the mount at {mount.target} is not allowed")
    own = [name for name in kind.options if name.split("=")[0] not in _names(mount.options)]
    parts = ["rw" if mount.writable else "ro", *_ALWAYS, *own, *filter(None, [mount.options])]
    return ",".join(parts + ([f"secretfile={secret_file}"] if secret_file else []))


def _names(text: str) -> set[str]:
    return {option.split("=")[0] for option in text.split(",")}


def fs_type(mount: Mount) -> str:
    """Return the name of the file system, as mount(8) has it."""
    return _KINDS[mount.kind].type


def render(mount: Mount, secret_file: str = "") -> str:
    """Return the text of the unit.

    Raises:
        SetupError: see :func:`options`.
    """
    checked = options(mount, secret_file)
    network = "" if mount.kind == "disk" else "Wants=network-online.target\nAfter=network-online.target\n"
    return (
        f"[Unit]\nDescription=Storage of the desktop at {mount.target}\n{network}\n"
        f"[Mount]\nWhat={mount.source}\nWhere={mount.target}\nType={fs_type(mount)}\n"
        f"Options={checked}\nTimeoutSec={TIMEOUT_S}\n"
    )
