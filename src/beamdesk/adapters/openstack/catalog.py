"""The catalogue of a cloud: images from Glance, flavors from Nova, kept for a while.

`images` and `flavors` answer at once from what was read last. When that is older than `FRESH_S` a reading starts in the background;
while the cloud does not answer, the last answer stays: a desktop that runs keeps its title. Only the first reading makes people
wait. It never writes to the cloud and never raises for one bad entry (`catalog_entries`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from beamdesk.adapters.openstack.catalog_entries import LeftOut, Raw, read_flavors, read_images
from beamdesk.domain.catalog import Flavor, Image
from beamdesk.domain.errors import CloudError

log = structlog.get_logger()

FRESH_S = 30.0
"""Age in seconds after which the lists are read again."""
RETRY_S = 5.0
"""Pause in seconds after a failed reading: a cloud that is down is asked no more often."""

ReadLists = Callable[[], Awaitable[tuple[Sequence[Raw], Sequence[Raw]]]]
"""Reads all images and all flavors as the cloud's API tells them. Raises CloudError."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What one reading found."""

    images: tuple[Image, ...]
    flavors: tuple[Flavor, ...]
    left_out: tuple[LeftOut, ...]


class OpenStackCatalog:
    """A `Catalog` over one cloud. ``names``: see `read_flavors`. ``now``: a monotonic clock in seconds, the loop's unless given."""

    def __init__(self, read: ReadLists, names: Mapping[str, str] | None = None, *, now: Callable[[], float] | None = None) -> None:
        self._read = read
        self._names = names
        self._now = now or (lambda: asyncio.get_running_loop().time())
        self._offer: Offer | None = None
        self._due = 0.0
        self._reading: asyncio.Task[None] | None = None
        self._told: frozenset[LeftOut] = frozenset()

    async def images(self) -> tuple[Image, ...]:
        """Return the images on offer.

        Raises:
            CloudError: never read so far, and the cloud does not answer.
        """
        return (await self._fresh()).images

    async def flavors(self) -> tuple[Flavor, ...]:
        """Return the flavors on offer, smallest first.

        Raises:
            CloudError: never read so far, and the cloud does not answer.
        """
        return (await self._fresh()).flavors

    async def left_out(self) -> tuple[LeftOut, ...]:
        """Return what wants to be on offer and is not, with the reasons.

        Raises:
            CloudError: never read so far, and the cloud does not answer.
        """
        return (await self._fresh()).left_out

    async def settled(self) -> None:
        """Return when no reading is under way, whatever came of it."""
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def close(self) -> None:
        """End a reading that is under way."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, CloudError):
                await self._reading

    async def _fresh(self) -> Offer:
        if self._offer is None:
            # Shielded: whoever gives up waiting must not end the reading that others wait for.
            await asyncio.shield(self._start())
        elif self._now() >= self._due:
            self._start()
        assert self._offer is not None  # noqa: S101 - the reading above set it or raised
        return self._offer

    def _start(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._refresh())
            self._reading.add_done_callback(_heed)
        return self._reading

    async def _refresh(self) -> None:
        self._due = self._now() + RETRY_S
        try:
            raw_images, raw_flavors = await self._read()
        except CloudError as error:
            log.warning("catalog.not_read", reason=error.message, served="the last answer" if self._offer else "nothing")
            raise
        images, no_images = read_images(raw_images)
        flavors, no_flavors = read_flavors(raw_flavors, self._names)
        self._offer = Offer(images, flavors, no_images + no_flavors)
        self._due = self._now() + FRESH_S
        self._tell(frozenset(self._offer.left_out))

    def _tell(self, left: frozenset[LeftOut]) -> None:
        for one in sorted(left - self._told, key=lambda it: (it.kind, it.name, it.ref)):
            say = log.info if one.replaced else log.warning
            say("catalog.left_out", kind=one.kind, name=one.name, ref=one.ref, reason=one.reason)
        self._told = left


def _heed(task: asyncio.Task[None]) -> None:
    """Take the outcome of a reading that nobody may be waiting for: a failure is logged already."""
    if not task.cancelled():
        task.exception()
