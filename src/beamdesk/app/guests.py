"""Use cases of the guest agents: exchange the nonce for an identity, report, hand in a thumbnail.

The caller is a machine that its user may control completely: everything it says is bounded in size and rate, cleaned, and
believed about this one desktop only. A heartbeat that brings nothing new costs one read; its time and activity are written at most
every `SEEN_EVERY`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import datetime, timedelta

from beamdesk.app.audit import audited
from beamdesk.app.context import App
from beamdesk.app.limits import RateLimit
from beamdesk.domain.desktop import Desktop
from beamdesk.domain.errors import Forbidden, Invalid, NotSignedIn, TooManyRequests
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.guest import Guest
from beamdesk.domain.person import Person
from beamdesk.domain.secrets import hash_secret
from beamdesk.domain.storage import GuestSite
from beamdesk.domain.use import works
from beamdesk.ports.store import Transaction
from beamdesk.protocol.guest import (
    HEARTBEAT_S,
    MAX_THUMBNAIL_BYTES,
    NO_CARD_WORKS,
    Account,
    Group,
    Identity,
    Report,
    ReportReply,
    Step,
    Stream,
)

SEEN_EVERY = timedelta(seconds=0.75 * HEARTBEAT_S)
"""Seen and activity are written at most this often, however often an agent reports.

