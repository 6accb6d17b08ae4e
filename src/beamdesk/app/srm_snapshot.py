"""The scheduling core's state as a document: what a nova-scheduler reads in the background.

Hosts, cards, who holds them, what is booked, the sizes on offer, the policy. CPU and memory are Nova's to count.
"""

from __future__ import annotations

import asyncio
import hmac
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256

import structlog

from beamdesk.app.context import App
from beamdesk.app.world import World, read_rows, world_of
from beamdesk.domain.catalog import Flavor
from beamdesk.domain.errors import CloudError, NotSignedIn, TooManyRequests
from beamdesk.domain.secrets import hash_secret
from beamdesk.scheduling.vocabulary import write
from beamdesk.scheduling.wire import publish, write_snapshot

TOUCH_EVERY = timedelta(minutes=1)
"""A reader that asks every few seconds costs no write each time."""
_LOG = structlog.get_logger("beamdesk.srm")


async def records_world(app: App) -> World:
    """Return the state as the records tell it, with used cards as claims of their holders."""
    flavors, now = await _flavors(app), app.clock.now()
    async with app.store.begin() as tx:
        rows = await read_rows(tx, now)
    return await asyncio.to_thread(world_of, rows, None, flavors, app.rules.srm, app.rules.policy)


async def _flavors(app: App) -> tuple[Flavor, ...]:
    """Return the sizes on offer; none while the cloud does not tell them: the state of cards is worth more than what is typical."""
    try:
        return await app.catalog.flavors()
    except CloudError as error:
        _LOG.warning("srm.no_sizes", reason=error.message)
        return ()


async def snapshot(
    app: App, credential: str, *, address: str, known: Callable[[str], bool], speaks: int = 1
) -> tuple[str | None, str]:
    """Return the snapshot document and its tag, which changes with the state and not with the time.

    ``known`` tells whether the reader has the document of a tag; then it is not made again, and None returned. ``speaks``: which
    protocol of the plugins the reader says it speaks (docs/reference/nova-scheduler.md).

    Raises:
        NotSignedIn: no program has this credential. TooManyRequests.
    """
    now = app.clock.now()
    await _admit(app, credential, address, now, speaks)
    key = await _key(app, now)
    if known(f'"{key}"'):
        return None, f'"{key}"'
    published = app.snapshots.find(key)
    if published is None:
        world = await records_world(app)
        # A quarter of a second for 250 hosts: others go on.
        published = await asyncio.to_thread(publish, world.table, 0.0, world.scheduler.policy.name, world.mix)
        if await _key(app, now) != key:  # it changed while it was read: this one is nobody's to come back to
            key = app.secrets.token()
        else:
            app.snapshots.keep(key, published)
    return await asyncio.to_thread(write_snapshot, replace(published, at=now.timestamp())), f'"{key}"'


async def _key(app: App, now: datetime) -> str:
    """Return a key of all that a snapshot is made of now."""
    sizes = [(one.resources, write(one.words)) for one in await _flavors(app)]
    async with app.store.begin() as tx:
        digest, heard = await tx.srm.marks()
        promised = await tx.placing.marks(now)
    silent = [name for name, seen_at in heard if seen_at is None or now - seen_at > app.rules.srm.stale_after]
    return sha256(digest + promised + repr((silent, app.rules.policy, sizes)).encode()).hexdigest()[:32]


async def _admit(app: App, credential: str, address: str, now: datetime, speaks: int) -> None:
    digest = hash_secret(credential)
    async with app.store.begin() as tx:
        consumer = await tx.srm.consumer_by_token(digest)
    if consumer is None or not hmac.compare_digest(consumer.token_hash, digest):
        _take(app, "stranger", address)
        raise NotSignedIn("No program has this credential (any more).")
    _take(app, "snapshot", consumer.name)
    if consumer.used_at is None or now - consumer.used_at >= TOUCH_EVERY or consumer.speaks != speaks:
        async with app.store.begin(write=True) as tx:
            await tx.srm.touch_consumer(consumer.name, now, speaks)


def _take(app: App, kind: str, key: str) -> None:
    limit = app.limits.srm_snapshot if kind == "snapshot" else app.limits.srm_stranger
    wait_s = limit.take(key, app.clock.now())
    if wait_s:
        raise TooManyRequests("Too many requests. Slow down.", retry_after_s=math.ceil(wait_s))
