"""Use cases on desktops: apply, look, stop, start, extend, rename, delete. Each commits an intent and calls no cloud."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from beamdesk.app.audit import audited
from beamdesk.app.choice import check_quota, choose, refuse_what_never_fits
from beamdesk.app.context import App
from beamdesk.app.logins import Caller
from beamdesk.app.promises import refuse_to_run_into_a_booking
from beamdesk.app.views import DesktopView, view_desktop, view_desktops
from beamdesk.domain.catalog import Flavor, Image
from beamdesk.domain.desktop import Desired, Desktop, Phase, Reason, Shape
from beamdesk.domain.errors import Conflict, Forbidden, Invalid, NotFound
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.ids import DesktopId, ExperimentId, FlavorId, ImageId
from beamdesk.domain.lease import can_extend, extended
from beamdesk.domain.person import Person, Role
from beamdesk.domain.policy import Action, allowed_actions, may_apply
from beamdesk.ports.store import Transaction
from beamdesk.scheduling.vocabulary import Words

Remake = Callable[[Desktop], Awaitable[Shape]]
"""Tells what the next server of a desktop is made of, or why it cannot be made anew."""
_KEY = re.compile(r"[\x21-\x7e]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class NewDesktop:
    """An application. An empty name gets a sensible one."""

    experiment: ExperimentId
    image: ImageId
    flavor: FlavorId
    name: str = ""


@dataclass(frozen=True, slots=True)
class DesktopPage:
    """A page of views; ``next`` is the id to continue after, None at the end."""

    items: tuple[DesktopView, ...]
    next: DesktopId | None


async def apply(app: App, caller: Caller, wanted: NewDesktop, *, idempotency_key: str | None = None) -> DesktopView:
    """Apply for a desktop. With an idempotency key that was used before, the desktop of that time is returned.

    Raises:
        Invalid: unknown image or flavor, or a bad name. Forbidden: not in the team. QuotaExceeded. Conflict: the key was used
        for a different request.
    """
    if idempotency_key is not None and not _KEY.match(idempotency_key):
        raise Invalid("An idempotency key is 1 to 128 printable ASCII characters without spaces.", field="Idempotency-Key")
    person = caller.person
    async with audited(app, "apply", actor=person.id, experiment=wanted.experiment):
        if idempotency_key is not None:
            async with app.store.begin() as tx:
                earlier = await _earlier(app, tx, person, wanted, idempotency_key)
            if earlier is not None:  # before everything else: what was on offer or allowed then may not be now
                return earlier
        image, flavor, words = await choose(app, wanted.image, wanted.flavor)
        await refuse_what_never_fits(app, flavor, words)
        async with app.store.begin(write=True) as tx:
            await tx.desktops.lock_usage(person.id, wanted.experiment)
            experiment = await tx.people.experiment(wanted.experiment)
            if experiment is None or not may_apply(person, experiment):
                raise Forbidden(
                    "You are not in the team of this experiment. Choose one of yours, or ask its leader to add you.",
                    field="experiment",
                )
            if not image.fits_beamline(experiment.beamline):
                raise Invalid(f"This image is not made for beamline {experiment.beamline}. Choose another.", field="image")
            view = await _earlier(app, tx, person, wanted, idempotency_key) if idempotency_key else None
            if view is None:
                desktop = await _insert(app, tx, person, experiment, image, flavor, words, wanted, idempotency_key)
                view = await view_desktop(app, tx, person, desktop)
    app.hint()
    if view is None:
        raise NotFound("This desktop does not exist.")
    return view


async def _earlier(app: App, tx: Transaction, person: Person, wanted: NewDesktop, idempotency_key: str) -> DesktopView | None:
    """Return the desktop that this request made when it came first.

    Raises:
        Conflict: the key was used for a different request.
    """
    desktop = await tx.desktops.find_by_key(person.id, idempotency_key)
    if desktop is None:
        return None
    if (desktop.experiment, desktop.image, desktop.flavor) != (wanted.experiment, wanted.image, wanted.flavor):
        raise Conflict("This idempotency key was used for a different request. Use a new one.", field="Idempotency-Key")
    return await view_desktop(app, tx, person, desktop)


async def _insert(
    app: App,
    tx: Transaction,
    person: Person,
    experiment: Experiment,
    image: Image,
    flavor: Flavor,
    words: Words,
    wanted: NewDesktop,
    idempotency_key: str | None,
) -> Desktop:
    await check_quota(app, tx, person.id, experiment.id, flavor.resources, new_desktops=1)
    now = app.clock.now()
    desktop = Desktop(
        id=DesktopId(app.secrets.id()),
        name=clean_name(wanted.name) or f"{image.title.get(person.language)} · {experiment.proposal}",
        owner=person.id,
        experiment=experiment.id,
        image=image.id,
        image_ref=image.ref,
        flavor=flavor.id,
        resources=flavor.resources,
        desired=Desired.RUNNING,
        desired_reason=Reason.USER,
        generation=1,
        lease_ends_at=now + app.rules.lease.initial,
        phase=Phase.QUEUED,
        phase_since=now,
        reason=Reason.NONE,
        detail="",
        observed_generation=0,
        admitted=False,
        server_id=None,
        address=None,
        attempts=0,
        queued_at=now,
        queue=None,
        created_at=now,
        due_at=now,
        version=1,
        last_active_at=now,
        words=words,
    )
    fresh = desktop.id
    desktop = await tx.desktops.insert(desktop, idempotency_key=idempotency_key)
    if desktop.id != fresh:  # the same key won a race in another process: its desktop, and its event, are there already
        return desktop
    data = {"name": desktop.name, "image": image.id, "flavor": flavor.id}
    await tx.events.add(now, NewEvent(EventKind.DESKTOP_CREATED, person.id, desktop.id, person.id, experiment.id, data))
    return desktop


def clean_name(name: str) -> str:
    """Return a display name: normalised, one line, at most 60 characters.

    Raises:
        Invalid: too long, or it contains control characters.
    """
    name = " ".join(unicodedata.normalize("NFC", name).split())
    if len(name) > 60:
        raise Invalid("A name has at most 60 characters.", field="name")
    if any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co"} for character in name):
        raise Invalid("A name cannot contain invisible characters.", field="name")
    return name


async def list_desktops(app: App, caller: Caller, *, after: DesktopId | None = None, limit: int = 50) -> DesktopPage:
    """Return the desktops that the caller may see, newest first."""
    person = caller.person
    async with app.store.begin() as tx:
        experiments = await visible_experiments(tx, person)
        everything = person.is_operator
        rows = await tx.desktops.page(
            owner=None if everything else person.id,
            experiments=None if everything else tuple(experiment.id for experiment in experiments),
            after=after,
            limit=limit + 1,
        )
        views = await view_desktops(app, tx, person, rows[:limit])
    return DesktopPage(views, rows[limit - 1].id if len(rows) > limit else None)


async def visible_experiments(tx: Transaction, person: Person) -> tuple[Experiment, ...]:
    """Return the experiments whose desktops the person may see: own teams, and those of an own beamline."""
    mine = await tx.people.experiments_of(person.id)
    if person.role is not Role.BEAMLINE_SCIENTIST:
        return mine
    known = {experiment.id for experiment in mine}
    others = await tx.people.all_experiments()
    return mine + tuple(other for other in others if other.beamline in person.beamlines and other.id not in known)


async def get_desktop(app: App, caller: Caller, desktop_id: DesktopId) -> DesktopView:
    """Return one desktop.

    Raises:
        NotFound: it does not exist or the caller may not see it (recorded as a refusal either way: probing leaves a trace, and
            takes the same time).
    """
    async with audited(app, "see", actor=caller.person.id, desktop=desktop_id):
        async with app.store.begin() as tx:
            desktop = await tx.desktops.get(desktop_id)
            view = await view_desktop(app, tx, caller.person, desktop) if desktop else None
        if view is None:
            raise NotFound("There is no such desktop, or it is not shared with you.")
        return view


async def stop(app: App, caller: Caller, desktop_id: DesktopId, *, if_version: int | None = None) -> DesktopView:
    """Stop the desktop and keep its home. Stopping a stopped one is fine."""
    return await intend(app, caller, desktop_id, Action.STOP, Desired.STOPPED, if_version)


async def start(app: App, caller: Caller, desktop_id: DesktopId, *, if_version: int | None = None) -> DesktopView:
    """Start a stopped or failed desktop with a lease of at least the initial length. Starting a running one is fine."""
    return await intend(app, caller, desktop_id, Action.START, Desired.RUNNING, if_version)


async def delete(app: App, caller: Caller, desktop_id: DesktopId, *, if_version: int | None = None) -> DesktopView:
    """Delete the desktop and its home for good. Deleting twice is fine while it is under way."""
    return await intend(app, caller, desktop_id, Action.DELETE, Desired.DELETED, if_version)


async def intend(
    app: App,
    caller: Caller,
    desktop_id: DesktopId,
    action: Action,
    desired: Desired,
    if_version: int | None,
    remake: Remake | None = None,
) -> DesktopView:
    """Write down what is wanted of a desktop, and with ``remake`` that its next server is made anew."""
    person, now = caller.person, app.clock.now()
    async with audited(app, str(action), actor=person.id, desktop=desktop_id), app.store.begin(write=True) as tx:
        desktop, experiment = await permitted(tx, person, desktop_id, action)
        if desktop.desired is Desired.DELETED and desired is not Desired.DELETED:
            raise Conflict("This desktop is being deleted.")
        shape = await remake(desktop) if remake else None
        lease = None
        if desired is Desired.RUNNING:
            if desktop.desired is not Desired.RUNNING:
                await tx.desktops.lock_usage(desktop.owner, experiment.id)
                await check_quota(app, tx, desktop.owner, experiment.id, desktop.resources, new_desktops=0)
            lease = max(desktop.lease_ends_at, now + app.rules.lease.initial)
            if desktop.admitted:
                await refuse_to_run_into_a_booking(tx, desktop, lease, now)
        reason = Reason.USER if desktop.owner == person.id else Reason.OPERATOR
        desktop = await tx.desktops.change_intent(
            desktop_id, now=now, desired=desired, reason=reason, lease_ends_at=lease, shape=shape, expected_version=if_version
        )
        data = {"desired": str(desired), "name": desktop.name}
        kind = EventKind.DESKTOP_REBUILT if shape else EventKind.DESKTOP_INTENT
        await tx.events.add(now, NewEvent(kind, person.id, desktop_id, desktop.owner, experiment.id, data))
        if desired is not Desired.RUNNING:
            await tx.sessions.end_sessions(now, str(desired), desktop=desktop_id)
        view = await view_desktop(app, tx, person, desktop)
    app.hint()
    if view is None:
        raise NotFound("There is no such desktop, or it is not shared with you.")
    return view


async def permitted(tx: Transaction, person: Person, desktop_id: DesktopId, action: Action) -> tuple[Desktop, Experiment]:
    """Return a desktop of which ``person`` may ask ``action``.

    Raises:
        NotFound: it does not exist or the person may not even see it. Forbidden: the person may not do this.
    """
    desktop = await tx.desktops.get(desktop_id)
    experiment = await tx.people.experiment(desktop.experiment) if desktop else None
    actions = allowed_actions(person, desktop, experiment) if desktop and experiment else frozenset()
    if desktop is None or experiment is None or not actions:
        raise NotFound("There is no such desktop, or it is not shared with you.")
    if action not in actions:
        raise Forbidden(
            "Only its owner may do this." if action is not Action.STOP else "Only its owner or an operator may do this."
        )
    return desktop, experiment


async def extend(app: App, caller: Caller, desktop_id: DesktopId, *, if_version: int | None = None) -> DesktopView:
    """Extend the lease by one extension.

    Raises:
        Conflict: it already ends as late as the site allows, or it is being deleted.
    """
    person, now = caller.person, app.clock.now()
    async with audited(app, "extend", actor=person.id, desktop=desktop_id), app.store.begin(write=True) as tx:
        desktop, experiment = await permitted(tx, person, desktop_id, Action.EXTEND)
        ends_at = extended(app.rules.lease, desktop.lease_ends_at, now)
        if desktop.desired is Desired.DELETED:
            raise Conflict("This desktop is being deleted.")
        if not can_extend(app.rules.lease, desktop.lease_ends_at, now):
            raise Conflict("The lease already ends as late as this site allows. Extend it again nearer to its end.")
        await refuse_to_run_into_a_booking(tx, desktop, ends_at, now)
        desktop = await tx.desktops.change_intent(desktop_id, now=now, lease_ends_at=ends_at, expected_version=if_version)
        data = {"lease_ends_at": ends_at.isoformat()}
        await tx.events.add(now, NewEvent(EventKind.DESKTOP_EXTENDED, person.id, desktop_id, desktop.owner, experiment.id, data))
        view = await view_desktop(app, tx, person, desktop)
    app.hint()
    if view is None:
        raise NotFound("There is no such desktop, or it is not shared with you.")
    return view


async def rename(app: App, caller: Caller, desktop_id: DesktopId, name: str, *, if_version: int | None = None) -> DesktopView:
    """Give the desktop another name."""
    person, now, name = caller.person, app.clock.now(), clean_name(name)
    if not name:
        raise Invalid("Give the desktop a name.", field="name")
    async with audited(app, "rename", actor=person.id, desktop=desktop_id), app.store.begin(write=True) as tx:
        _, experiment = await permitted(tx, person, desktop_id, Action.RENAME)
        desktop = await tx.desktops.change_intent(desktop_id, now=now, name=name, expected_version=if_version)
        event = NewEvent(EventKind.DESKTOP_RENAMED, person.id, desktop_id, desktop.owner, experiment.id, {"name": name})
        await tx.events.add(now, event)
        view = await view_desktop(app, tx, person, desktop)
    if view is None:
        raise NotFound("There is no such desktop, or it is not shared with you.")
    return view
