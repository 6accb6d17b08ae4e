"""What the agent finds at start: where to enrol, and the one-time nonce. Reads files; the nonce's file is removed once spent.

A machine's first boot puts both below ``/run``, which the next boot begins empty: what a persistent agent needs again is kept on
disk, readable by root only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from beamdesk.guest.errors import ConfigError
from beamdesk.protocol.codec import MalformedMessage, decode, encode
from beamdesk.protocol.guest import Identity

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Contents of ``config.json``.

    ``enrol_url``: ``http+unix:///path/to/socket`` or ``https://host[:port]``. ``persistent``: keep the identity over reboots, as a
    virtual machine needs; a container gets a new nonce at each start. ``ca``: certificates (PEM) of the only authorities
    trusted for ``https``; empty = the system's.
    """

    enrol_url: str
    desktop_id: str
    persistent: bool = False
    ca: str = ""


class AgentFiles:
    """The files of the agent below ``run`` (in memory) and ``state`` (on disk, only used by persistent identities).

    ``ca``: the certificates to trust, where ``config.json`` brings none.
    """

    def __init__(self, run: Path, state: Path, ca: Path = Path("/etc/beamdesk/guest-ca.pem")) -> None:
        self._ca = ca
        self._config = run / "config.json"
        self._nonce = run / "nonce"
        self._identity = state / "identity.json"
        self._kept_config = state / "config.json"
        self._spent = state / "spent"

    def config(self) -> AgentConfig:
        """Read the configuration of this boot, or the one kept from an earlier boot.

        Raises:
            ConfigError: missing or malformed.
        """
        path = self._kept_config if not self._config.exists() and self._kept_config.exists() else self._config
        try:
            config = decode(AgentConfig, _read(path, private=path == self._kept_config))
        except MalformedMessage as error:
            raise ConfigError(f"{path}: {error}") from error
        if config.ca or not self._ca.exists():
            return config
        return replace(config, ca=_read(self._ca).decode("ascii", "replace"))

    def has_nonce(self) -> bool:
        """Tell whether there is a nonce to spend: a kept identity is then somebody's older one, perhaps another machine's."""
        return os.path.lexists(self._nonce)

    def was_spent(self, nonce: str) -> bool:
        """Tell whether the kept identity was had for this nonce."""
        try:
            return _read(self._spent, private=True) == _digest(nonce)
        except ConfigError:
            return False

    def nonce(self) -> str:
        """Return the one-time nonce.

        Raises:
            ConfigError: missing, or readable by others than root.
        """
        return _read(self._nonce, private=True).decode("ascii", "replace").strip()

    def spend_nonce(self) -> None:
        """Remove the nonce's file."""
        with contextlib.suppress(FileNotFoundError):
            self._nonce.unlink()

    def identity(self) -> Identity | None:
        """Return the identity kept from an earlier boot, if there is one."""
        if not self._identity.exists():
            return None
        try:
            return decode(Identity, _read(self._identity, private=True))
        except MalformedMessage as error:
            raise ConfigError(f"{self._identity}: {error}") from error

    def keep(self, config: AgentConfig, identity: Identity, nonce: str) -> None:
        """Keep it all for the next boot, readable by root only; the identity last, as it is of no use without the rest."""
        _keep(self._kept_config, encode(config))
        _keep(self._spent, _digest(nonce))
        _keep(self._identity, encode(identity))


def _digest(nonce: str) -> bytes:
    return hashlib.sha256(nonce.encode()).hexdigest().encode()


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
    draft.rename(path)


def _read(path: Path, *, private: bool = False) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or (private and info.st_mode & 0o077):
            raise ConfigError(f"{path} must be a plain file{' that only root can read' if private else ''}")
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{path} is too long")
    return data
