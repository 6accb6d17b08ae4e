"""The helper's configuration: a TOML file that only root can write, and the checks that make it trustworthy.

Everything a request may choose among is named here. A path in it, or a folder above one, that somebody else could exchange would
hand root to them: such a configuration is refused, never repaired.
"""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from beamdesk.adapters.local.helper.errors import BadConfig

DEFAULT_INIT = ("/usr/bin/python3", "-m", "beamdesk.guest")


@dataclass(frozen=True, slots=True)
class IdRange:
    """Inclusive range of numeric ids."""

    first: int
    last: int

    def __contains__(self, value: int) -> bool:
        return self.first <= value <= self.last


@dataclass(frozen=True, slots=True)
class Config:
    """Parsed configuration; see ``docs/explanation/local-desktops.md`` for each key.

    ``vcpus``, ``memory_mib`` and ``disk_gib`` are what all desktops may use together; 0 = decided from the machine.
    """

    allowed_uid: int
    socket_gid: int
    run_dir: Path
    state_dir: Path
    homes_dir: Path
    images_index_dir: Path
    data_root: Path
    guest_api_dir: Path
    socket: Path
    person_ids: IdRange = IdRange(20000, 29999)
    experiment_gids: IdRange = IdRange(30000, 39999)
    container_ids: IdRange = IdRange(0x30000000, 0x6FFFFFFF)
    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    pids_max: int = 2048
    scratch_percent: int = 50
    """Share of its memory that a desktop may use for changes to its root file system; they count as its memory."""
    lifeline_fd: int = -1
    init: tuple[str, ...] = DEFAULT_INIT

    @property
    def streams_dir(self) -> Path:
        """Folder with one small file system per running desktop, where its streaming socket appears."""
        return self.run_dir / "stream"

    @property
    def stage_dir(self) -> Path:
        """Empty folder on which each container's private mounts are prepared."""
        return self.run_dir / "stage"

    @property
    def notify_socket(self) -> Path:
        """Where systemd-nspawn names the first process of a container."""
        return self.run_dir / "notify.sock"

    @property
    def console_dir(self) -> Path:
        """Folder of the consoles' files."""
        return self.state_dir / "console"

    @property
    def records_dir(self) -> Path:
        """Folder of the records of servers."""
        return self.state_dir / "servers"


_CONTAINER_IDS = 65536
_PATHS = ("run_dir", "state_dir", "homes_dir", "images_index_dir", "data_root", "guest_api_dir")
_RANGES = ("person_ids", "experiment_gids", "container_ids")


def load(path: Path) -> Config:
    """Read and check the configuration file.

    Raises:
        BadConfig: not a regular file of root that only root can write, or a key is missing, unknown or of the wrong type.
    """
    if os.geteuid() != 0:
        raise BadConfig("the helper must run as root")
    require_root_only(path.parent)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror}") from error
    with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
            raise BadConfig(f"{path}: must be a file of root that nobody else can write (chown root, chmod go-w)")
        try:
            data = tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadConfig(f"{path}: {error}") from error
    return parse(data)


def parse(data: dict[str, Any]) -> Config:
    """Turn the parsed TOML into a :class:`Config`; unknown keys are errors."""
    values = dict(data)
    known = {field.name for field in fields(Config)}
    unknown = values.keys() - known
    if unknown:
        raise BadConfig(f"unknown key {min(unknown)!r}")
    for name in _PATHS:
        values[name] = _absolute(name, values.get(name))
    values["socket"] = _absolute("socket", values.get("socket", str(values["run_dir"] / "helper.sock")))
    for name in _RANGES:
        if name in values:
            values[name] = _range(name, values[name])
    for name in ("allowed_uid", "socket_gid"):
        values[name] = _integer(name, values.get(name))
    for name, low in (("vcpus", 0), ("memory_mib", 0), ("disk_gib", 0), ("pids_max", 16), ("scratch_percent", 1)):
        if name in values:
            values[name] = _integer(name, values[name], low=low)
    if "lifeline_fd" in values:
        values["lifeline_fd"] = _integer("lifeline_fd", values["lifeline_fd"], low=-1)
    if "init" in values:
        values["init"] = tuple(_text("init", item) for item in _list("init", values["init"]))
    return _check_ranges(Config(**values))


def _check_ranges(config: Config) -> Config:
    if max(config.person_ids.last, config.experiment_gids.last) >= _CONTAINER_IDS or config.container_ids.first < _CONTAINER_IDS:
        raise BadConfig("person_ids and experiment_gids must lie below 65536, and container_ids above")
    if config.container_ids.last - config.container_ids.first < 2 * _CONTAINER_IDS:
        raise BadConfig("container_ids: room for several ranges of 65536 is needed")
    return config


def require_root_only(path: Path) -> None:
    """Check that nobody but root can exchange ``path`` or anything above it (a sticky folder such as /tmp is fine).

    Raises:
        BadConfig: naming the first folder that is a symbolic link, not root's, or writable by others.
    """
    for folder in (*reversed(path.parents), path):
        try:
            status = folder.lstat()
        except OSError as error:
            raise BadConfig(f"{folder}: {error.strerror}") from error
        writable = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or writable:
            raise BadConfig(f"{folder}: must be a folder of root that nobody else can write, not a link (chown root, chmod go-w)")


def _absolute(name: str, value: object) -> Path:
    text = _text(name, value)
    if not text.startswith("/") or ".." in text.split("/") or any(char in text for char in "\0\n:,\\"):
        raise BadConfig(f"{name}: must be an absolute path without '..', ':', ',' and '\\'")
    return Path(os.path.normpath(text))


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise BadConfig(f"{name}: a string is needed")
    return value


def _integer(name: str, value: object, *, low: int = 0) -> int:
    if type(value) is not int or not low <= value < 2**32 - 1:
        raise BadConfig(f"{name}: a whole number of at least {low} is needed")
    return value


def _list(name: str, value: object) -> list[object]:
    if not isinstance(value, list) or not value:
        raise BadConfig(f"{name}: a list that is not empty is needed")
    return value


def _range(name: str, value: object) -> IdRange:
    items = [_integer(name, item, low=1) for item in _list(name, value)]
    if len(items) != 2 or items[0] > items[1]:
        raise BadConfig(f"{name}: [first, last] is needed")
    return IdRange(items[0], items[1])
