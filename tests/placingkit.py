"""Hosts with cards for the fake cloud, and reconcilers that choose among them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from beamdesk.adapters.fake.cloud import FakeCloud
from beamdesk.adapters.fake.guest import FakeGuests
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.catalog import Flavor, Resources
from beamdesk.domain.desktop import Desktop
from beamdesk.domain.ids import DesktopId, FlavorId
from beamdesk.domain.srm import SrmRules
from beamdesk.domain.text import Text
from beamdesk.ports.clock import Clock, Secrets
from beamdesk.reconcile.placing import Placer
from beamdesk.reconcile.rules import ReconcileRules
from beamdesk.reconcile.worker import Worker
from beamdesk.scheduling.cards import Card, CardMode, CardState
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.snapshot import Snapshot
from beamdesk.scheduling.wire import Published, write_snapshot

GPU = Resources(2, 4096, 10, 1)
CPU = Resources(2, 4096, 10, 0)


def card(number: int, state: CardState = CardState.FREE, mode: CardMode = CardMode.PASSTHROUGH) -> Card:
    return Card(f"0000:{number:02x}:00.0", "A10", 24576, 9216, 600, 1695, state=state, mode=mode)


def gpu_host(name: str, cards: int = 2, *, vcpus: int = 16, bad: CardState | None = None) -> HostFacts:
    """Return a host with cards; the last one in state ``bad``."""
    own = tuple(card(number, bad if bad is not None and number == cards - 1 else CardState.FREE) for number in range(cards))
    return HostFacts(name, 1000 * vcpus, 65536, 500, own)


def cpu_host(name: str, vcpus: int = 8) -> HostFacts:
    return HostFacts(name, 1000 * vcpus, 32768, 500)


def write_hosts(path: Path, *hosts: HostFacts) -> None:
    """Write the file from which the fake cloud of a deployment reads its hosts."""
    path.write_text(write_snapshot(Published(Snapshot(tuple(sorted(hosts, key=lambda host: host.name)), (), ()), 0.0)))


class Site:
    """A fake cloud with hosts and one worker that places desktops on them."""

    def __init__(self, store: SqlStore, clock: Clock, secrets: Secrets, *hosts: HostFacts) -> None:
        self.places, self.store, self.clock = list(hosts), store, clock
        self.cloud = FakeCloud(clock, places=lambda: tuple(self.places))
        self.guests = FakeGuests(store, self.cloud.world, clock, secrets, step_s=0.01)
        self.placer = Placer(self.cloud.hosts, self._flavors, SrmRules())
        self.worker = Worker(store, self.cloud, clock, secrets, ReconcileRules(), self.placer)

    async def _flavors(self) -> tuple[Flavor, ...]:
        return (
            Flavor(FlavorId("cpu"), Text("CPU", "CPU"), CPU),
            Flavor(FlavorId("gpu"), Text("GPU", "GPU"), GPU),
        )

    async def passes(self, rounds: int = 12) -> None:
        """Let everything that is due be done, round after round, as time goes by."""
        for _ in range(rounds):
            for claimed in await self.worker.claim(50):
                await self.worker.process(claimed)
            await self.guests.tick()
            self.clock.advance(1)  # type: ignore[attr-defined]  # the tests' clock

    async def desktop(self, name: str) -> Desktop:
        async with self.store.begin() as tx:
            found = await tx.desktops.get(DesktopId(name))
        assert found is not None
        return found

    async def where(self, name: str) -> tuple[str, tuple[str, ...]] | None:
        async with self.store.begin() as tx:
            found = await tx.placing.placement(DesktopId(name))
        return None if found is None else (found.host, found.cards)

    async def end_lease(self, name: str, seconds: float = 0) -> None:
        now = self.clock.now()
        async with self.store.begin(write=True) as tx:
            await tx.desktops.change_intent(DesktopId(name), now=now, lease_ends_at=now + timedelta(seconds=seconds))
