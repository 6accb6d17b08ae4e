"""Who may do what. Deny by default: an action that no rule names is refused.

Rules (owner = applied for it; member = in the experiment's team; local contact = beamline scientist of the experiment's beamline):

=========  =====  ======  =============  ========
action     owner  member  local contact  operator
=========  =====  ======  =============  ========
see        yes    yes     yes            yes
connect    yes    view    no (consent)   no (consent)
stop       yes    no      no             yes
start      yes    no      no             no
extend     yes    no      no             yes
rename     yes    no      no             no
rebuild    yes    no      no             no
resize     yes    no      no             no
delete     yes    no      no             yes
=========  =====  ======  =============  ========

Whoever leaves the team loses everything at once, the owner included (an owner outside the team may still delete).
Data of an experiment are for its team only, operators included in the refusal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desktop
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.person import Person, Role
from beamdesk.domain.session import ViewerRole


class Action(StrEnum):
    """What can be asked of a desktop."""

    SEE = "see"
    CONNECT = "connect"
    STOP = "stop"
    START = "start"
    EXTEND = "extend"
    RENAME = "rename"
    REBUILD = "rebuild"
    RESIZE = "resize"
    DELETE = "delete"


_OWNER = frozenset(Action)
_OWNER_OUTSIDE_TEAM = frozenset({Action.SEE, Action.DELETE})
_MEMBER = frozenset({Action.SEE, Action.CONNECT})
_LOCAL_CONTACT = frozenset({Action.SEE})
_OPERATOR = frozenset({Action.SEE, Action.STOP, Action.EXTEND, Action.DELETE})


def allowed_actions(person: Person, desktop: Desktop, experiment: Experiment) -> frozenset[Action]:
    """Return everything that ``person`` may do with ``desktop``; empty = must not even learn that it exists."""
    member = experiment.has_member(person.id)
    actions: frozenset[Action] = frozenset()
    if desktop.owner == person.id:
        actions |= _OWNER if member else _OWNER_OUTSIDE_TEAM
    if member:
        actions |= _MEMBER
    if person.role is Role.BEAMLINE_SCIENTIST and experiment.beamline in person.beamlines:
        actions |= _LOCAL_CONTACT
    if person.is_operator:
        actions |= _OPERATOR
    return actions


def viewer_role(person: Person, desktop: Desktop, experiment: Experiment) -> ViewerRole | None:
    """Return the role in which ``person`` may attach to ``desktop``, or None."""
    if Action.CONNECT not in allowed_actions(person, desktop, experiment):
        return None
    return ViewerRole.CONTROLLER if desktop.owner == person.id else ViewerRole.VIEWER


def may_apply(person: Person, experiment: Experiment) -> bool:
    """Tell whether ``person`` may have a desktop for ``experiment``."""
    return experiment.has_member(person.id)


def may_see_team(person: Person, experiment: Experiment) -> bool:
    """Tell whether ``person`` may learn who is in the team of ``experiment``."""
    local_contact = person.role is Role.BEAMLINE_SCIENTIST and experiment.beamline in person.beamlines
    return experiment.has_member(person.id) or local_contact or person.is_operator


def may_book(person: Person, experiment: Experiment) -> bool:
    """Tell whether ``person`` may book cards and desktops for ``experiment``: its local contacts and operators."""
    local_contact = person.role is Role.BEAMLINE_SCIENTIST and experiment.beamline in person.beamlines
    return local_contact or person.is_operator


def may_read_data(person: Person, experiment: Experiment) -> bool:
    """Tell whether ``person`` may read the data of ``experiment``."""
    return experiment.has_member(person.id)


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit: number of desktops (any phase) and resources of those that are wanted running."""

    desktops: int
    resources: Resources


@dataclass(frozen=True, slots=True)
class Usage:
    """What counts against a quota now."""

    desktops: int
    resources: Resources


def over_quota(quota: Quota, usage: Usage, wanted: Resources, *, new_desktops: int = 1) -> tuple[str, ...]:
    """Name what would exceed the quota: ``desktops`` and resource names; empty = within."""
    over = quota.resources.lacks_for(usage.resources + wanted)
    if usage.desktops + new_desktops > quota.desktops:
        over = ("desktops", *over)
    return over
