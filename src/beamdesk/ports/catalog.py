"""The catalogue port: images and flavors on offer, from recipes on one machine and from Glance and Nova in production."""

from __future__ import annotations

from typing import Protocol

from beamdesk.domain.catalog import Flavor, Image


class Catalog(Protocol):
    """Read-only and quick: implementations cache."""

    async def images(self) -> tuple[Image, ...]:
        """Return the images that can be started now, in display order."""

    async def flavors(self) -> tuple[Flavor, ...]:
        """Return the flavors on offer, smallest first."""
