"""What the guest agent of a desktop last said, and its credentials (hashed where they authenticate towards us)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from beamdesk.domain.ids import DesktopId
from beamdesk.protocol.guest import Step


@dataclass(frozen=True, slots=True)
class Guest:
    """A row of the guest table: one per desktop, replaced at every (re)start of its server.

    ``nonce_hash`` is None once spent. ``stream_secret`` is needed in the clear by the gateway; it never leaves store, guest and
    gateway and is kept out of every repr. ``gpu`` None: it has a card whose use is not known; `NO_CARD_WORKS`: none that works.
    ``worked_at``: when it last told of a computation that counts as use.
    """

    desktop_id: DesktopId
    nonce_hash: bytes | None = field(repr=False)
    nonce_expires_at: datetime
    token_hash: bytes | None = field(repr=False)
    stream_secret: str = field(repr=False)
    enrolled_at: datetime | None = None
    seen_at: datetime | None = None
    steps: tuple[Step, ...] = ()
    failure: str = ""
    input_idle_s: float = 0.0
    cpu: float = 0.0
    gpu: float | None = 0.0
    worked_at: datetime | None = None

    @property
    def ready(self) -> bool:
        """Tell whether every reported step is done."""
        return bool(self.steps) and all(step.state == "done" for step in self.steps)
