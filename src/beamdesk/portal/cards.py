"""A desktop as a reader sees it: state, tone, reason, advice and what can be done now. Pure: from a view to words, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from beamdesk.app.views import DesktopView
from beamdesk.domain.desktop import Desired, Desktop, Phase, Reason
from beamdesk.domain.ids import PersonId
from beamdesk.domain.policy import Action
from beamdesk.domain.progress import ProgressStep
from beamdesk.portal.say import Say, remark
from beamdesk.portal.use import UseShown, shown_use

_TONES = {
    Phase.QUEUED: "waiting",
    Phase.BUILDING: "busy",
    Phase.BOOTING: "busy",
    Phase.READY: "ready",
    Phase.REPAIRING: "busy",
    Phase.STOPPING: "busy",
    Phase.STOPPED: "stopped",
    Phase.DELETING: "leaving",
    Phase.FAILED: "failed",
}
_QUIET_REASONS = {Reason.NONE, Reason.USER}
_TELLS_CAUSE = {Phase.REPAIRING, Phase.READY}
"""On the way up the step that is being taken shows the cause."""
_NO_CLOCK = {Phase.QUEUED, Phase.FAILED, Phase.STOPPED}
"""Waiting in line does not use up the time; failed and stopped desktops have none."""
_CRITICAL = timedelta(minutes=5)
_SOON = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """How long a running desktop still has. ``level``: `calm`, `soon` or `critical`, said in words too, never by colour alone."""

    ends_at: datetime
    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """The place in the line of a waiting desktop."""

    place: str
    lacking: str
    expected_at: datetime | None


@dataclass(frozen=True, slots=True)
class Card:
    """Everything that templates show of one desktop."""

    view: DesktopView
    state_key: str
    state: str
    tone: str
    reason: str
    detail: str
    advice: str
    line: Line | None
    time_left: TimeLeft | None
    can: frozenset[Action]
    watches_only: bool
    shared_by: str
    art: int
    shows_screen: bool
    use: UseShown | None
    remarks: tuple[str, ...]

    @property
    def desktop(self) -> Desktop:
        """Return the desktop."""
        return self.view.desktop

    @property
    def steps(self) -> tuple[ProgressStep, ...]:
        """Return the steps from application to pixels."""
        return self.view.steps

    @property
    def on_its_way(self) -> bool:
        """Tell whether the progress list is what the reader wants to see."""
        return self.desktop.desired is Desired.RUNNING and self.desktop.phase not in {Phase.READY, Phase.STOPPED}

    @property
    def trouble(self) -> bool:
        """Tell whether something is not as it should be while the desktop is up or on its way, and nobody has to act."""
        wanted = self.desktop.desired is Desired.RUNNING and self.desktop.phase not in {Phase.STOPPED, Phase.STOPPING, Phase.FAILED}
        return wanted and bool(self.reason) and self.line is None


def make_card(view: DesktopView, me: PersonId, say: Say) -> Card:
    """Return what ``me`` sees of a desktop."""
    desktop = view.desktop
    key = _state_key(desktop)
    reason = desktop.reason if desktop.reason is not Reason.NONE else _intent_reason(desktop)
    failed = desktop.phase is Phase.FAILED
    mine = desktop.owner == me
    return Card(
        view=view,
        state_key=key,
        state=say.words(f"state.{key}"),
        tone="leaving"
        if desktop.desired is Desired.DELETED
        else "busy"
        if key in {"stopping", "starting"}
        else _TONES[desktop.phase],
        reason="" if reason in _QUIET_REASONS else say.words(f"reason.{reason}"),
        detail=desktop.detail if failed or desktop.phase in _TELLS_CAUSE else "",
        advice=_advice(reason, say) if failed and Action.START in view.actions else "",
        line=_line(desktop, say),
        time_left=_time_left(desktop, say),
        can=_possible(view),
        watches_only=not mine and Action.CONNECT in view.actions,
        shared_by="" if mine else view.owner.full_name,
        art=sum(desktop.id.encode()) % 6,
        shows_screen=desktop.phase is Phase.READY and desktop.desired is Desired.RUNNING and Action.CONNECT in view.actions,
        use=shown_use(view, say),
        remarks=_remarks(view, say) if mine or Action.CONNECT not in view.actions else (),
    )


def _remarks(view: DesktopView, say: Say) -> tuple[str, ...]:
    """Return what the agent of a ready desktop remarks: for its owner and operators, not for who looks over a shoulder."""
    ready = view.desktop.phase is Phase.READY and view.desktop.desired is Desired.RUNNING
    return tuple(text for step in view.steps if step.detail and (text := remark(say.words, step.detail))) if ready else ()


def _intent_reason(desktop: Desktop) -> Reason:
    return desktop.desired_reason if desktop.desired is Desired.STOPPED else Reason.NONE


def _advice(reason: Reason, say: Say) -> str:
    return say.words(f"advice.{reason}" if say.words.has(f"advice.{reason}") else "advice.general")


def _state_key(desktop: Desktop) -> str:
    if desktop.desired is Desired.DELETED:
        return "deleting"
    if desktop.desired is Desired.STOPPED and desktop.phase not in {Phase.STOPPED, Phase.FAILED}:
        return "stopping"
    if desktop.desired is Desired.RUNNING and desktop.phase in {Phase.STOPPED, Phase.STOPPING}:
        return "starting"
    return str(desktop.phase)


def _line(desktop: Desktop, say: Say) -> Line | None:
    if desktop.phase is not Phase.QUEUED or desktop.queue is None or desktop.desired is not Desired.RUNNING:
        return None
    queue = desktop.queue
    place = say.words("line.next") if queue.place <= 1 else say.words("line.place", n=queue.place)
    return Line(place, say.lacking(queue.lacking), queue.expected_at)


def _time_left(desktop: Desktop, say: Say) -> TimeLeft | None:
    if desktop.desired is not Desired.RUNNING or desktop.phase in _NO_CLOCK:
        return None
    left = desktop.lease_ends_at - say.now
    level = "critical" if left <= _CRITICAL else "soon" if left <= _SOON else "calm"
    return TimeLeft(desktop.lease_ends_at, level, say.left(desktop.lease_ends_at))


def _possible(view: DesktopView) -> frozenset[Action]:
    """Return the permitted actions that make sense in the present state."""
    desktop = view.desktop
    if desktop.desired is Desired.DELETED:
        return frozenset({Action.SEE})
    wanted, failed = desktop.desired is Desired.RUNNING, desktop.phase is Phase.FAILED
    sensible = {
        Action.SEE: True,
        Action.CONNECT: wanted and desktop.phase is Phase.READY,
        Action.STOP: wanted and (not failed or desktop.admitted),
        Action.START: not wanted or failed,
        Action.EXTEND: wanted and not failed and view.can_extend,
        Action.RENAME: True,
        Action.REBUILD: desktop.phase in (Phase.STOPPED, Phase.FAILED),
        Action.RESIZE: desktop.resizable,
        Action.DELETE: True,
    }
    return frozenset(action for action in view.actions if sensible[action])
