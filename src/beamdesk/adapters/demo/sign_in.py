"""The built-in demo accounts: one random password per installation, scrypt-hashed in a file that only the service can read.

Two files of mode 0600 in the service's directory: ``demo-accounts.json`` with the hashes, which is all that signing in needs, and
``demo-password`` for `beamdesk up` to print it; whoever noted it may remove that file. Only for a portal that listens on loopback:
`open_demo_sign_in` refuses anything else. It must not be extended to real people; a real site signs in by OIDC.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beamdesk.domain.errors import ConfigurationError
from beamdesk.domain.ids import PersonId
from beamdesk.domain.person import Person

_N, _R, _P = 2**14, 8, 1
"""16 MiB and about 40 ms a try (RFC 7914; OWASP's floor is 2**17 for stored real passwords, ours carry 100 random bits)."""
_PARALLEL = 2
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_ACCOUNTS, _PASSWORD = "demo-accounts.json", "demo-password"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class _Entry:
    person: PersonId
    salt: bytes = field(repr=False)
    hash: bytes = field(repr=False)


class DemoSignIn:
    """A `PasswordSignIn` over the accounts of one file. Every verification costs one scrypt, whether the name exists or not."""

    def __init__(self, entries: dict[str, _Entry]) -> None:
        self._entries = entries
        self._decoy = _Entry(PersonId(""), secrets.token_bytes(16), secrets.token_bytes(32))
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def verify(self, login: str, password: str) -> PersonId | None:
        """Return the person, or None. Hashes in a thread, a few at a time, so that a flood of attempts slows itself only."""
        entry = self._entries.get(login, self._decoy)
        async with self._slots:
            found = await asyncio.to_thread(_scrypt, password, entry.salt)
        return entry.person if hmac.compare_digest(found, entry.hash) and entry.person else None


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(errors="surrogatepass"), salt=salt, n=_N, r=_R, p=_P, dklen=32)


def open_demo_sign_in(directory: Path, people: Iterable[Person], *, host: str) -> DemoSignIn:
    """Open the accounts in ``directory``, making them when there are none. Several processes may do so at once.

    Raises:
        ConfigurationError: the portal listens on ``host`` that is not loopback, or a file is damaged or readable by others.
    """
    if not is_loopback(host):
        raise ConfigurationError(
            f"The demo accounts are for this machine only, but the portal would listen on {host}. "
            "Set host = '127.0.0.1', or demo = false and a real sign-in."
        )
    path = directory / _ACCOUNTS
    if not os.path.lexists(path):
        _make_accounts(directory, people)
    return DemoSignIn(_parse(path, _read_private(path)))


def demo_password(directory: Path) -> str:
    """Return the password for printing, or words that say where it went."""
    try:
        return _read_private(directory / _PASSWORD).decode().strip()
    except ConfigurationError:
        return "(noted when it was made; remove demo-accounts.json and start again for a new one)"


def is_loopback(host: str) -> bool:
    """Tell whether a listening address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _make_accounts(directory: Path, people: Iterable[Person]) -> None:
    """Write a password and the accounts, never over existing ones: who comes second finds those of the first."""
    fresh = "-".join("".join(secrets.choice(_ALPHABET) for _ in range(5)) for _ in range(4))
    _write_private(directory / _PASSWORD, f"{fresh}\n".encode())
    password = _read_private(directory / _PASSWORD).decode().strip()
    accounts = {}
    for person in people:
        salt = secrets.token_bytes(16)
        accounts[person.login] = {"person": person.id, "salt": salt.hex(), "hash": _scrypt(password, salt).hex()}
    _write_private(directory / _ACCOUNTS, json.dumps({"format": _FORMAT, "accounts": accounts}, indent=1).encode())


def _write_private(path: Path, content: bytes) -> None:
    """Create a file of mode 0600 whole; one that exists is left alone."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)  # unlike rename, never replaces
    except OSError as error:
        raise ConfigurationError(f"Cannot write {path}: {error.strerror}.") from error
    finally:
        fresh.unlink(missing_ok=True)


def _read_private(path: Path) -> bytes:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            shared = os.fstat(file.fileno()).st_mode & 0o077
            content = file.read()
    except OSError as error:
        raise ConfigurationError(f"Cannot read {path}: {error.strerror}.") from error
    if shared:
        raise ConfigurationError(f"Others may read {path}. Run: chmod 600 {path}")
    return content


def _parse(path: Path, content: bytes) -> dict[str, _Entry]:
    try:
        return _entries(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"The demo accounts in {path} are damaged. Remove the file to get new ones.") from error


def _entries(document: dict[str, Any]) -> dict[str, _Entry]:
    if document["format"] != _FORMAT:
        raise ValueError("unknown format")
    return {
        str(login): _Entry(PersonId(str(one["person"])), bytes.fromhex(one["salt"]), bytes.fromhex(one["hash"]))
        for login, one in document["accounts"].items()
    }
