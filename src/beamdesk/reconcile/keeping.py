"""A pass that waits for the cloud keeps its claim and tells people what is known meanwhile.

Telling does not depend on how long a call may take: a site with slow storage gives its calls a minute, and its people still hear
within seconds. Once a cloud is known not to answer, passes that begin after that say so at once and do not hold up others.

In a storm hundreds of passes stand in line. One task looks after all of them (`Rounds`): a task and a timer for each, every second,
cost more than all that they had to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Self

import structlog

from beamdesk.domain.desktop import Phase
from beamdesk.domain.errors import StoreUnavailable
from beamdesk.domain.guest import Guest
from beamdesk.domain.meanwhile import meanwhile
from beamdesk.ports.clock import Clock
from beamdesk.ports.store import Claimed, Store
from beamdesk.reconcile.apply import ClaimLost, tell
from beamdesk.reconcile.renewing import Held, Renewals
from beamdesk.reconcile.rules import ReconcileRules

log = structlog.get_logger("beamdesk.reconcile")


class Answers:
    """What all passes of a reconciler know together of how the cloud answers.

    ``stalled``: how many passes wait for it for long; ``stalls`` is called whenever there is room for another.
    ``answered_at``: when a pass got an answer, by the loop's clock.
    ``uninformed``: the last question for news of all servers got no answer, see `news`.
    """

    def __init__(self, stalls: Callable[[], None] = lambda: None) -> None:
        self.stalled = 0
        self._speaks = asyncio.Event()
        self._speaks.set()
        self.uninformed = False
        self.answered_at = float("-inf")
        self.stalls = stalls

    def comes(self, within_s: float) -> bool:
        """Tell whether anybody got an answer of late."""
        return asyncio.get_running_loop().time() - self.answered_at <= within_s

    @property
    def silent(self) -> bool:
        """Tell whether nobody has got an answer since somebody waited for long in vain."""
        return not self._speaks.is_set()

    def falls_silent(self) -> None:
        """Take note that somebody waited for long in vain."""
        self._speaks.clear()

    def speaks(self) -> None:
        """Take note that it does answer something."""
        self._speaks.set()

    async def heard(self, within_s: float) -> bool:
        """Wait until it answers anybody; return false if it does not by then."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._speaks.wait()
        return self._speaks.is_set()

    def got_one(self) -> None:
        """Take note of an answer to a pass, whatever it says."""
        self.speaks()
        self.answered_at = asyncio.get_running_loop().time()


class Rounds:
    """Once a tick: the claims of all passes that wait are renewed, and each is asked whether it has something to say."""

    def __init__(self, renewals: Renewals, tick: timedelta) -> None:
        self._renewals = renewals
        self._tick_s = tick.total_seconds()
        self._waiting: set[Keeper] = set()
        self._going: asyncio.Task[None] | None = None

    def join(self, keeper: Keeper) -> None:
        """Ask this one, too, from now on."""
        self._waiting.add(keeper)
        if self._going is None or self._going.done():
            self._going = asyncio.create_task(self._go(), name="rounds")

    def leave(self, keeper: Keeper) -> None:
        """Ask it no more; one that is not asked is fine."""
        self._waiting.discard(keeper)

    async def _go(self) -> None:
        while self._waiting:
            try:
                await self._renewals.renew()
                for keeper in tuple(self._waiting):
                    keeper.asked()
            except Exception:  # the outermost frame: the next round tries again; a claim that is over meanwhile says so itself
                log.exception("round.failed")
            await asyncio.sleep(self._tick_s)


class Keeper:
    """Keeps one claim while a pass goes on: ``async with`` around what asks the cloud, then `told`."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        rules: ReconcileRules,
        answers: Answers,
        renewals: Renewals,
        rounds: Rounds,
        claimed: Claimed,
    ) -> None:
        self._held = Held(claimed)
        self._renewals = renewals
        self._rounds = rounds
        self._store = store
        self._clock = clock
        self._rules = rules
        self._answers = answers
        self._looks = True
        self._loop = asyncio.get_running_loop()
        known = rules.timings.patience if answers.silent else timedelta()
        self._since = self._loop.time() - known.total_seconds()
        self._first_s = 0.0 if known else rules.tick.total_seconds()  # most passes are over before the first tick
        self._stalls = False
        self._telling: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._alarm = self._loop.call_later(self._first_s, self._begin)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let a word that is being written be written: what comes after must know of it."""
        self._rounds.leave(self)
        if self._alarm is not None:
            self._alarm.cancel()
        try:
            if self._telling is not None:
                await self._telling
        finally:
            self._renewals.release(self._held)
            self._answers.stalled -= self._stalls

    def looked(self) -> None:
        """Count from here: the cloud has told what there is, and is given an order now, which may take its time."""
        self._looks, self._since = False, self._loop.time()

    def told(self, claimed: Claimed) -> Claimed:
        """Return the claim with what was told meanwhile, as it is stored."""
        known = self._held.claimed.desktop
        desktop = replace(claimed.desktop, reason=known.reason, detail=known.detail, version=known.version)
        return replace(claimed, desktop=desktop)

    def asked(self) -> None:
        """Say what there is to say by now; most have said it, or have nothing to say."""
        waited = timedelta(seconds=self._loop.time() - self._since)
        if not self._stalls and waited >= self._rules.timings.patience:
            self._stalls = True
            self._answers.stalled += 1
            if self._looks:
                self._answers.falls_silent()
            self._answers.stalls()
        if self._held.lost:
            self._rounds.leave(self)  # the pass finds out when it applies
        elif (self._telling is None or self._telling.done()) and self._may_have_news(waited):
            self._telling = asyncio.create_task(self._tell(waited))

    def _begin(self) -> None:
        self._renewals.hold(self._held)
        self._rounds.join(self)
        self.asked()

    def _may_have_news(self, waited: timedelta) -> bool:
        desktop = self._held.claimed.desktop
        if desktop.phase is Phase.READY:
            return True  # its guest has to be asked
        news = meanwhile(desktop, None, self._clock.now(), self._rules.timings, waited)
        return news is not None and news != (desktop.reason, desktop.detail)

    async def _tell(self, waited: timedelta) -> None:
        now = self._clock.now()
        try:
            known = meanwhile(self._held.claimed.desktop, await self._guest(), now, self._rules.timings, waited)
            if known is None:
                return
            told = await tell(self._store, self._held.claimed, *known, now)
        except ClaimLost:
            self._rounds.leave(self)
            return
        except StoreUnavailable:
            return  # the next round tries again
        self._held.claimed = replace(told, until=max(told.until, self._held.claimed.until))

    async def _guest(self) -> Guest | None:
        """Return the guest of a ready desktop; of others nobody asks here."""
        desktop = self._held.claimed.desktop
        if desktop.phase is not Phase.READY:
            return None
        async with self._store.begin() as tx:
            return await tx.guests.get(desktop.id)
