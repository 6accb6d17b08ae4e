"""The agent's life: look, tell what changed, clean what it is asked to; for ever.

The API may be away for as long as it likes: the agent waits longer and longer, at most a minute, and then tells everything anew. A
report without an answer is sent again as it was, so that it counts once. Nothing is kept on disk but the credential.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir

from beamdesk.protocol.srm import MAX_CARDS, REPORT_EVERY_S, Cleaned, CleanOrder, Open, Report, ReportReply
from beamdesk.srm import clean, delta
from beamdesk.srm.client import SrmApi
from beamdesk.srm.collect import Collector, Seen
from beamdesk.srm.config import Config
from beamdesk.srm.errors import ApiUnavailable, OutOfStep, Refused

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
WATCH_EVERY_S = 2.0
"""How often it is looked who holds a card, whatever the API does."""
_LEAST_EVERY_S, _MOST_EVERY_S = 0.05, 300.0

Log = Callable[[str], None]


class Agent:
    """One host's agent. `step` does what is due and returns how long to wait; `run` repeats it."""

    def __init__(
        self,
        config: Config,
        api: SrmApi,
        collector: Collector,
        *,
        machine: str,
        boot: str,
        version: str,
        log: Log,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._api = api
        self._collector = collector
        self._who = (machine, boot, version)
        self._log = log
        self._now = now
        self._session = ""
        self._sequence = 0
        self._every_s = config.report_every_s or REPORT_EVERY_S
        self._told = delta.Told()
        self._full = True
        self._unanswered: Report | None = None
        self._cleanings: dict[str, clean.Cleaning] = {}
        self._results: dict[str, Cleaned] = {}
        self._done: dict[str, str] = {}
        self._seen: Seen | None = None
        self._failures = 0

    def run(self, stop: Callable[[float], bool]) -> None:
        """Work until ``stop``, which waits for the given seconds and says whether to end. Cleanings that run are ended."""
        while not self._wait(self.step(), stop):
            pass
        for cleaning in self._cleanings.values():
            cleaning.kill()
        self._api.close()

    def _wait(self, wait_s: float, stop: Callable[[float], bool]) -> bool:
        """Wait, watching the cards meanwhile; tell whether to end."""
        while wait_s > 0:
            nap_s = min(wait_s, WATCH_EVERY_S)
            if stop(nap_s):
                return True
            self._collector.watch()
            wait_s -= nap_s
        return stop(0.0)

    def step(self) -> float:
        """Do what is due; return the seconds until the next time."""
        self._collect_results()
        try:
            if not self._session:
                self._open()
            reply = self._report()
        except Refused as error:
            self._session = ""
            return self._later(f"the API refuses this host: {error}")
        except OutOfStep as error:
            self._forget_session()
            return self._later(f"the API refuses this report: {error}")
        except ApiUnavailable as error:
            return self._later(str(error), error.retry_after_s)
        if self._failures:
            self._log("the API answers again")
        self._failures = 0
        self._obey(reply)
        return min(self._every_s, 1.0) if self._cleanings or self._results else self._every_s

    def _later(self, why: str, at_least_s: float = 0.0) -> float:
        """Return how long to wait after a failure: doubled each time, bounded, and not the same on every host."""
        self._failures += 1
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self._failures - 1, 10), 4 * self._every_s)
        if self._failures == 1 or self._failures % 60 == 0:
            self._log(f"{why}; trying again")
        return max(at_least_s, wait_s * random.uniform(0.5, 1.0))  # noqa: S311  # spreads requests, guards nothing

    def _open(self) -> None:
        machine, boot, version = self._who
        can_clean = bool(self._config.clean.command)
        opened = self._api.open(Open(self._config.host, machine, boot, version, self._now(), can_clean))
        self._forget_session()
        self._session = opened.session
        if self._config.report_every_s is None:
            self._every_s = min(max(opened.report_every_s, _LEAST_EVERY_S), _MOST_EVERY_S)

    def _forget_session(self) -> None:
        self._session, self._sequence, self._unanswered, self._full = "", 0, None, True

    def _report(self) -> ReportReply:
        """Send the next report, or the last one again if nobody answered it: then only its time is new."""
        report = self._unanswered or self._next()
        self._unanswered = report
        reply = self._api.report(replace(report, sent_at=self._now()))
        self._sequence, self._unanswered, self._full = report.sequence, None, reply.resync
        delta.learn(self._told, report)
        if self._seen is not None:
            self._collector.told(self._seen.visits)
        for result in report.cleaned:
            self._results.pop(result.address, None)
            self._done[result.address] = result.job
        return reply

    def _next(self) -> Report:
        self._seen = seen = self._collector.look()
        cleaned = tuple(list(self._results.values())[:MAX_CARDS])
        if self._full:
            return delta.full(seen, self._session, self._sequence + 1, cleaned)
        return delta.changed(self._told, seen, self._session, self._sequence + 1, cleaned)

    def _obey(self, reply: ReportReply) -> None:
        for order in reply.clean:
            under_way = order.address in self._cleanings or order.address in self._results
            if not under_way and self._done.get(order.address) != order.job:
                self._clean(order)

    def _clean(self, order: CleanOrder) -> None:
        """Clean a card that is ours, that nobody holds; anything else is answered with a failure."""
        seen = self._seen
        card = seen.cards.get(order.address) if seen else None
        load = seen.loads.get(order.address) if seen else None
        if card is None or load is None or load.held or not self._config.clean.command:
            return
        self._log(f"cleaning {order.address}")
        started = clean.start(self._config.clean, card, order, Path(gettempdir()))
        if isinstance(started, Cleaned):
            self._results[order.address] = started
        else:
            self._cleanings[order.address] = started

    def _collect_results(self) -> None:
        for address, cleaning in list(self._cleanings.items()):
            result = cleaning.result(time.monotonic())
            if result is None:
                continue
            del self._cleanings[address]
            self._results[address] = result
            self._log(f"cleaned {address}" if result.succeeded else f"cleaning {address} failed: {result.detail}")