Regular heartbeats all pass: skipping every second one would leave an agent that is merely late one heartbeat from being taken for
dead, and its desktop restarted.
"""
MAX_DETAIL = 500

_MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}


async def enrol(app: App, nonce: str, *, address: str = "local") -> Identity:
    """Spend a one-time nonce for the identity of the desktop it was made for.

    Raises:
        Forbidden: unknown, spent or expired, or the desktop's owner left; the text never says which. Audited.
        TooManyRequests: too many attempts from this ``address``.
    """
    _limit(app.limits.enrolment, address, app.clock.now())
    now, token = app.clock.now(), app.secrets.token()
    async with audited(app, "enrol", kind=EventKind.GUEST_REFUSED), app.store.begin(write=True) as tx:
        guest = await tx.guests.spend_nonce(hash_secret(nonce), hash_secret(token), now)
        if guest is None:
            raise Forbidden("This nonce is unknown, spent or expired.")
        desktop, owner, experiment = await _who(tx, guest)
        event = NewEvent(EventKind.GUEST_ENROLLED, None, desktop.id, owner.id, experiment.id)
        await tx.events.add(now, event)
        await tx.desktops.wake(desktop.id, now)
    app.hint()
    return _identity(app.guest_site, desktop, owner, experiment, guest, token)


async def _who(tx: Transaction, guest: Guest) -> tuple[Desktop, Person, Experiment]:
    desktop = await tx.desktops.get(guest.desktop_id)
    owner = await tx.people.person(desktop.owner) if desktop else None
    experiment = await tx.people.experiment(desktop.experiment) if desktop else None
    if desktop is None or owner is None or experiment is None or not experiment.has_member(owner.id):
        raise Forbidden("This nonce is unknown, spent or expired.")
    return desktop, owner, experiment


def _identity(site: GuestSite, desktop: Desktop, owner: Person, experiment: Experiment, guest: Guest, token: str) -> Identity:
    group = Group(group_name(experiment), experiment.gid)
    return Identity(
        desktop_id=desktop.id,
        token=token,
        title=desktop.name,
        account=Account(owner.login, owner.uid, owner.uid, owner.full_name, (group,), f"/home/{owner.login}"),
        mounts=site.mounts(experiment, owner),
        stream=Stream(site.stream_listen, guest.stream_secret),
        language=owner.language,
    )


def group_name(experiment: Experiment) -> str:
    """Return the POSIX group name of an experiment inside desktops: `exp-` and its id, at most 32 characters of [a-z0-9_-]."""
    return f"exp-{re.sub(r'[^a-z0-9_-]', '-', experiment.id.lower())}"[:32]


async def report(app: App, token: str, said: Report) -> ReportReply:
    """Record what a guest says, at once when a step changed, otherwise at most every `SEEN_EVERY`.

    Raises:
        NotSignedIn: no guest has this identity (any more). Invalid: a step twice. TooManyRequests: far over the heartbeat's rate.
    """
    now, steps, failure = app.clock.now(), clean_steps(said.steps), clean_line(said.failure)
    async with app.store.begin() as tx:
        guest = await _by_token(tx, token)
    _limit(app.limits.guest_report, guest.desktop_id, now)
    news = steps != guest.steps or failure != guest.failure
    if not news and guest.seen_at is not None and now - guest.seen_at < SEEN_EVERY:
        return ReportReply()
    if news:
        _limit(app.limits.guest_step, guest.desktop_id, now)
    cpu, gpu = _bounded(said.activity.cpu, 1.0), _gpu(said.activity.gpu)
    async with app.store.begin(write=True) as tx:
        guest = await _by_token(tx, token)
        desktop = await tx.desktops.get(guest.desktop_id)
        await tx.guests.report(
            guest.desktop_id,
            now=now,
            steps=steps,
            failure=failure,
            input_idle_s=_bounded(said.activity.input_idle_s, 10.0**9),
            cpu=cpu,
            gpu=gpu,
            worked=desktop is not None and bool(works(app.rules.lease, cpu=cpu, gpu=gpu, vcpus=desktop.resources.vcpus)),
        )
        if news and desktop is not None:
            await tx.events.add(now, *_step_events(desktop, guest, steps, failure))
            await tx.desktops.wake(desktop.id, now)
    if news:
        app.hint()
    return ReportReply(_messages(desktop, guest, now) if desktop else ())


async def _by_token(tx: Transaction, token: str) -> Guest:
    guest = await tx.guests.by_token(hash_secret(token))
    if guest is None:
        raise NotSignedIn("This identity is unknown or was replaced.")
    return guest


def _step_events(desktop: Desktop, guest: Guest, steps: tuple[Step, ...], failure: str) -> tuple[NewEvent, ...]:
    """Tell of every step that changed, and of a failure that no step carries."""
    before = {step.name: step for step in guest.steps}
    changed = [step for step in steps if before.get(step.name) != step]
    datas = [{"step": str(step.name), "state": str(step.state), "detail": step.detail} for step in changed]
    if failure and failure != guest.failure:
        datas.append({"step": "", "state": "failed", "detail": failure})
    return tuple(
        NewEvent(EventKind.DESKTOP_STEP, None, desktop.id, desktop.owner, desktop.experiment, dict(data)) for data in datas
    )


def _messages(desktop: Desktop, guest: Guest, now: datetime) -> tuple[str, ...]:
    """Return the warnings that came since the guest was last seen, so that each is shown once."""
    since = guest.seen_at or guest.enrolled_at or now
    messages = []
    if desktop.lease_warned_at is not None and since < desktop.lease_warned_at:
        left = max(1, math.ceil((desktop.lease_ends_at - now).total_seconds() / 60))
        messages.append(
            f"This desktop stops in {left} min. Extend it in the bar above or in the portal. Files in your home are kept."
        )
    if desktop.idle_warned_at is not None and since < desktop.idle_warned_at:
        messages.append(
            "This desktop looks unused and will be stopped soon. Move the mouse to keep it. Files in your home are kept."
        )
    return tuple(messages)


async def put_thumbnail(app: App, token: str, image: bytes) -> None:
    """Keep a picture of the screen; its type is read from its first bytes, never from what the guest says.

    Raises:
        NotSignedIn: no guest has this identity. Invalid: too large, or neither JPEG nor PNG. TooManyRequests.
    """
    now = app.clock.now()
    if len(image) > MAX_THUMBNAIL_BYTES:
        raise Invalid(f"A thumbnail has at most {MAX_THUMBNAIL_BYTES} bytes.")
    kind = next((kind for magic, kind in _MAGIC.items() if image.startswith(magic)), None)
    if kind is None:
        raise Invalid("A thumbnail is a JPEG or PNG image.")
    async with app.store.begin() as tx:
        guest = await _by_token(tx, token)
    _limit(app.limits.guest_thumbnail, guest.desktop_id, now)
    async with app.store.begin(write=True) as tx:
        guest = await _by_token(tx, token)
        await tx.guests.put_thumbnail(guest.desktop_id, kind, image, now)


def _limit(limit: RateLimit, key: str, now: datetime) -> None:
    wait_s = limit.take(key, now)
    if wait_s:
        raise TooManyRequests("Too many messages. Slow down.", retry_after_s=math.ceil(wait_s))


def clean_steps(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return the steps with their details made safe to show.

    Raises:
        Invalid: a step is named twice.
    """
    if len({step.name for step in steps}) != len(steps):
        raise Invalid("A step is named twice.", field="steps")
    return tuple(Step(step.name, step.state, clean_line(step.detail)) for step in steps)


def clean_line(text: str) -> str:
    """Return one line of at most 500 printable characters: no control, direction-changing or invisible ones."""
    text = "".join(" " if character.isspace() else character for character in text[: 4 * MAX_DETAIL])
    text = "".join(character for character in text if unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn"})
    return " ".join(text.split())[:MAX_DETAIL]


def _gpu(value: float | None) -> float | None:
    if value is None:
        return None
    return NO_CARD_WORKS if value < 0 else _bounded(value, 1.0)


def _bounded(value: float, most: float) -> float:
    return min(max(value, 0.0), most) if math.isfinite(value) else 0.0
