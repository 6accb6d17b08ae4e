"""What the agent finds at start: where to enrol, and the one-time nonce. Reads files; the nonce's file is removed once spent."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from beamdesk.guest.errors import ConfigError
from beamdesk.protocol.codec import MalformedMessage, decode, encode
from beamdesk.protocol.guest import Identity

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Contents of ``config.json``.

    ``enrol_url``: ``http+unix:///path/to/socket`` or ``https://host[:port]``. ``persistent``: keep the identity over reboots, as a
    virtual machine needs; a container gets a new nonce at each start.
    """

    enrol_url: str
    desktop_id: str
    persistent: bool = False


class AgentFiles:
    """The files of the agent below ``run`` (in memory) and ``state`` (on disk, only used by persistent identities)."""

    def __init__(self, run: Path, state: Path) -> None:
        self._config = run / "config.json"
        self._nonce = run / "nonce"
        self._identity = state / "identity.json"

    def config(self) -> AgentConfig:
        """Read the configuration.

        Raises:
            ConfigError: missing or malformed.
        """
        try:
            return decode(AgentConfig, _read(self._config))
        except MalformedMessage as error:
            raise ConfigError(f"{self._config}: {error}") from error

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

    def keep_identity(self, identity: Identity) -> None:
        """Keep the identity for the next boot, readable by root only."""
        self._identity.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._identity.with_suffix(".new")
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(encode(identity))
        draft.rename(self._identity)


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
