"""What an operator can set in nova.conf, section ``[beamdesk]``, as a value. `runtime.py` reads it through oslo.config."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit


class Fallback(StrEnum):
    """What happens to GPU desktops while nobody vouches for the state of cards."""

    REFUSE = "refuse"
    COUNT = "count"


class InvalidOption(ValueError):
    """An option in ``[beamdesk]`` cannot work; the scheduler must not start with it."""


@dataclass(frozen=True, slots=True)
class Options:
    """The section ``[beamdesk]``. Times in seconds, sizes in bytes.

    ``policy`` empty = the policy that the snapshot names. ``gpu_aliases`` empty = every PCI alias of a flavor gives cards.
    ``settle`` = how long after Nova freed a card the records must still call it free before it is lent again.
    """

    api_url: str = ""
    credential_file: str = ""
    ca_file: str = ""
    interval: float = 5.0
    timeout: float = 5.0
    first_wait: float = 5.0
    stale_after: float = 60.0
    gpu_fallback: Fallback = Fallback.REFUSE
    policy: str = ""
    gpu_aliases: frozenset[str] = frozenset()
    gpu_vendors: frozenset[str] = frozenset({"10de", "1002"})
    settle: float = 60.0
    weight_multiplier: float = 1.0
    journal: str = ""
    journal_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        if self.api_url:
            _check_url(self.api_url)
            if not self.credential_file:
                raise InvalidOption("[beamdesk]credential_file is needed beside api_url.")
        if self.stale_after <= self.interval:
            raise InvalidOption(
                f"[beamdesk]stale_after ({self.stale_after:g} s) must be longer than interval ({self.interval:g} s)."
            )


def _check_url(url: str) -> None:
    """The credential travels with every request: anything but HTTPS is for this machine only."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise InvalidOption("[beamdesk]api_url must be https://HOST[:PORT][/PREFIX], without name, password or query.")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise InvalidOption("[beamdesk]api_url must be https: http is for a loopback address only.")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
