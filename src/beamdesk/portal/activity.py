"""Activity: what happened, in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from starlette.responses import Response

from beamdesk.app import desktops
from beamdesk.app.events import list_events
from beamdesk.domain.events import Event, EventKind
from beamdesk.domain.ids import DesktopId, EventId, PersonId
from beamdesk.portal.i18n import Words
from beamdesk.portal.live import newest_event
from beamdesk.portal.say import Say, remark
from beamdesk.portal.site import Visit, render

PAGE = 60
_NOISE = frozenset({EventKind.DESKTOP_STEP, EventKind.GUEST_ENROLLED, EventKind.TICKET_ISSUED})
_TONES = {
    EventKind.REFUSED: "failed",
    EventKind.SIGN_IN_REFUSED: "failed",
    EventKind.TICKET_REFUSED: "failed",
    EventKind.GUEST_REFUSED: "failed",
    EventKind.SWEEPER_ALARM: "failed",
    EventKind.LEASE_WARNING: "waiting",
    EventKind.IDLE_WARNING: "waiting",
    EventKind.DESKTOP_CREATED: "ready",
    EventKind.SESSION_OPENED: "ready",
    EventKind.DESKTOP_DELETED: "leaving",
}
_EXPLAINED = {"queued", "repairing", "stopped", "failed"}
_PLAIN_REASONS = {"", "user"}
_PHASE_TONES = {"ready": "ready", "failed": "failed", "queued": "waiting", "stopped": "stopped"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the history. ``desktop_id`` is set only where the desktop can still be opened."""

    at: datetime
    day: str
    text: str
    detail: str
    tone: str
    icon: str
    desktop_id: DesktopId | None
    desktop_name: str


@dataclass(frozen=True, slots=True)
class Names:
    """Names of the people and desktops that a page of events mentions, and who reads it."""

    people: Mapping[PersonId, str]
    desktops: Mapping[DesktopId, str]
    existing: frozenset[DesktopId]
    me: PersonId


async def show(visit: Visit) -> Response:
    """Show the events that the person may see, newest first."""
    wanted, before = visit.query("desktop"), visit.query("before")
    position = await newest_event(visit.app)
    start = EventId(int(before)) if before.isascii() and before.isdigit() and len(before) < 19 else None
    events = await list_events(
        visit.app, visit.caller, desktop_id=DesktopId(wanted) if wanted else None, before=start, limit=PAGE + 1
    )
    own = await desktops.list_desktops(visit.app, visit.caller, limit=100)
    shown = await entries(visit, events[:PAGE])
    template = "activity_list.html" if visit.partial else "activity.html"
    return render(
        visit,
        template,
        nav="activity",
        entries=shown,
        choices=[(view.desktop.id, view.desktop.name) for view in own.items],
        wanted=wanted,
        before=before,
        older=events[PAGE - 1].id if len(events) > PAGE else None,
        position=position,
    )


async def entries(visit: Visit, events: Iterable[Event]) -> list[Entry]:
    """Return events as sentences."""
    events = tuple(events)
    names = await _names(visit, events)
    return [_entry(visit.say, event, names) for event in events if _tells_something(event)]


async def _names(visit: Visit, events: tuple[Event, ...]) -> Names:
    told = {event.desktop_id: str(event.data["name"]) for event in reversed(events) if event.desktop_id and event.data.get("name")}
    people: dict[PersonId, str] = {}
    existing: set[DesktopId] = set()
    async with visit.app.store.begin() as tx:
        for actor in {event.actor for event in events if event.actor}:
            found = await tx.people.person(actor)
            people[actor] = found.full_name if found else actor
        for desktop_id in {event.desktop_id for event in events if event.desktop_id}:
            desktop = await tx.desktops.get(desktop_id)
            if desktop is not None:
                existing.add(desktop_id)
                told[desktop_id] = desktop.name
    return Names(people, told, frozenset(existing), visit.caller.person.id)


def _tells_something(event: Event) -> bool:
    """Tell whether a person wants to read this: progress has its own page, of steps only failures and remarks are history."""
    state = event.data.get("state")
    return event.kind not in _NOISE or state == "failed" or (state == "done" and bool(event.data.get("detail")))


def _entry(say: Say, event: Event, names: Names) -> Entry:
    words = say.words
    name = names.desktops.get(event.desktop_id, words("activity.a_desktop")) if event.desktop_id else ""
    key = _key(words, event)
    values = {
        "who": _who(words, event, names),
        "desktop": name,
        "experiment": event.experiment or "",
        "state": _state(words, event),
        "path": event.data.get("path", ""),
        "member": event.data.get("member", ""),
    }
    values["what"] = _what(words, event, values)
    phase = str(event.data.get("phase", ""))
    return Entry(
        at=event.at,
        day=say.day(event.at),
        text=words(key, **values),
        detail=_detail(words, event),
        tone=_PHASE_TONES.get(phase, "busy") if event.kind is EventKind.DESKTOP_PHASE else _TONES.get(event.kind, "stopped"),
        icon=key.split(".")[1],
        desktop_id=event.desktop_id if event.desktop_id in names.existing else None,
        desktop_name=name,
    )


def _who(words: Words, event: Event, names: Names) -> str:
    if event.actor is None:
        return words("activity.nobody") if event.kind in {EventKind.SIGN_IN_REFUSED, EventKind.TICKET_REFUSED} else "Beamdesk"
    return words("activity.you") if event.actor == names.me else names.people[event.actor]


def _key(words: Words, event: Event) -> str:
    kind = event.kind.value.replace(".", "_")
    for suffix in (event.data.get("phase"), event.data.get("desired"), event.data.get("state")):
        if suffix and words.has(f"event.{kind}_{suffix}"):
            return f"event.{kind}_{suffix}"
    return f"event.{kind}"


def _what(words: Words, event: Event, values: Mapping[str, object]) -> str:
    action = str(event.data.get("action", ""))
    return words(f"refused.{action}" if words.has(f"refused.{action}") else "refused.other", **values)


def _state(words: Words, event: Event) -> str:
    phase = str(event.data.get("phase", ""))
    return words.entries.get(f"state.{phase}", phase)


def _detail(words: Words, event: Event) -> str:
    reason = str(event.data.get("reason", ""))
    if event.kind is EventKind.DESKTOP_PHASE and event.data.get("phase") not in _EXPLAINED:
        return ""
    if reason not in _PLAIN_REASONS and words.has(f"reason.{reason}"):
        return words(f"reason.{reason}")
    code = str(event.data.get("code", ""))
    if code and words.has(f"error.{code}"):
        return words(f"error.{code}")
    detail = str(event.data.get("detail", "") or "")[:300]
    return remark(words, detail) if event.data.get("state") == "done" else detail
