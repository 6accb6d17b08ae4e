"""Why a desktop is where it is, why not elsewhere, and when it could run: the newest decision about it, as kept.

Whoever may see the desktop gets hosts and reasons. Who has the cards of a host is told to operators only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from beamdesk.app.context import App
from beamdesk.app.desktops import get_desktop
from beamdesk.app.fleet import Holder, see_fleet
from beamdesk.app.logins import Caller
from beamdesk.domain.desktop import Desired, Desktop, Phase, QueuePlace, Reason
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.placement import Placement, StoredDecision
from beamdesk.scheduling.decision import Decision, Ranked
from beamdesk.scheduling.filters import REASONS
from beamdesk.scheduling.wire import read_decision

_DECIMALS = 9


class Outcome(StrEnum):
    """What came of the desktop's request."""

    PLACED = "placed"
    WAITING = "waiting"
    NEVER = "never"
    STOPPED = "stopped"
    PENDING = "pending"
    """Nothing was decided yet."""
    ELSEWHERE = "elsewhere"
    """The cloud decides by itself, and we do not know why."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """``ranking``: the best hosts, chosen first; ``refused``: host -> reason, where single hosts are known; ``counts``: over all.

    ``holders`` are told to operators only. ``behind``: it would have fitted, but others came first.
    """

    desktop: Desktop
    outcome: Outcome
    placement: Placement | None = None
    policy: str = ""
    decided_at: datetime | None = None
    possible: int = 0
    ranking: tuple[Ranked, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()
    refused: Mapping[str, str] | None = None
    impossible: str = ""
    behind: bool = False
    queue: QueuePlace | None = None
    holders: tuple[tuple[str, str, Holder], ...] = ()


async def explain(app: App, caller: Caller, desktop_id: DesktopId) -> Explanation:
    """Explain the newest decision about a desktop.

    Raises:
        NotFound: it does not exist or the caller may not see it.
    """
    desktop = (await get_desktop(app, caller, desktop_id)).desktop
    if app.hosts is None:
        return Explanation(desktop, Outcome.ELSEWHERE)
    async with app.store.begin() as tx:
        placement = await tx.placing.placement(desktop_id)
        stored = await tx.placing.decisions(desktop_id, 1)
    outcome = _outcome(desktop, placement)
    if not stored:
        return Explanation(desktop, Outcome.PENDING if outcome is Outcome.WAITING else outcome, placement, queue=desktop.queue)
    newest, decision = stored[0], read_decision(stored[0].document)
    return Explanation(
        desktop,
        outcome,
        placement,
        decision.policy,
        newest.at,
        decision.possible,
        tuple(map(_shown, decision.ranking)),
        decision.refusals,
        _refused(newest, decision),
        decision.impossible or "",
        newest.behind,
        desktop.queue,
        await _holders(app, caller),
    )


def _shown(ranked: Ranked) -> Ranked:
    """Return a host's points for people: a total and a term that differ in their last bit only are one number."""
    terms = tuple((term, round(value, _DECIMALS)) for term, value in ranked.contributions)
    return replace(ranked, total=round(ranked.total, _DECIMALS), contributions=terms)


def _outcome(desktop: Desktop, placement: Placement | None) -> Outcome:
    if placement is not None:
        return Outcome.PLACED
    if desktop.reason is Reason.NEVER_FITS:
        return Outcome.NEVER
    if desktop.phase is Phase.QUEUED and desktop.desired is Desired.RUNNING:
        return Outcome.WAITING
    return Outcome.STOPPED


def _refused(stored: StoredDecision, decision: Decision) -> dict[str, str]:
    """Return the reasons against single hosts; the host that was taken has none, whatever was before the line was walked."""
    return {host: why for host, why in stored.verdicts.items() if why and host != decision.host}


async def _holders(app: App, caller: Caller) -> tuple[tuple[str, str, Holder], ...]:
    if not caller.person.is_operator:
        return ()
    hosts = await see_fleet(app, caller)
    return tuple((host.name, card.address, card.holder) for host in hosts for card in host.cards if card.holder is not None)


def words_of(reason: str) -> str:
    """Return what a reason says."""
    return REASONS.get(reason, reason)
