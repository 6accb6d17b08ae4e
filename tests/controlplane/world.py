"""Desktops on a real OpenStack, with the real reconciler and driver: what the fault tests and the scale bench act on.

Simulated are the computers only: :class:`Guests` speaks for the agents in servers that Nova says run.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

from keystoneauth1.exceptions import ClientException

from beamdesk.adapters.openstack.config import Firewall, GuestApi, Homes, OpenStackConfig, PciAlias, Place
from beamdesk.adapters.openstack.driver import OpenStackCloud
from beamdesk.adapters.openstack.names import GIVEN_UP_KEY, NONCE_KEY, Names
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.adapters.system import SystemClock, SystemSecrets
from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desired, Desktop, Phase, Shape
from beamdesk.domain.events import Event
from beamdesk.domain.ids import DesktopId, FlavorId
from beamdesk.domain.secrets import hash_secret
from beamdesk.pace import reconcile_rules
from beamdesk.protocol.guest import Step, StepName, StepState
from beamdesk.reconcile.main import Hint, run
from beamdesk.reconcile.rules import ReconcileRules
from beamdesk.settings import Settings
from engine_kit import EXPERIMENT, add_people, make_desktop

from .clouds import BEAMDESK
from .content import IMAGE
from .plane import ControlPlane

PATIENCE_S = 120
"""How long anything may take before it counts as stuck; nothing is expected to take as long."""
FLAVORS = {"small": "desk-small", "gpu": "desk-a100", "too-big": "desk-too-big"}
_USUAL = reconcile_rules(Settings(cloud="openstack"))
_TIMES = replace(
    _USUAL.timings,
    silent=timedelta(seconds=9),
    cut_off=timedelta(seconds=25),
    room=timedelta(seconds=10),
    build_timeout=timedelta(minutes=2),
    stuck=timedelta(seconds=20),
)
_SOON = timedelta(seconds=2)
RULES = replace(_USUAL, timings=_TIMES, sweep=_SOON, sweep_min_age=_SOON, sweep_homes=5 * _SOON)
"""Production's rules in a cloud. Shorter are only pauses that would make the tests longer; none of them is about telling people."""
PROMISE_S = 10.0
_STEPS = tuple(Step(name, StepState.DONE) for name in StepName)

truths: list[tuple[str, float]] = []
"""What the tests of this session waited to be told: reason, seconds."""


