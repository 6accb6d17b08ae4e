"""The reconciler's loops. `run` is the whole process but for opening store and cloud; start it as often as you like."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta

import structlog

from beamdesk.ports.clock import Clock, Secrets
from beamdesk.ports.cloud import Cloud, TellsNews
from beamdesk.ports.store import Claimed, Store
from beamdesk.reconcile.news import NewsReader
from beamdesk.reconcile.placing import Placer
from beamdesk.reconcile.rules import ReconcileRules
from beamdesk.reconcile.sweeper import Sweeper
from beamdesk.reconcile.worker import Worker

log = structlog.get_logger("beamdesk.reconcile")

BATCHES_APART_S = 2.0
"""While most passes are under way, those that only stand in line begin together, so often at least: their looks are shared."""
CLAIMS_APART_S = 0.1
"""The store tells of every change, most of which make nothing due: so long after a claim nobody claims for such a hint."""
REMINDED = timedelta(seconds=10)
"""What this process put off by less, it comes back to on time; the rest at the next poll."""


class Hint:
    """A wake-up within the process: calling it is cheap, from any task. It is never needed, only quicker."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def __call__(self) -> None:
        """Wake the reconciler of this process."""
        self._event.set()

    async def wait(self) -> None:
        """Wait for the next wake-up."""
        await self._event.wait()
        self._event.clear()


class _Loop:
    """Claims and processes, never more than ``concurrency`` at once besides those that wait for a slow cloud."""

    def __init__(self, worker: Worker, clock: Clock, rules: ReconcileRules, hint: Hint) -> None:
        self._worker = worker
        self._clock = clock
        self._rules = rules
        self._hint = hint
        self._passes: set[asyncio.Task[None]] = set()
        self._claimed_at = float("-inf")
        self._batch_at = float("-inf")
        worker.answers.stalls = hint

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            free = self._free()
            claimed = await self._claim(free) if free else ()
            for one in claimed:
                task = asyncio.create_task(self._pass(one), name=f"pass-{one.desktop.id}")
                self._passes.add(task)
                task.add_done_callback(self._passes.discard)
            if len(claimed) < free or not free:
                await self._hint.wait()
        if self._passes:
            await asyncio.wait(self._passes, timeout=2 * self._rules.call_timeout.total_seconds())

    async def settle(self) -> None:
        """Return when the last claim is a while ago."""
        left = self._claimed_at + CLAIMS_APART_S - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left)

    def _free(self) -> int:
        """Return how many passes may begin.

        Those that stand in line for an order make room for others: what was ordered before and runs now is told meanwhile. Those
        that wait for the cloud for long do so only while nobody gets an answer.
        """
        answers = self._worker.answers
        waits = answers.silent or not answers.comes(self._rules.timings.patience.total_seconds())
        stalled = min(answers.stalled, self._rules.stalled_most) if waits else 0
        idle = min(max(stalled, self._worker.in_line), self._rules.stalled_most)  # many are both
        return max(self._rules.concurrency + idle - len(self._passes), 0)

    async def _claim(self, free: int) -> tuple[Claimed, ...]:
        now = self._claimed_at = asyncio.get_running_loop().time()
        woken_only = free < self._rules.concurrency / 2 and now - self._batch_at < BATCHES_APART_S
        if not woken_only:
            self._batch_at = now
        try:
            return await self._worker.claim(free, woken_only=woken_only)
        except Exception:  # the outermost frame of the loop: a store that is away comes back
            log.exception("claim.failed")
            await asyncio.sleep(1)
            return ()

    async def _pass(self, claimed: Claimed) -> None:
        try:
            due_at = await self._worker.process(claimed)
        except Exception:  # the outermost frame: the claim expires and somebody looks again
            log.exception("pass.failed", desktop=claimed.desktop.id)
            due_at = None
        self._remind(due_at)

    def _remind(self, due_at: datetime | None) -> None:
        """Wake up when this desktop is due again, if that is soon: polls are for others'; and now, because a place is free."""
        loop = asyncio.get_running_loop()
        if due_at is not None and (left := due_at - self._clock.now()) < REMINDED:
            loop.call_later(max(left.total_seconds(), 0.0), self._hint)
        if not self._free():
            loop.call_soon(self._hint)


async def _repeat(work: Callable[[], Awaitable[object]], every: timedelta, stop: asyncio.Event, name: str) -> None:
    while not stop.is_set():
        try:
            await work()
        except Exception:  # the outermost frame of the loop
            log.exception("loop.failed", loop=name)
            await asyncio.sleep(min(1.0, max(every.total_seconds(), 0.2)))
        if every:
            with suppress(TimeoutError):
                async with asyncio.timeout(every.total_seconds()):
                    await stop.wait()


async def run(
    store: Store,
    cloud: Cloud,
    clock: Clock,
    secrets: Secrets,
    rules: ReconcileRules,
    stop: asyncio.Event,
    *,
    hint: Hint | None = None,
    placer: Placer | None = None,
) -> None:
    """Reconcile until ``stop``; passes that have begun are finished. ``placer``: where the driver lets us choose hosts."""
    hint = hint or Hint()
    worker = Worker(store, cloud, clock, secrets, rules, placer)
    loop = _Loop(worker, clock, rules, hint)
    sweeper = Sweeper(store, cloud, clock, rules)

    async def listen() -> None:
        await store.wait_for_work(rules.poll.total_seconds())
        await loop.settle()
        hint()

    async def watch() -> None:
        now = clock.now()
        async with store.begin(write=True) as tx:
            await tx.desktops.wake_silent(now - rules.timings.late, now)

    log.info("reconcile.started")
    async with asyncio.TaskGroup() as group:
        group.create_task(loop.run(stop))
        group.create_task(_repeat(listen, timedelta(0), stop, "listen"))
        group.create_task(_repeat(watch, rules.watchdog, stop, "watchdog"))
        group.create_task(_repeat(sweeper.sweep, rules.sweep, stop, "sweep"))
        if isinstance(cloud, TellsNews):
            news = NewsReader(store, cloud, clock, rules, worker.answers)
            group.create_task(_repeat(news.read, rules.timings.poll, stop, "news"))
        await stop.wait()
        hint()
    log.info("reconcile.stopped")
