"""From the driver of a card to whether its desktop is stopped: probe, meter, guest API, store and reconciler are the real ones."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest

from apikit import CAPACITY, a_desktop, clock_of, events_of, guest_client, running_app
from beamdesk.adapters.fake.cloud import FakeCloud, FakeTimes
from beamdesk.app.context import App
from beamdesk.domain.desktop import Desired, Desktop, Phase, Reason
from beamdesk.domain.events import EventKind
from beamdesk.guest.gpu import GpuMeter
from beamdesk.ports.cloud import Capacity
from beamdesk.protocol.codec import decode
from beamdesk.protocol.guest import ENROL_PATH, REPORT_PATH, Activity, Identity, Report, Step, StepName, StepState
from beamdesk.reconcile.rules import ReconcileRules
from beamdesk.reconcile.worker import Worker

pytestmark = pytest.mark.anyio
DONE = tuple(Step(name, StepState.DONE) for name in StepName)
RULES = ReconcileRules()
PROBE = """
import sys
from pathlib import Path
from beamdesk.guest import gpu_probe
from nvidiadriver import Card, Driver
busy, dev = Path(sys.argv[1]) / "busy", Path(sys.argv[1]) / "dev"
card = Card()
class Now(Driver):
    def _use(self, handle, out):
        self.cards["0"].gpu_percent = int(said) if (said := busy.read_text()) != "hidden" else None
        self.cards["0"].processes = self.cards["0"].gpu_percent is None
        return super()._use(handle, out)
gpu_probe.PERIOD_S = 0.02
gpu_probe.run(gpu_probe.Look(lambda: Now({"0": card}), dev=dev, sys=dev))
"""


class Place:
    """A desktop on a fake cloud whose clock is the test's, with a card whose driver says what ``busy`` says."""

    def __init__(self, app: App, folder: Path) -> None:
        self.app, self.busy = app, folder / "busy"
        (folder / "dev").mkdir()
        (folder / "dev/nvidia0").touch()
        self.cloud = FakeCloud(
            app.clock, capacity=Capacity(CAPACITY.vcpus, CAPACITY.memory_mib, CAPACITY.disk_gib, 1), times=FakeTimes(0, 0, 0)
        )
        self.worker = Worker(app.store, self.cloud, app.clock, app.secrets, RULES)
        command = [sys.executable, "-c", PROBE, str(folder)]
        environment = {"PYTHONPATH": f"{Path(__file__).parents[2]}"}
        self.meter = GpuMeter(
            lambda output: subprocess.Popen(command, stdout=output, env=environment), lambda: True, time.monotonic, print
        )

    async def begin(self) -> None:
        """Bring a desktop up; nobody touches it from then on."""
        self.id = (await a_desktop(self.app, flavor="gpu.small")).desktop.id
        while not (servers := self.cloud.world.state.servers):  # type: ignore[attr-defined]
            await self.look()
        async with guest_client(self.app) as client:
            answer = await client.post(ENROL_PATH, json={"nonce": next(iter(servers.values())).nonce})
        self.token, self.began = decode(Identity, answer.content).token, self.app.clock.now()
        while (await self.desktop()).phase is not Phase.READY:
            await self.report(Activity(0.0, 0.0, 0.0))
            await self.look()

    async def desktop(self) -> Desktop:
        async with self.app.store.begin() as tx:
            found = await tx.desktops.get(self.id)
        assert found
        return found

    async def look(self) -> None:
        """Let the reconciler do a pass over everything."""
        clock_of(self.app).tick(1)
        async with self.app.store.begin(write=True) as tx:
            await tx.desktops.wake(self.id, self.app.clock.now())
        for claimed in await self.worker.claim(1):
            await self.worker.process(claimed)

    async def report(self, activity: Activity) -> None:
        async with guest_client(self.app) as client:
            headers = {"Authorization": f"Bearer {self.token}"}
            answer = await client.post(REPORT_PATH, json=asdict(Report(DONE, activity)), headers=headers)
        assert answer.status_code == 200, answer.text

    def share(self, percent: int | None) -> float | None:
        """Return what the meter says of a card that is so busy; None: in use, without saying how much."""
        self.busy.write_text("hidden" if percent is None else str(percent))
        wanted = None if percent is None else percent / 100
        end = time.monotonic() + 20
        while (share := self.meter.share()) != wanted or not self.meter._heard_at:
            assert time.monotonic() < end, share
            time.sleep(0.01)
        return share

    async def pass_time(self, hours: float, percent: int | None) -> None:
        """Let time pass with the card so busy, nobody at the screen, a heartbeat and a look of the reconciler now and then."""
        share, until = self.share(percent), self.app.clock.now() + timedelta(hours=hours)
        while self.app.clock.now() < until and (await self.desktop()).desired is Desired.RUNNING:
            clock_of(self.app).tick(179)
            await self.report(Activity((self.app.clock.now() - self.began).total_seconds(), 0.001, share))
            await self.look()


@pytest.fixture
async def place(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Place]:
    async with running_app(tmp_path) as app:
        one = Place(app, tmp_path)
        await one.begin()
        yield one
        one.meter.close()
        assert one.meter._probe is None or one.meter._probe.wait(10) is not None


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def warnings(place: Place) -> int:
    return len(await events_of(place.app, EventKind.IDLE_WARNING))


@pytest.mark.parametrize("percent", [97, 5, None])
async def test_a_computation_that_needs_only_the_card_is_kept(place: Place, percent: int | None) -> None:
    await place.pass_time(RULES.lease.idle_after / timedelta(hours=1) + 1, percent)
    assert (await place.desktop()).desired is Desired.RUNNING
    assert await warnings(place) == 0


async def test_a_desktop_whose_card_rests_is_warned_and_stopped(place: Place) -> None:
    await place.pass_time(1.8, 0)
    assert await warnings(place) == 1
    assert (await place.desktop()).desired is Desired.RUNNING, "not before its time"
    await place.pass_time(0.3, 0)
    desktop = await place.desktop()
    assert (desktop.desired, desktop.desired_reason) == (Desired.STOPPED, Reason.IDLE)


async def test_a_computation_after_the_warning_keeps_it(place: Place) -> None:
    await place.pass_time(1.8, 0)
    await place.pass_time(0.1, 40)
    await place.pass_time(1.5, 0)
    assert (await place.desktop()).desired is Desired.RUNNING
    await place.pass_time(0.6, 0)
    assert (await place.desktop()).desired is Desired.STOPPED
    assert await warnings(place) == 2