class Guests:
    """The agents of all servers of one deployment: each enrols with the nonce that Nova holds for it, and reports while Nova says ACTIVE."""

    def __init__(self, world: World, period_s: float = 0.5) -> None:
        self._world = world
        self._period_s = period_s
        self._spent: dict[str, str] = {}
        self.silent: set[DesktopId] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Live until ``stop``."""
        machines: list[dict[str, Any]] = []
        while not stop.is_set():
            with contextlib.suppress(ConnectionError):  # machines live on while nobody can ask Nova which there are
                machines = await asyncio.to_thread(self._world.nova_records)
            for record in machines:
                if record["status"] == "ACTIVE":
                    await self._live(record)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._period_s)

    async def _live(self, record: dict[str, Any]) -> None:
        desktop_id = DesktopId(record["metadata"]["beamdesk_desktop"])
        nonce = nonce_of(record)
        if desktop_id in self.silent:
            return
        now = self._world.clock.now()
        async with self._world.store.begin(write=True) as tx:
            if self._spent.get(record["id"]) != nonce:
                if await tx.guests.spend_nonce(hash_secret(nonce), hash_secret(nonce + record["id"]), now) is None:
                    return
                self._spent[record["id"]] = nonce
                await tx.desktops.wake(desktop_id, now)
            await tx.guests.report(desktop_id, now=now, steps=_STEPS, failure="", input_idle_s=0, cpu=0, gpu=0)


def nonce_of(record: dict[str, Any]) -> str:
    """Return the nonce that the machine would find: fresh in metadata, else in its user-data."""
    if fresh := record["metadata"].get(NONCE_KEY):
        return str(fresh)
    text = base64.b64decode(record["OS-EXT-SRV-ATTR:user_data"]).decode().partition("\n")[2]
    return next(str(file["content"]) for file in json.loads(text)["write_files"] if file["path"].endswith("/nonce"))


@dataclass
class Leftovers:
    """What is in the project of this deployment. ``given_up``: homes that Cinder never finished, by desktop like all the others."""

    servers: dict[str, list[str]] = field(default_factory=dict)
    ports: dict[str, list[str]] = field(default_factory=dict)
    volumes: dict[str, list[str]] = field(default_factory=dict)
    given_up: dict[str, list[str]] = field(default_factory=dict)


class World:
    """One deployment on the control plane: a store, any number of reconcilers, guests."""

    def __init__(self, plane: ControlPlane, config: OpenStackConfig, store: SqlStore, url: str, image: str, network: str) -> None:
        self.plane = plane
        self.config = config
        self.store = store
        self.url = url
        self.image = image
        self.network = network
        self.clock = SystemClock()
        self.deployment = uuid.uuid4().hex
        self.names = Names(self.deployment)
        self.admin = plane.connect("admin")
        self.guests = Guests(self)
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._project = self._project_id()

    def _project_id(self) -> str:
        with self.plane.connect(BEAMDESK) as own:
            return str(own.current_project_id)

    def start(self, reconcilers: int = 1, rules: ReconcileRules = RULES) -> None:
        """Start reconcilers, each with its own connections, and the guests."""
        self._tasks += [asyncio.create_task(self._reconcile(rules)) for _ in range(reconcilers)]
        self._tasks.append(asyncio.create_task(self.guests.run(self._stop)))

    async def _reconcile(self, rules: ReconcileRules) -> None:
        store = await SqlStore.open(self.url)
        cloud = OpenStackCloud(self.config, self.deployment)
        try:
            await run(store, cloud, self.clock, SystemSecrets(), rules, self._stop, hint=Hint())
        finally:
            await cloud.close()
            await store.close()

    async def close(self) -> None:
        """Stop everything of this deployment that runs here."""
        self._stop.set()
        await asyncio.gather(*self._tasks)
        await asyncio.to_thread(self.admin.close)

    async def add(self, count: int = 1, *, flavor: str = "small", image: str | None = None) -> list[DesktopId]:
        """Write the intents of new desktops."""
        return await self.add_sizes([flavor] * count, image=image)

    async def add_sizes(self, flavors: Sequence[str], *, image: str | None = None) -> list[DesktopId]:
        """Write the intents of new desktops at once; their turn comes in this order."""
        image_ref, resources, now = image or self.image, Resources(1, 2048, 10, 0), self.clock.now()
        made = [
            make_desktop(
                SystemSecrets().id(),
                now + number * timedelta(microseconds=1),
                image_ref=image_ref,
                flavor=flavor,
                resources=resources,
            )
            for number, flavor in enumerate(flavors)
        ]
        async with self.store.begin(write=True) as tx:
            for desktop in made:
                await tx.desktops.insert(desktop)
        return [desktop.id for desktop in made]

    async def want(self, desktop_id: DesktopId, desired: Desired) -> None:
        """Write an intent."""
        now = self.clock.now()
        async with self.store.begin(write=True) as tx:
            if await tx.desktops.get(desktop_id):
                lease = now + timedelta(hours=8) if desired is Desired.RUNNING else None
                await tx.desktops.change_intent(desktop_id, now=now, desired=desired, lease_ends_at=lease)

    async def remake(self, desktop_id: DesktopId, flavor: str) -> None:
        """Ask for a server made anew in a size."""
        desktop = await self.now(desktop_id)
        shape = Shape(desktop.image_ref, FlavorId(flavor), desktop.resources, desktop.words)
        async with self.store.begin(write=True) as tx:
            await tx.desktops.change_intent(desktop_id, now=self.clock.now(), shape=shape)

    async def get(self, desktop_id: DesktopId) -> Desktop | None:
        """Return the row."""
        async with self.store.begin() as tx:
            return await tx.desktops.get(desktop_id)

    async def reach(
        self, desktop_id: DesktopId, enough: Callable[[Desktop], bool] | Phase, within_s: float = PATIENCE_S
    ) -> Desktop:
        """Wait until the row is so."""
        wanted = enough if callable(enough) and not isinstance(enough, Phase) else lambda row: row.phase is enough
        row: Desktop | None = None
        async for _ in patience(within_s=within_s):
            row = await self.get(desktop_id)
            if row is not None and wanted(row):
                return row
        raise AssertionError(f"{desktop_id} is stuck: {row}")

    async def ready(self, *desktop_ids: DesktopId, within_s: float = PATIENCE_S) -> list[Desktop]:
        """Wait until all of them can be used."""
        return [await self.reach(one, Phase.READY, within_s) for one in desktop_ids]

    async def events(self, desktop_id: DesktopId) -> list[Event]:
        """Return what was told about a desktop, oldest first."""
        async with self.store.begin() as tx:
            found = await tx.events.page(limit=10_000, newest_first=False)
        return [event for event in found if event.desktop_id == desktop_id]

    async def told(self, desktop_id: DesktopId, since: float, *reasons: str) -> None:
        """Wait until an event of the desktop names one of the reasons, at most `PROMISE_S` after ``since`` (wall clock); note it in `truths`."""
        async for _ in patience():
            for event in await self.events(desktop_id):
                if (reason := str(event.data.get("reason"))) in reasons and event.at.timestamp() >= since - 0.5:
                    took = event.at.timestamp() - since
                    truths.append((reason, took))
                    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
                    assert took <= PROMISE_S, f"{reason} was told after {took:.1f} s, not {PROMISE_S:.0f} s ({load})"
                    return
        raise AssertionError(f"nobody tells of {reasons}: {[dict(event.data) for event in await self.events(desktop_id)]}")

    @asynccontextmanager
    async def without(self, *services: str) -> AsyncIterator[None]:
        """Have services of the cloud stopped for a while; guests and reconcilers live on meanwhile."""
        await asyncio.to_thread(self.plane.stop, *services)
        try:
            yield
        finally:
            self.plane.spawn(*services)
            await asyncio.to_thread(self.plane.wait, *services)

    async def now(self, desktop_id: DesktopId) -> Desktop:
        """Return the row of a desktop that is there."""
        row = await self.get(desktop_id)
        assert row is not None
        return row

    async def host_of(self, desktop_id: DesktopId) -> str:
        """Return the host of a desktop's server."""
        records = await asyncio.to_thread(self.nova_records)
        (host,) = {one["OS-EXT-SRV-ATTR:host"] for one in records if one["metadata"]["beamdesk_desktop"] == desktop_id}
        return str(host)

    async def delete_all(self, within_s: float = PATIENCE_S) -> None:
        """Want every desktop deleted, and wait for it."""
        async with self.store.begin() as tx:
            rows = await tx.desktops.page(limit=10_000)
        for row in rows:
            await self.want(row.id, Desired.DELETED)
        left = {row.id for row in rows}
        async for _ in patience(within_s=within_s):
            async with self.store.begin() as tx:
                left &= await tx.desktops.known_ids()
            if not left:
                return
        raise AssertionError(f"not deleted: {[await self.get(one) for one in sorted(left)[:3]]}")

    def nova_records(self) -> list[dict[str, Any]]:
        """Return Nova's records of this deployment's servers."""
        query = f"/servers/detail?all_tenants=1&limit=1000&project_id={self._project}&tags={self.names.tag}"
        try:
            answer = self.admin.compute.get(query, microversion="2.79")
        except ClientException as error:
            raise ConnectionError(type(error).__name__) from error
        if answer.status_code != 200:
            raise ConnectionError(answer.status_code)
        return list(answer.json()["servers"])

    def left(self) -> Leftovers:
        """Return what carries this deployment's marks: desktop to resources."""
        found = Leftovers()
        for record in self.nova_records():
            found.servers.setdefault(record["metadata"]["beamdesk_desktop"], []).append(record["id"])
        for port in self.admin.network.ports(description=self.names.description):
            found.ports.setdefault(port.name.removeprefix("beamdesk-"), []).append(port.id)
        for volume in self.admin.block_storage.volumes(all_projects=True) if self.plane.options.volumes else ():
            if volume.metadata.get("beamdesk_deployment") == self.deployment:
                kind = found.given_up if GIVEN_UP_KEY in volume.metadata else found.volumes
                kind.setdefault(volume.metadata["beamdesk_desktop"], []).append(volume.id)
        return found

    async def nothing_left(self) -> None:
        """Delete everything as people do, and see that the cloud has nothing of this deployment any more."""
        await self.delete_all()
        found = await asyncio.to_thread(self.left)
        for volume in chain.from_iterable(found.given_up.values()):  # an operator ends their *creating*, the sweeper does the rest
            await asyncio.to_thread(self.admin.block_storage.reset_volume_status, volume, "error")
        async for _ in patience():  # Nova deletes in the background what it has accepted to delete
            found = await asyncio.to_thread(self.left)
            if not (found.servers or found.ports or found.volumes or found.given_up):
                return
        raise AssertionError(f"leaked: {found}")

    async def one_of_each(self, *desktop_ids: DesktopId) -> None:
        """See that each of these has one server, one port, one home, and nobody else has anything."""
        wanted = {str(one) for one in desktop_ids}
        found = Leftovers()
        async for _ in patience():
            found = await asyncio.to_thread(self.left)
            kinds = (found.servers, found.ports, found.volumes)
            if all(kind.keys() == wanted and all(len(ids) == 1 for ids in kind.values()) for kind in kinds):
                return
        raise AssertionError(f"not one of each for {wanted}: {found}")


