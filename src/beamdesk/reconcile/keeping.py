"""A pass that waits for the cloud keeps its claim and tells people what is known meanwhile.

Telling does not depend on how long a call may take: a site with slow storage gives its calls a minute, and its people still hear
within seconds. Once a cloud is known not to answer, passes that begin after that say so at once and do not hold up others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Self

from beamdesk.domain.desktop import Phase
from beamdesk.domain.guest import Guest
from beamdesk.domain.meanwhile import meanwhile
from beamdesk.ports.clock import Clock
from beamdesk.ports.store import Claimed, Store
from beamdesk.reconcile.apply import ClaimLost, tell
from beamdesk.reconcile.renewing import Held, Renewals
from beamdesk.reconcile.rules import ReconcileRules


class Answers:
    """What all passes of a reconciler know together of how the cloud answers.

    ``stalled``: how many passes wait for it for long; ``stalls`` is called whenever there is room for another. ``silent``: nobody
    has got an answer since somebody looked for long in vain. ``answered_at``: when anybody got one, by the loop's clock.
    ``uninformed``: the last question for news of all servers got no answer, see `news`.
    """

    def __init__(self, stalls: Callable[[], None] = lambda: None) -> None:
        self.stalled = 0
        self.silent = False
        self.uninformed = False
        self.answered_at = float("-inf")
        self.stalls = stalls

    def comes(self, within_s: float) -> bool:
        """Tell whether anybody got an answer of late."""
        return asyncio.get_running_loop().time() - self.answered_at <= within_s

    def got_one(self) -> None:
        """Take note of an answer, whatever it says."""
        self.silent = False
        self.answered_at = asyncio.get_running_loop().time()


class Keeper:
    """Keeps one claim while a pass goes on: ``async with`` around what asks the cloud, then `told`."""

    def __init__(
        self, store: Store, clock: Clock, rules: ReconcileRules, answers: Answers, renewals: Renewals, claimed: Claimed
    ) -> None:
        self._held = Held(claimed)
        self._renewals = renewals
        self._store = store
        self._clock = clock
        self._rules = rules
        self._answers = answers
        self._looks = True
        self._waited = rules.timings.patience if answers.silent else timedelta()
        self._stalls = False
        self._over = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        first = 0.0 if self._waited else self._rules.tick.total_seconds()  # most passes are over before the first tick
        self._alarm = asyncio.get_running_loop().call_later(first, self._begin)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let a word that is being written be written: what comes after must know of it."""
        self._over.set()
        if self._alarm is not None:
            self._alarm.cancel()
        try:
            if self._keeping is not None:
                await self._keeping
        finally:
            self._renewals.release(self._held)
            self._answers.stalled -= self._stalls

    def looked(self) -> None:
        """Count from here: the cloud has told what there is, and is given an order now, which may take its time."""
        self._looks, self._waited = False, timedelta()

    def told(self, claimed: Claimed) -> Claimed:
        """Return the claim with what was told meanwhile, as it is stored."""
        known = self._held.claimed.desktop
        desktop = replace(claimed.desktop, reason=known.reason, detail=known.detail, version=known.version)
        return replace(claimed, desktop=desktop)

    def _begin(self) -> None:
        self._renewals.hold(self._held)
        self._keeping = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        tick = self._rules.tick
        self._waited += tick
        try:
            while not self._over.is_set():
                await self._tick()
                try:
                    async with asyncio.timeout(tick.total_seconds()):
                        await self._over.wait()
                except TimeoutError:
                    self._waited += tick
        except ClaimLost:
            return  # the pass finds out when it applies

    async def _tick(self) -> None:
        now = self._clock.now()
        if not self._stalls and self._waited >= self._rules.timings.patience:
            self._stalls = True
            self._answers.stalled += 1
            self._answers.silent |= self._looks
            self._answers.stalls()
        if self._held.claimed.until - now < self._rules.claim / 2:
            await self._renewals.renew()
        if self._held.lost:
            raise ClaimLost
        known = meanwhile(self._held.claimed.desktop, await self._guest(), now, self._rules.timings, self._waited)
        if known is not None:
            told = await tell(self._store, self._held.claimed, *known, now)
            self._held.claimed = replace(told, until=max(told.until, self._held.claimed.until))

    async def _guest(self) -> Guest | None:
        """Return the guest of a ready desktop; of others nobody asks here."""
        desktop = self._held.claimed.desktop
        if desktop.phase is not Phase.READY:
            return None
        async with self._store.begin() as tx:
            return await tx.guests.get(desktop.id)
