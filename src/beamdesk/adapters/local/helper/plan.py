"""What one container will be: every fact its set-up needs, decided and checked before anything is done."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from beamdesk.adapters.local.helper.config import Config
from beamdesk.adapters.local.helper.devices import Node
from beamdesk.adapters.local.helper.errors import HelperError
from beamdesk.protocol.helper import DataMount, HelperAccount, Start

_NONCE = re.compile(r"[A-Za-z0-9_-]{16,128}\Z")
_DEPLOYMENT = re.compile(r"[A-Za-z0-9-]{1,64}\Z")
_MAX_GROUPS = 32
_MAX_MOUNTS = 32


@dataclass(frozen=True, slots=True)
class Plan:
    """One container. ``base``: the host's uid and gid of its root; ``quarantine``: of nobody's range; ``layers``: topmost first."""

    desktop_id: str
    account: HelperAccount
    base: int
    quarantine: int
    layers: tuple[Path, ...]
    home_image: Path
    disk_gib: int
    memory_mib: int
    data: tuple[DataMount, ...]
    gpu_nodes: tuple[Node, ...]
    stream_dir: Path
    nonce: str


def check_start(config: Config, start: Start) -> None:
    """Check all of a start request that the message itself cannot know.

    Raises:
        HelperError: ``malformed`` or ``out_of_range``, naming the field.
    """
    if not _NONCE.match(start.nonce):
        raise HelperError("malformed", "nonce must be 16-128 letters, digits, '-' or '_'.")
    if not _DEPLOYMENT.match(start.deployment_id):
        raise HelperError("malformed", "deployment_id must be 1-64 letters, digits or '-'.")
    if len(start.mounts) > _MAX_MOUNTS or len({(mount.experiment, mount.area) for mount in start.mounts}) != len(start.mounts):
        raise HelperError("malformed", "mounts must name each data area once, 32 at most.")
    check_account(config, start.account)


def check_account(config: Config, account: HelperAccount) -> None:
    """Check that a person's ids lie in the ranges of the configuration: no system account, and never root.

    Raises:
        HelperError: ``out_of_range``.
    """
    if account.uid not in config.person_ids or account.gid not in config.person_ids:
        raise HelperError("out_of_range", "The account's uid and gid must lie in the range of people on this machine.")
    if len(account.gids) > _MAX_GROUPS:
        raise HelperError("out_of_range", "An account can have 32 groups at most.")
    for gid in account.gids:
        if gid != account.gid and gid not in config.experiment_gids:
            raise HelperError("out_of_range", "The account's groups must lie in the range of experiments on this machine.")
