"""News of all servers by one question, for clouds that tell them: what changed is looked at, and nothing else again and again.

While news comes, passes over desktops that only wait put the next look far off (`ReconcileRules.calm`), and whatever changes wakes
its desktop here. While it does not come, everything that moves is woken at once and looked at as often as without: people hear of a
cloud that does not answer from their desktops' own passes. Nobody is asked while nothing moves. Several reconcilers do no harm.
"""

from __future__ import annotations

import asyncio

import structlog

from beamdesk.domain.errors import CloudError, CloudUnavailable
from beamdesk.ports.clock import Clock
from beamdesk.ports.cloud import News, TellsNews
from beamdesk.ports.store import Store
from beamdesk.reconcile.keeping import Answers
from beamdesk.reconcile.rules import ReconcileRules

log = structlog.get_logger("beamdesk.reconcile")

BUSY = 6
"""News may take so many times people's patience while others get answers. To look at everything then is what keeps a cloud busy."""


class NewsReader:
    """Reads the news of one cloud. ``answers.uninformed`` tells the passes that it does not come."""

    def __init__(self, store: Store, cloud: TellsNews, clock: Clock, rules: ReconcileRules, answers: Answers) -> None:
        self._store = store
        self._cloud = cloud
        self._clock = clock
        self._rules = rules
        self._answers = answers
        self._current = False

    async def read(self) -> None:
        """Ask once, if anything moves, and wake what changed."""
        async with self._store.begin() as tx:
            moves = await tx.desktops.moves()
        if not moves:
            self._current = False  # the next news will be old
            return
        try:
            news = await self._ask()
        except CloudError as error:
            self._current = False
            if not self._answers.uninformed:
                log.warning("news.away", cause=error.message)
                self._answers.uninformed = True
                await self._wake(News(frozenset(), everything=True))
            return
        news = News(news.desktops, everything=news.everything or not self._current)
        self._current, self._answers.uninformed = True, False
        if news.everything or news.desktops:
            await self._wake(news)

    async def _ask(self) -> News:
        patience_s = self._rules.timings.patience.total_seconds()
        asking = asyncio.create_task(self._cloud.server_news())
        try:
            for _wait in range(BUSY):
                await asyncio.wait({asking}, timeout=patience_s)
                if asking.done() or not self._answers.comes(patience_s):
                    break  # as long as others get answers it is only busy
            if not asking.done():
                self._answers.silent = True  # passes say so at once
                raise CloudUnavailable("The cloud does not tell what changed in time.")
            news = asking.result()
        finally:
            asking.cancel()
        self._answers.silent = False
        return news

    async def _wake(self, news: News) -> None:
        async with self._store.begin(write=True) as tx:
            await tx.desktops.wake_moving(self._clock.now(), None if news.everything else news.desktops)
