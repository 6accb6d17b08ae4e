"""The last scheduling snapshot of this process: readers ask every few seconds, and it seldom changes.

It is kept under a key of everything that it was made of, so that an old one is never given out.
"""

from __future__ import annotations

from dataclasses import dataclass

from beamdesk.scheduling.wire import Published


@dataclass(slots=True)
class Snapshots:
    """One snapshot and its key."""

    key: str = ""
    published: Published | None = None

    def find(self, key: str) -> Published | None:
        """Return the snapshot of this key."""
        return self.published if self.key == key else None

    def keep(self, key: str, published: Published) -> None:
        """Keep a snapshot instead of the one before."""
        self.key, self.published = key, published
