"""The host's credential: one line in a file that only its owner can read, written as a whole or not at all. Never logged."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from beamdesk.srm.errors import ConfigError
from beamdesk.srm.files import read

_MODE = 0o600


def save(path: Path, credential: str) -> None:
    """Write the credential (mode 0600), replacing an older one.

    Raises:
        ConfigError: the folder cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{credential}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def load(path: Path) -> str:
    """Return the credential.

    Raises:
        ConfigError: there is none, or others may read it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no credential in {path}: enrol this host first (beamdesk srm join)") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as file:
        if os.fstat(descriptor).st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others: chmod 600 {path}, and enrol this host again")
        credential = file.read(1024).strip()
    if not credential or not credential.isprintable() or " " in credential:
        raise ConfigError(f"{path} holds no credential: enrol this host again (beamdesk srm join)")
    return credential


def machine_digest(machine_id: Path) -> str:
    """Return a digest that stays with this machine; machine-id(5) asks that the id itself never leave it.

    Raises:
        ConfigError: the machine has no id.
    """
    own = read(machine_id)
    if not own:
        raise ConfigError(f"{machine_id} is empty: run systemd-machine-id-setup")
    return hashlib.sha256(b"beamdesk-srm\0" + own.encode()).hexdigest()
