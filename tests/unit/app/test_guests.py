"""Guest agents: one identity for one nonce, bounded writes, nothing believed that is not about their own desktop."""

from dataclasses import replace
from datetime import timedelta

import anyio
import pytest

from apikit import STREAM_SECRET, a_desktop, clock_of, events_of, make_ready, put_guest, running_app
from beamdesk.adapters.demo.people import BOB
from beamdesk.adapters.demo.people import IMAGING as IMAGING_EXPERIMENT
from beamdesk.app import guests
from beamdesk.domain.errors import Forbidden, Invalid, NotSignedIn, TooManyRequests
from beamdesk.domain.guest import Guest
from beamdesk.domain.storage import GuestSite, StorageArea
from beamdesk.protocol.guest import HEARTBEAT_S, Activity, Mount, Report, Step, StepName, StepState

pytestmark = pytest.mark.anyio
NONCE = "canary-nonce-0d9e1a"
JPEG, PNG = b"\xff\xd8\xff\xe0" + b"j" * 100, b"\x89PNG\r\n\x1a\n" + b"p" * 100


@pytest.fixture
async def desktop_id(app):
    view = await a_desktop(app, name="Sandstone")
    await put_guest(app, view.desktop.id, NONCE)
    return view.desktop.id


def said(*done, failure="", idle=1.0, cpu=0.5, detail=""):
    """Return a report with these steps done, the next one running."""
    rest = [name for name in StepName if name not in done]
    steps = [Step(name, StepState.DONE) for name in StepName if name in done]
    steps += [Step(rest[0], StepState.RUNNING, detail)] if rest else []
    return Report(tuple(steps), Activity(idle, cpu), failure)


async def the_guest(app, desktop_id):
    async with app.store.begin() as tx:
        return await tx.guests.get(desktop_id)


async def test_a_nonce_buys_the_identity_of_its_desktop(app, desktop_id):
    identity = await guests.enrol(app, NONCE)
    assert identity.desktop_id == desktop_id
    assert identity.title == "Sandstone"
    assert (identity.account.login, identity.account.uid, identity.account.gid) == ("ada", 20101, 20101)
    assert [(group.name, group.gid) for group in identity.account.groups] == [("exp-heps-2026-0147", 30147)]
    mounts = {mount.target: (mount.kind, mount.writable) for mount in identity.mounts}
    assert mounts == {"/data/heps-2026-0147/raw": ("bind", False), "/data/heps-2026-0147/processed": ("bind", True)}
    assert (identity.stream.listen, identity.stream.secret) == ("unix:/run/beamdesk/stream/stream.sock", STREAM_SECRET)
    assert identity.language == "zh"
    assert (await events_of(app, "guest.enrolled"))[0].desktop_id == desktop_id


async def test_in_a_cloud_the_identity_describes_the_sites_storage(app, desktop_id):
    areas = (
        StorageArea("raw", "nfs4", "nfs.example:/exp/${folder}/raw"),
        StorageArea("processed", "ceph", "10.0.0.1:/${folder}", "name=x", "K"),
    )
    cloud = replace(app, guest_site=GuestSite("tcp:0.0.0.0:8082", areas, home_volume=True))
    identity = await guests.enrol(cloud, NONCE)
    assert identity.stream.listen == "tcp:0.0.0.0:8082"
    assert identity.mounts == (
        Mount("disk", "auto", "/home/ada", writable=True),
        Mount("nfs4", "nfs.example:/exp/heps-2026-0147/raw", "/data/heps-2026-0147/raw", writable=False),
        Mount("ceph", "10.0.0.1:/heps-2026-0147", "/data/heps-2026-0147/processed", True, "name=x", "K"),
    )


@pytest.mark.parametrize("nonce", ["", "wrong", NONCE + "x", NONCE[:-1], "\u0000"])
async def test_a_wrong_nonce_is_refused_and_recorded(app, desktop_id, nonce):
    with pytest.raises(Forbidden):
        await guests.enrol(app, nonce)
    assert len(await events_of(app, "guest.refused")) == 1
    assert await guests.enrol(app, NONCE)


async def test_a_nonce_works_once_even_when_raced(app, desktop_id):
    results = []

    async def one():
        try:
            await guests.enrol(app, NONCE)
            results.append("enrolled")
        except Forbidden:
            results.append("refused")

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(one)
    assert sorted(results) == ["enrolled"] + ["refused"] * 7
    assert len(await events_of(app, "guest.refused")) == 7


async def test_an_expired_nonce_is_refused(app, desktop_id):
    clock_of(app).tick(601)
    with pytest.raises(Forbidden):
        await guests.enrol(app, NONCE)


