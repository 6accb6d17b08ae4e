"""News of all servers by one question, for clouds that tell them: what changed is looked at, and nothing else again and again.

While news comes, passes over desktops that only wait put the next look far off (`ReconcileRules.calm`), and whatever changes wakes
its desktop here. Nobody is asked while nothing moves. Several reconcilers do no harm.

A cloud that takes long is not one that is away. Whether it answers others is seen from the passes; in a storm all are ordered at
last and wait, so that nobody but the news asks anything: then it is asked something easy (`TellsNews.prove`). If nobody gets an
answer it is *silent*: everything that moves is woken, so that people hear of it, and waits for the first answer to anybody; to look
at everything then would keep a busy cloud busy. If the question fails, or nobody got an answer for as long as it may take, news is
*away*: everything is looked at as often as without.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from beamdesk.domain.errors import CloudError, CloudUnavailable
from beamdesk.ports.clock import Clock
from beamdesk.ports.cloud import News, TellsNews
from beamdesk.ports.store import Store
from beamdesk.reconcile.keeping import Answers
from beamdesk.reconcile.rules import ReconcileRules

log = structlog.get_logger("beamdesk.reconcile")

BUSY = 6
"""News may take so many times people's patience while the cloud answers others. To look at everything then keeps a cloud busy."""
LATE = 1
"""So often in a row news may not have come by then; it is asked for again."""
STEPS = 4
"""So often within the patience, whoever waits for news looks whether others get answers."""
_AWAY = "The cloud does not tell what changed in time."


class NewsReader:
    """Reads the news of one cloud. ``answers.uninformed`` tells the passes that it does not come."""

    def __init__(self, store: Store, cloud: TellsNews, clock: Clock, rules: ReconcileRules, answers: Answers) -> None:
        self._store = store
        self._cloud = cloud
        self._clock = clock
        self._rules = rules
        self._answers = answers
        self._patience_s = rules.timings.patience.total_seconds()
        self._current = False
        self._late = 0

    async def read(self) -> None:
        """Ask once, if anything moves, and wake what changed."""
        async with self._store.begin() as tx:
            moves = await tx.desktops.moves()
        if not moves and not self._answers.silent:
            self._current = False  # the next news will be old
            return
        try:
            news = await self._ask()
        except CloudError as error:
            await self._is_away(error)
            return
        if news is None:
            return
        news = News(news.desktops, everything=news.everything or not self._current)
        self._current, self._answers.uninformed, self._late = True, False, 0
        if news.everything or news.desktops:
            await self._wake(news)

    async def _is_away(self, error: CloudError) -> None:
        self._current = False
        self._cloud.news_is_away()
        if not self._answers.uninformed:
            log.warning("news.away", cause=error.message)
            self._answers.uninformed = True
            await self._wake(News(frozenset(), everything=True))

    async def _ask(self) -> News | None:
        """Return the news, None where it is only late.

        Raises:
            CloudError: it is away.
        """
        asking = asyncio.create_task(self._cloud.server_news())
        try:
            await self._wait_for(asking)
            if asking.done():
                self._answers.speaks()  # whatever it says
                return asking.result()
            if self._late >= LATE or self._answers.silent or not await self._proves():
                self._answers.falls_silent()
                raise CloudUnavailable(_AWAY)
        finally:
            asking.cancel()
        self._late += 1
        log.info("news.late")
        return None

    async def _wait_for(self, asking: asyncio.Task[News]) -> None:
        """Wait for the news as long as it may take; see meanwhile to it that people hear of a cloud that answers nobody."""
        until = asyncio.get_running_loop().time() + BUSY * self._patience_s
        proving: asyncio.Task[bool] | None = None
        told = self._answers.uninformed
        try:
            while (left_s := until - asyncio.get_running_loop().time()) > 0:
                tasks = {asking} if proving is None else {asking, proving}
                await asyncio.wait(tasks, timeout=min(self._patience_s / STEPS, left_s), return_when=asyncio.FIRST_COMPLETED)
                if asking.done():
                    return
                if proving is not None and proving.done():
                    if not proving.result() and not self._answers.comes(self._patience_s) and not told:
                        told = True
                        await self._is_silent()
                    proving = None
                if proving is None and not self._answers.comes(self._patience_s / 2):
                    proving = asyncio.create_task(self._proves(), name="prove")
        finally:
            if proving is not None:
                proving.cancel()

    async def _is_silent(self) -> None:
        log.warning("cloud.silent")
        self._answers.falls_silent()
        await self._wake(News(frozenset(), everything=True))

    async def _proves(self) -> bool:
        """Tell whether the cloud answers an easy question: in what is left of the patience of who waits, after the first step."""
        with suppress(CloudError, TimeoutError):
            async with asyncio.timeout(self._patience_s * (STEPS - 1) / STEPS):
                await self._cloud.prove()
            self._answers.got_one()
            return True
        return False

    async def _wake(self, news: News) -> None:
        async with self._store.begin(write=True) as tx:
            await tx.desktops.wake_moving(self._clock.now(), None if news.everything else news.desktops)
