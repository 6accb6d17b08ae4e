"""One pass over one desktop: claim, observe, decide, act (at most one write to the cloud), apply.

No transaction is open while the cloud is asked. Every write to the store proves the claim: if it was lost to another reconciler,
the pass ends without a trace. An exception in the middle leaves the claim to expire, and the next pass begins with observing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

import structlog

from beamdesk.domain.catalog import Resources
from beamdesk.domain.decision import Decision, Observed, Step
from beamdesk.domain.desktop import Desktop, QueuePlace
from beamdesk.domain.errors import CloudError, CloudRefused, CloudUnavailable
from beamdesk.domain.guest import Guest
from beamdesk.domain.lifecycle import act_failed, acted, decide
from beamdesk.domain.secrets import hash_secret
from beamdesk.domain.server import Observation, Server
from beamdesk.ports.clock import Clock, Secrets
from beamdesk.ports.cloud import Cloud, ServerAccount, ServerMount, ServerSpec, TellsNews
from beamdesk.ports.store import Claimed, Store
from beamdesk.reconcile.apply import ClaimLost, apply_decision, follow_the_wait
from beamdesk.reconcile.hints import hints_of
from beamdesk.reconcile.keeping import Answers, Keeper, Rounds
from beamdesk.reconcile.placing import Placer
from beamdesk.reconcile.renewing import Renewals
from beamdesk.reconcile.rules import ReconcileRules

log = structlog.get_logger("beamdesk.reconcile")
T = TypeVar("T")
NO_ANSWER = "The cloud did not answer in time."


class Worker:
    """Processes claimed desktops. Any number of workers, in any number of processes, share the work."""

    def __init__(
        self, store: Store, cloud: Cloud, clock: Clock, secrets: Secrets, rules: ReconcileRules, placer: Placer | None = None
    ) -> None:
        self._store = store
        self._placer = placer
        self._cloud = cloud
        self._clock = clock
        self._secrets = secrets
        self._rules = rules
        self.answers = Answers()
        self._renewals = Renewals(store, clock, rules)
        self._rounds = Rounds(self._renewals, rules.tick)
        self._calm = replace(rules.timings, calm=rules.calm)
        self._tells_news = isinstance(cloud, TellsNews)
        self._asking = asyncio.Lock()
        self._orders = asyncio.Semaphore(rules.orders)
        self.in_line = 0
        """Passes that wait for their turn to give an order: they do nothing meanwhile."""
        self._capacity: tuple[datetime, Resources | None] | None = None

    async def claim(self, limit: int, *, woken_only: bool = False) -> tuple[Claimed, ...]:
        """Claim up to ``limit`` due desktops; ``woken_only``: those of which something is known that is new."""
        now = self._clock.now()
        if not await self._store.may_be_due(now):
            return ()
        token, until = self._secrets.token(), now + self._rules.claim
        async with self._store.begin(write=True) as tx:
            return await tx.desktops.claim(token=token, now=now, until=until, limit=limit, woken_only=woken_only)

    async def process(self, claimed: Claimed) -> datetime | None:
        """Do one pass; return when the desktop is due again, None when it is gone or somebody else's."""
        try:
            async with self._keeper(claimed) as keeper:
                observed = await self._observe(claimed.desktop)
                keeper.looked()
                decision = self._decide(claimed.desktop, observed)
                if decision.step is Step.ADMIT:
                    claimed, observed, decision = await self._admit(claimed, observed)
                decision = await self._act(claimed, decision, observed)
            return await apply_decision(self._store, keeper.told(claimed), decision, self._clock.now())
        except ClaimLost:
            log.info("claim.lost", desktop=claimed.desktop.id)
            return None

    def _keeper(self, claimed: Claimed) -> Keeper:
        return Keeper(self._store, self._clock, self._rules, self.answers, self._renewals, self._rounds, claimed)

    def _decide(self, desktop: Desktop, observed: Observed) -> Decision:
        timings = self._calm if self._hears else self._rules.timings
        return decide(desktop, observed, self._clock.now(), timings, self._rules.lease, self._jitter())

    @property
    def _hears(self) -> bool:
        """Tell whether what changes is told, or will be at once: `news` is asked for from when the first desktop moves."""
        return self._tells_news and not self.answers.uninformed

    def _jitter(self) -> float:
        return int.from_bytes(hash_secret(self._secrets.token())[:4]) / 2**32

    async def _observe(self, desktop: Desktop) -> Observed:
        servers, cloud_error = None, ""
        if self._hears and self.answers.silent and not await self.answers.heard(self._rules.call_timeout.total_seconds()):
            return Observed(None, await self._guest(desktop), cloud_error=NO_ANSWER)  # who asks for news asks for all
        answers = self.answers.comes(self._rules.timings.patience.total_seconds())
        if self._hears and answers and desktop.untouched and await self._guest(desktop) is None:
            return Observed(Observation(()), None)  # nothing was ever ordered: there is nothing to look for
        try:
            servers = await self._ask(self._cloud.find_servers(desktop.id))
        except CloudError as error:
            cloud_error = error.message
        # the guest after the servers: a guest that is there proves more than a list that is older
        return Observed(servers, await self._guest(desktop), cloud_error=cloud_error)

    async def _guest(self, desktop: Desktop) -> Guest | None:
        async with self._store.begin() as tx:
            return await tx.guests.get(desktop.id)

    async def _ask(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._rules.call_timeout.total_seconds()):
                answer = await call
        except TimeoutError as error:
            raise CloudUnavailable(NO_ANSWER) from error
        except CloudError as error:
            if not isinstance(error, CloudUnavailable):
                self.answers.got_one()
            raise
        self.answers.got_one()
        return answer

    async def _admit(self, claimed: Claimed, observed: Observed) -> tuple[Claimed, Observed, Decision]:
        """Ask for the desktop's share of capacity, and decide again with the answer."""
        desktop = claimed.desktop
        if self._placer is not None:
            return await self._admit_to_a_host(self._placer, claimed, observed)
        try:
            total = await self._total()
        except CloudError as error:
            observed = replace(observed, servers=None, cloud_error=error.message)
            return claimed, observed, self._decide(desktop, observed)
        if total is not None and (lacking := total.lacks_for(desktop.resources)):
            observed = replace(observed, never_fits=lacking)
        elif total is not None:
            observed = replace(observed, place=await self._queue(claimed, total))
        if not observed.never_fits and observed.place is None:
            claimed = replace(claimed, desktop=replace(desktop, admitted=True))
        return claimed, observed, self._decide(claimed.desktop, observed)

    async def _admit_to_a_host(self, placer: Placer, claimed: Claimed, observed: Observed) -> tuple[Claimed, Observed, Decision]:
        try:
            hosts = await self._ask(placer.hosts())
            place, never = await placer.admit(self._store, claimed, hosts, self._clock.now())
        except CloudError as error:
            observed = replace(observed, servers=None, cloud_error=error.message)
            return claimed, observed, self._decide(claimed.desktop, observed)
        observed = replace(observed, place=place, never_fits=never)
        if not never and place is None:
            claimed = replace(claimed, desktop=replace(claimed.desktop, admitted=True))
        return claimed, observed, self._decide(claimed.desktop, observed)

    async def _queue(self, claimed: Claimed, total: Resources) -> QueuePlace | None:
        now = self._clock.now()
        async with self._store.begin(write=True) as tx:
            try:
                place = await tx.desktops.admit(claimed, total, now)
            except LookupError as error:
                raise ClaimLost from error
            if place is None:
                await follow_the_wait(tx, claimed.desktop, now)
        return place

    async def _total(self) -> Resources | None:
        async with self._asking:  # who comes meanwhile takes the same answer
            now = self._clock.now()
            if self._capacity is None or now - self._capacity[0] > self._rules.capacity_for:
                total = await self._ask(self._cloud.capacity())
                resources = Resources(total.vcpus, total.memory_mib, total.disk_gib, total.gpus) if total else None
                self._capacity = (now, resources)
            return self._capacity[1]

    async def _act(self, claimed: Claimed, decision: Decision, observed: Observed) -> Decision:
        if decision.step is Step.NONE:
            return decision
        try:
            return await self._order(claimed, decision, first=claimed.desktop.untouched and observed.guest is None)
        except CloudError as error:
            return act_failed(
                claimed.desktop,
                decision,
                observed,
                error,
                now=self._clock.now(),
                timings=self._rules.timings,
                lease=self._rules.lease,
                jitter=self._jitter(),
            )

    async def _order(self, claimed: Claimed, decision: Decision, *, first: bool) -> Decision:
        """Give the order when it is its turn. That wait is not the cloud's; what was wanted before it may not be any more."""
        begun = self._clock.now()
        async with self._turn():
            if self._clock.now() - begun > self._rules.timings.patience:
                async with self._store.begin() as tx:
                    row = await tx.desktops.get(claimed.desktop.id)
                if row is None or row.generation != claimed.desktop.generation:
                    raise ClaimLost
            return acted(decision, await self._ask(self._execute(claimed, decision, first=first)))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        waits = self._orders.locked()
        if waits:
            self.in_line += 1
            self.answers.stalls()  # there is room for another pass
        try:
            await self._orders.acquire()
        finally:
            self.in_line -= waits
        try:
            yield
        finally:
            self._orders.release()

    async def _execute(self, claimed: Claimed, decision: Decision, *, first: bool) -> Server | None:
        cloud, target = self._cloud, decision.target
        if decision.step is Step.CREATE:
            return await cloud.create_server(replace(await self._prepare(claimed), first=first))
        if decision.step is Step.DELETE_HOME:
            await self._renew(claimed)
            await cloud.delete_home(claimed.desktop.id)
            return None
        if target is None:
            raise ValueError(f"{decision.step} without a server")
        if decision.step is Step.START:
            await cloud.start_server(target, await self._prepare(claimed))
            return None
        await self._renew(claimed)
        await (cloud.stop_server(target) if decision.step is Step.STOP else cloud.delete_server(target))
        return None

    async def _renew(self, claimed: Claimed) -> None:
        """Make sure that we still hold the claim, where observing took so long that somebody else may."""
        now = self._clock.now()
        if claimed.until - now > self._rules.claim / 2:
            return
        async with self._store.begin(write=True) as tx:
            if not await tx.desktops.renew(claimed, now + self._rules.claim):
                raise ClaimLost

    async def _prepare(self, claimed: Claimed) -> ServerSpec:
        """Write down the guest that the server will become, before there is a server; return the order for it."""
        desktop, now, timings = claimed.desktop, self._clock.now(), self._rules.timings
        nonce = self._secrets.token()
        hosts = await self._placer.hosts() if self._placer is not None else ()
        placement, hints = None, {}
        guest = Guest(
            desktop.id,
            nonce_hash=hash_secret(nonce),
            nonce_expires_at=now + timings.build_timeout + timings.boot_timeout,
            token_hash=None,
            stream_secret=self._secrets.token(),
        )
        async with self._store.begin(write=True) as tx:
            person = await tx.people.person(desktop.owner)
            experiment = await tx.people.experiment(desktop.experiment)
            if person is None or experiment is None or not experiment.has_member(person.id):
                raise CloudRefused("Its owner is not in the team of the experiment.")
            try:
                await tx.guests.put(guest)  # guest before desktop, as everywhere: no deadlock
            except LookupError as error:
                raise ClaimLost from error
            if not await tx.desktops.renew(claimed, now + self._rules.claim):
                raise ClaimLost
            if self._placer is not None:
                placement = await self._placer.placement(tx, desktop, hosts, now)
            else:
                hints = hints_of(desktop, await tx.placing.bookings(now))
        account = ServerAccount(person.login, person.uid, person.uid, (experiment.gid,), person.full_name)
        return ServerSpec(
            desktop_id=desktop.id,
            image_ref=desktop.image_ref,
            vcpus=desktop.resources.vcpus,
            memory_mib=desktop.resources.memory_mib,
            disk_gib=desktop.resources.disk_gib,
            gpus=desktop.resources.gpus,
            account=account,
            mounts=(
                ServerMount(experiment.folder, "raw", writable=False),
                ServerMount(experiment.folder, "processed", writable=True),
            ),
            nonce=nonce,
            flavor_ref=desktop.flavor,
            experiment=experiment.id,
            beamline=experiment.beamline if experiment.starts <= now < experiment.ends else "",
            host=placement.host if placement is not None else "",
            cards=placement.cards if placement is not None else (),
            shared=placement.shared if placement is not None else False,
            hints=hints,
        )
