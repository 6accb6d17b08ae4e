"""Where the command line keeps its sign-ins: one private file, replaced whole. A token is in no other place and in no argument."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from beamdesk.cli.failure import Exit, Failure

DEFAULT_URL = "http://localhost:8080"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class SignIn:
    """A token of one portal."""

    token: str = field(repr=False)
    login: str
    expires_at: str


@dataclass(slots=True)
class Credentials:
    """All sign-ins, by the portal's address; ``current`` is the one that was signed in last."""

    current: str = ""
    portals: dict[str, SignIn] = field(default_factory=dict)


def credentials_path() -> Path:
    """Return the file's place (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if base.startswith("/") else Path.home() / ".config"
    return folder / "beamdesk" / "credentials.json"


def load_credentials() -> Credentials:
    """Read the sign-ins; none when there is no file.

    Raises:
        Failure: the file cannot be read, is damaged, or others may read it.
    """
    path = credentials_path()
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
            shared = os.fstat(file.fileno()).st_mode & 0o077
            document = json.load(file)
        if shared:
            raise Failure(Exit.FAILED, f"Others may read your credentials. Run: chmod 600 {path}")
        portals = {str(url): SignIn(**one) for url, one in document["portals"].items()}
        return Credentials(str(document["current"]), portals)
    except FileNotFoundError:
        return Credentials()
    except OSError as error:
        raise Failure(Exit.FAILED, f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure(Exit.FAILED, f"{path} is damaged. Remove it and sign in again.") from error


def save_credentials(credentials: Credentials) -> None:
    """Replace the file, readable by its owner only.

    Raises:
        Failure: it cannot be written.
    """
    path = credentials_path()
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    document = {"format": _FORMAT, "current": credentials.current, "portals": {}}
    document["portals"] = {url: asdict(one) for url, one in credentials.portals.items()}
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise Failure(Exit.FAILED, f"Cannot write {path}: {error.strerror}.") from error
    finally:
        fresh.unlink(missing_ok=True)


def portal_url(wanted: str | None, credentials: Credentials) -> str:
    """Return the portal's address: as wanted, from ``BEAMDESK_URL``, the last one signed in to, or this machine's.

    Raises:
        Failure: it is no address, or one to which a password would travel unprotected.
    """
    url = wanted or os.environ.get("BEAMDESK_URL") or credentials.current or DEFAULT_URL
    try:
        parts = urlsplit(url.rstrip("/"))
        host, _port = parts.hostname or "", parts.port
    except ValueError as error:
        raise Failure(Exit.USAGE, f"{url} is not an address. Example: https://desktops.example.org") from error
    plain = parts.scheme in {"http", "https"} and host and not (parts.path or parts.query or parts.fragment or "@" in parts.netloc)
    if not plain:
        raise Failure(Exit.USAGE, f"{url} is not a portal's address. Example: https://desktops.example.org")
    if parts.scheme == "http" and not is_local(host):
        raise Failure(Exit.USAGE, f"Your password would travel unprotected to {host}. Use https://{parts.netloc}")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def is_local(host: str) -> bool:
    """Tell whether a host name always means this machine (RFC 6761 section 6.3)."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