async def test_a_desktop_whose_owner_left_the_team_cannot_enrol(app, desktop_id):
    async with app.store.begin(write=True) as tx:
        await tx.people.put_experiment(replace(IMAGING_EXPERIMENT, team=frozenset({BOB.id})))
    with pytest.raises(Forbidden):
        await guests.enrol(app, NONCE)


async def test_guessing_nonces_is_slowed_down(app):
    with pytest.raises(TooManyRequests):  # noqa: PT012
        for number in range(100):
            with pytest.raises(Forbidden):
                await guests.enrol(app, f"guess {number}")


async def test_an_identity_is_worthless_after_the_guest_was_replaced(app, desktop_id):
    identity = await guests.enrol(app, NONCE)
    await put_guest(app, desktop_id, "next nonce")
    with pytest.raises(NotSignedIn):
        await guests.report(app, identity.token, said())
    with pytest.raises(NotSignedIn):
        await guests.put_thumbnail(app, identity.token, JPEG)


@pytest.mark.parametrize("token", ["", "invented", NONCE])
async def test_without_an_identity_nothing_is_taken(app, desktop_id, token):
    with pytest.raises(NotSignedIn):
        await guests.report(app, token, said())
    with pytest.raises(NotSignedIn):
        await guests.put_thumbnail(app, token, JPEG)


async def test_a_step_is_written_told_and_hinted_at_once(tmp_path):
    hints = []
    async with running_app(tmp_path, hint=lambda: hints.append(1)) as app:
        view = await a_desktop(app)
        await put_guest(app, view.desktop.id, NONCE)
        identity = await guests.enrol(app, NONCE)
        hints.clear()
        await guests.report(app, identity.token, said(StepName.ENROL))
        guest = await the_guest(app, view.desktop.id)
        assert [str(step.state) for step in guest.steps] == ["done", "running"]
        told = [(event.data["step"], event.data["state"]) for event in await events_of(app, "desktop.step")]
        assert told == [("enrol", "done"), ("account", "running")]
        assert hints
        async with app.store.begin(write=True) as tx:
            assert await tx.desktops.claim(token="t", now=app.clock.now(), until=app.clock.now() + timedelta(minutes=1), limit=9)


async def test_a_heartbeat_is_written_once_a_period_however_often_it_comes(app, desktop_id):
    identity = await guests.enrol(app, NONCE)
    await guests.report(app, identity.token, said(StepName.ENROL))
    writes = _CountingWrites(app.store)
    counted = replace(app, store=writes)
    for _ in range(200):
        clock_of(app).tick(0.2)
        await guests.report(counted, identity.token, said(StepName.ENROL))
    assert 15 <= writes.count <= 27


async def test_a_regular_heartbeat_is_never_older_than_one_period_in_the_store(app, desktop_id):
    identity = await guests.enrol(app, NONCE)
    for number in range(5):
        clock_of(app).tick(HEARTBEAT_S)
        await guests.report(app, identity.token, said(StepName.ENROL, idle=float(number)))
        guest = await the_guest(app, desktop_id)
        assert (guest.seen_at, guest.input_idle_s) == (app.clock.now(), float(number))


async def test_a_guest_that_floods_is_told_to_slow_down(app, desktop_id):
    identity = await guests.enrol(app, NONCE)
    with pytest.raises(TooManyRequests):  # noqa: PT012
        for number in range(200):
            await guests.report(app, identity.token, said(StepName.ENROL, detail=f"flip {number}"))
    assert len(await events_of(app, "desktop.step")) < 130


async def test_details_become_one_clean_line(app, desktop_id):
    identity = await guests.enrol(app, NONCE)
    nasty = "disk \x1b[31mfull\r\n<script>\u202eabc\u0000" + "x" * 2000
    await guests.report(app, identity.token, said(StepName.ENROL, detail=nasty, failure=nasty))
    guest = await the_guest(app, desktop_id)
    for text in (guest.steps[1].detail, guest.failure):
        assert text.startswith("disk [31mfull <script>abcxxx")
        assert len(text) <= 500


async def test_a_failure_is_told_once(app, desktop_id):
    identity = await guests.enrol(app, NONCE)
    for _ in range(3):
        clock_of(app).tick(5)
        await guests.report(app, identity.token, said(StepName.ENROL, failure="no display"))
    told = [event.data for event in await events_of(app, "desktop.step") if event.data["state"] == "failed"]
    assert told == [{"step": "", "state": "failed", "detail": "no display"}]


async def test_a_step_named_twice_is_refused(app, desktop_id):
    identity = await guests.enrol(app, NONCE)
    twice = Report((Step(StepName.ENROL, StepState.DONE),) * 2, Activity(0.0, 0.0))
    with pytest.raises(Invalid):
        await guests.report(app, identity.token, twice)


