"""The sweeper: cleans up after desktops that are gone, and wakes desktops whose server is not as it should be.

It removes a server or a home only when the desktop's row was removed *here* (there is a record of it), the listing was complete,
and it is old enough; a few a run. What the store has never known is an alarm and stays: it may be somebody's work, and the database
restored from yesterday's backup.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime

import structlog

from beamdesk.domain.desktop import Phase
from beamdesk.domain.errors import CloudError
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.server import Observation, Server, ServerStatus
from beamdesk.ports.clock import Clock
from beamdesk.ports.cloud import Cloud
from beamdesk.ports.store import Store
from beamdesk.reconcile.rules import ReconcileRules

log = structlog.get_logger("beamdesk.sweeper")
_RUNS = frozenset({ServerStatus.ACTIVE, ServerStatus.BUILD})
_NEEDS_SERVER = frozenset({Phase.BUILDING, Phase.BOOTING, Phase.READY})


class Sweeper:
    """Compares the whole cloud with the whole store, by a constant number of calls."""

    def __init__(self, store: Store, cloud: Cloud, clock: Clock, rules: ReconcileRules) -> None:
        self._store = store
        self._cloud = cloud
        self._clock = clock
        self._rules = rules
        self._alarmed: set[str] = set()
        self._homes_at: datetime | None = None

    async def sweep(self) -> None:
        """Do one run. A cloud that does not answer ends the run."""
        async with self._store.begin() as tx:
            there = await tx.desktops.known_ids()  # what goes during the run goes in order, though it may still be listed
        try:
            observation = await self._cloud.list_servers()
            homes = await self._homes()
        except CloudError as error:
            log.warning("sweep.put_off", cause=error.message)
            return
        # the store after the cloud: whatever is listed had its row before it had its server
        async with self._store.begin() as tx:
            phases = await tx.desktops.phases()
            strangers = {server.desktop_id for server in observation.servers} | set(homes)
            strangers -= phases.keys() | there
            removed = await tx.desktops.removed_among(frozenset(strangers))
        await self._wake_drifted(observation, phases)
        if observation.complete:
            await self._clean(observation.servers, homes, removed)
        if removed:
            self._homes_at = None  # something is left of a desktop: look closely until nothing is
        await self._record_alarms(frozenset(strangers) - removed)
        now = self._clock.now()
        async with self._store.begin(write=True) as tx:
            await tx.sessions.purge(now - self._rules.keep_sessions)
            await tx.events.purge(now - self._rules.keep_events)
            await tx.placing.purge_bookings(now - self._rules.keep_events)

    async def _homes(self) -> tuple[DesktopId, ...]:
        """List who left something behind, now and then: it costs a cloud as much as the servers, and whatever is there can wait."""
        now = self._clock.now()
        if self._homes_at is not None and now - self._homes_at < self._rules.sweep_homes:
            return ()
        homes = await self._cloud.list_homes()
        self._homes_at = now
        return homes

    async def _wake_drifted(self, observation: Observation, phases: dict[DesktopId, Phase]) -> None:
        counts = Counter(server.desktop_id for server in observation.servers)
        running = {server.desktop_id for server in observation.servers if server.status in _RUNS}
        drifted = {one for one, count in counts.items() if count > 1}
        drifted |= {one for one in running if phases.get(one) is Phase.STOPPED}
        if observation.complete:
            drifted |= {one for one, phase in phases.items() if phase in _NEEDS_SERVER and not counts[one]}
        if not drifted & phases.keys():
            return
        async with self._store.begin(write=True) as tx:
            for desktop_id in sorted(drifted & phases.keys()):
                await tx.desktops.wake(desktop_id, self._clock.now())

    async def _clean(self, servers: tuple[Server, ...], homes: tuple[DesktopId, ...], removed: frozenset[DesktopId]) -> None:
        old = self._clock.now() - self._rules.sweep_min_age
        left = [server for server in servers if server.desktop_id in removed and server.created_at <= old]
        with_server = {server.desktop_id for server in servers}
        homeless = [home for home in homes if home in removed and home not in with_server]
        for server in left[: self._rules.sweep_most]:
            await self._remove(server.desktop_id, "server", server)
        for home in homeless[: self._rules.sweep_most]:
            await self._remove(home, "home", None)

    async def _remove(self, desktop_id: DesktopId, what: str, server: Server | None) -> None:
        try:
            await (self._cloud.delete_server(server.id) if server else self._cloud.delete_home(desktop_id))
        except CloudError as error:
            log.warning("sweep.put_off", desktop=desktop_id, what=what, cause=error.message)
            return
        log.warning("sweep.removed", desktop=desktop_id, what=what)
        event = NewEvent(EventKind.SWEEPER_REMOVED, desktop_id=desktop_id, data={"what": what})
        async with self._store.begin(write=True) as tx:
            await tx.events.add(self._clock.now(), event)

    async def _record_alarms(self, unknown: frozenset[DesktopId]) -> None:
        for desktop_id in sorted(unknown - self._alarmed):
            self._alarmed.add(desktop_id)
            log.error("sweep.unknown", desktop=desktop_id)
            async with self._store.begin(write=True) as tx:
                await tx.events.add(self._clock.now(), NewEvent(EventKind.SWEEPER_ALARM, desktop_id=desktop_id))