async def patience(period_s: float = 0.1, within_s: float = PATIENCE_S) -> AsyncIterator[float]:
    """Yield now and then, until patience ends."""
    begun = time.monotonic()
    while time.monotonic() - begun < within_s:
        yield time.monotonic() - begun
        await asyncio.sleep(period_s)


def settings(clouds_yaml: Path, network: str) -> OpenStackConfig:
    """Return a driver's settings for one network."""
    return OpenStackConfig(
        places=(Place("main", BEAMDESK, network),),
        guest=GuestApi("https://beamdesk.example"),
        clouds_yaml=clouds_yaml,
        flavors=FLAVORS,
        firewall=Firewall(gateways=("10.9.0.1/32",)),
        homes=Homes(enabled=True, gib=1),
        timeout_s=6,
        pci_aliases={"a100": PciAlias("CUSTOM_GPU", ("CUSTOM_GPU_MODEL_A100",))},
    )


@asynccontextmanager
async def open_world(plane: ControlPlane, clouds_yaml: Path, folder: Path, **changes: Any) -> AsyncIterator[World]:
    """Open a deployment with a network of its own; its network and security groups go with it. ``changes``: of the driver's settings."""
    with plane.connect(BEAMDESK) as cloud:
        network = cloud.network.create_network(name=f"faults-{uuid.uuid4().hex[:8]}")
        cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.62.0.0/16", is_dhcp_enabled=False)
        image = cloud.image.find_image(IMAGE, ignore_missing=False).id
    url = f"sqlite+aiosqlite:///{folder}/beamdesk.sqlite"
    store = await SqlStore.open(url)
    await add_people(store)
    world = World(plane, replace(settings(clouds_yaml, network.id), **changes), store, url, image, network.id)
    try:
        yield world
    finally:
        await world.close()
        await store.close()
        await asyncio.to_thread(_clean, plane, world)


def _clean(plane: ControlPlane, world: World) -> None:
    """Remove what a failed test left, and the network."""
    with plane.connect("admin") as cloud:
        for record in cloud.compute.get(f"/servers?all_tenants=1&tags={world.names.tag}", microversion="2.79").json()["servers"]:
            cloud.compute.delete_server(record["id"], force=False)
        for port in cloud.network.ports(network_id=world.network):
            cloud.network.delete_port(port, ignore_missing=True)
        cloud.network.delete_network(world.network, ignore_missing=True)
        for group in cloud.network.security_groups(description=world.names.description):
            cloud.network.delete_security_group(group, ignore_missing=True)


__all__ = ["EXPERIMENT", "RULES", "Guests", "Leftovers", "World", "nonce_of", "open_world", "patience", "settings", "truths"]