@pytest.mark.parametrize(("sent", "kept"), [(-5.0, 0.0), (float("inf"), 0.0), (float("nan"), 0.0), (7.0, 1.0)])
async def test_activity_is_bounded(app, desktop_id, sent, kept):
    identity = await guests.enrol(app, NONCE)
    await guests.report(app, identity.token, said(StepName.ENROL, idle=sent, cpu=sent))
    assert (await the_guest(app, desktop_id)).cpu == kept


@pytest.mark.parametrize(
    ("cpu", "gpu", "works"),
    [(0.0, 0.04, False), (0.0, 0.05, True), (0.0, None, True), (0.12, 0.0, True), (0.09, 0.0, False), (0.13, 7.0, True)],
)
async def test_a_computation_of_cpu_or_gpu_is_remembered_as_use(app, cpu, gpu, works):
    view = await a_desktop(app, flavor="gpu.small")
    await put_guest(app, view.desktop.id, NONCE)
    identity = await guests.enrol(app, NONCE)
    clock_of(app).tick(30)
    began = app.clock.now()
    await guests.report(app, identity.token, Report((), Activity(9999.0, cpu, gpu)))
    clock_of(app).tick(30)
    await guests.report(app, identity.token, Report((), Activity(9999.0, 0.0, 0.0)))
    assert (await the_guest(app, view.desktop.id)).worked_at == (began if works else None)


async def test_a_lease_warning_is_handed_over_once(app, desktop_id):
    identity = await guests.enrol(app, NONCE)
    await make_ready(app, desktop_id)
    clock_of(app).tick(10)
    assert (await guests.report(app, identity.token, said(*StepName))).messages == ()
    await _warn(app, desktop_id)
    clock_of(app).tick(5)
    (message,) = (await guests.report(app, identity.token, said(*StepName))).messages
    assert "stops in 480 min" in message
    clock_of(app).tick(5)
    assert (await guests.report(app, identity.token, said(*StepName))).messages == ()


async def _warn(app, desktop_id):
    clock_of(app).tick(1)
    now = app.clock.now()
    async with app.store.begin(write=True) as tx:
        await tx.desktops.wake(desktop_id, now)
        (claimed,) = await tx.desktops.claim(token="w", now=now, until=now + timedelta(minutes=1), limit=1)
        from beamdesk.ports.store import Outcome

        names = [name for name in Outcome.__dataclass_fields__ if hasattr(claimed.desktop, name)]
        outcome = Outcome(**{name: getattr(claimed.desktop, name) for name in names})
        assert await tx.desktops.apply(claimed, replace(outcome, lease_warned_at=now), now)


@pytest.mark.parametrize(("image", "kind"), [(JPEG, "image/jpeg"), (PNG, "image/png")])
async def test_a_thumbnail_is_kept_as_what_its_bytes_say(app, desktop_id, image, kind):
    identity = await guests.enrol(app, NONCE)
    await guests.put_thumbnail(app, identity.token, image)
    async with app.store.begin() as tx:
        assert (await tx.guests.thumbnail(desktop_id))[:2] == (kind, image)


@pytest.mark.parametrize("image", [b"", b"<svg onload=alert(1)>", b"GIF89a" + b"x" * 50, b"\xff\xd8\xff" + b"x" * 65536])
async def test_what_is_no_small_jpeg_or_png_is_refused(app, desktop_id, image):
    identity = await guests.enrol(app, NONCE)
    with pytest.raises(Invalid):
        await guests.put_thumbnail(app, identity.token, image)


async def test_thumbnails_come_at_a_bounded_rate(app, desktop_id):
    identity = await guests.enrol(app, NONCE)
    with pytest.raises(TooManyRequests):  # noqa: PT012
        for _ in range(5):
            await guests.put_thumbnail(app, identity.token, JPEG)


async def test_group_names_are_posix_names():
    experiment = replace(IMAGING_EXPERIMENT, id="HEPS 2026/0147:ümlaut-and-a-long-tail")
    assert guests.group_name(experiment) == "exp-heps-2026-0147--mlaut-and-a-"
    assert len(guests.group_name(experiment)) == 32


async def test_secrets_stay_out_of_events(app, desktop_id):
    identity = await guests.enrol(app, NONCE)
    with pytest.raises(Forbidden):
        await guests.enrol(app, NONCE)
    told = repr(await events_of(app))
    for secret in (NONCE, identity.token, STREAM_SECRET):
        assert secret not in told
    assert STREAM_SECRET not in repr(await the_guest(app, desktop_id))
    assert isinstance(await the_guest(app, desktop_id), Guest)


class _CountingWrites:
    """A store that counts its write transactions."""

    def __init__(self, store):
        self._store = store
        self.count = 0

    def begin(self, *, write=False):
        self.count += write
        return self._store.begin(write=write)
