"""What a reader is told of a desktop, and what can be done with it, in every state."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from beamdesk.app.views import DesktopView
from beamdesk.domain.desktop import Desired, Phase, QueuePlace, Reason
from beamdesk.domain.guest import Guest
from beamdesk.domain.ids import PersonId
from beamdesk.domain.policy import Action
from beamdesk.domain.progress import progress
from beamdesk.guest import encoder, storage
from beamdesk.portal.cards import Card, make_card
from beamdesk.portal.i18n import words_for
from beamdesk.portal.say import Say, remark
from beamdesk.protocol.guest import Step, StepName, StepState
from engine_kit import ADA, EXPERIMENT, T0, make_desktop

EVERYTHING = frozenset(Action)


def card_of(actions: frozenset[Action] = EVERYTHING, me: str = ADA.id, language: str = "en", now: Any = T0, **desktop: Any) -> Card:
    row = make_desktop(**desktop)
    view = DesktopView(row, EXPERIMENT, ADA, None, None, progress(row, None), actions, can_extend=True, last_active_at=T0)
    return make_card(view, PersonId(me), Say(words_for(language), now))


@pytest.mark.parametrize(
    ("phase", "desired", "possible"),
    [
        (Phase.QUEUED, Desired.RUNNING, {Action.STOP, Action.EXTEND}),
        (Phase.BOOTING, Desired.RUNNING, {Action.STOP, Action.EXTEND}),
        (Phase.READY, Desired.RUNNING, {Action.CONNECT, Action.STOP, Action.EXTEND}),
        (Phase.READY, Desired.STOPPED, {Action.START}),
        (Phase.STOPPED, Desired.STOPPED, {Action.START, Action.REBUILD, Action.RESIZE}),
        (Phase.FAILED, Desired.RUNNING, {Action.START, Action.REBUILD, Action.RESIZE}),
        (Phase.FAILED, Desired.STOPPED, {Action.START, Action.REBUILD, Action.RESIZE}),
    ],
)
def test_only_what_makes_sense_is_offered(phase: Phase, desired: Desired, possible: set[Action]) -> None:
    assert card_of(phase=phase, desired=desired).can == possible | {Action.SEE, Action.RENAME, Action.DELETE}


def test_a_failed_desktop_that_holds_its_share_is_stopped_before_its_size_changes() -> None:
    can = card_of(phase=Phase.FAILED, admitted=True).can
    assert (Action.STOP in can, Action.RESIZE in can) == (True, False)


@pytest.mark.parametrize("phase", list(Phase))
def test_nothing_can_be_done_to_a_desktop_that_is_being_deleted(phase: Phase) -> None:
    card = card_of(phase=phase, desired=Desired.DELETED)
    assert card.can == {Action.SEE}
    assert card.state == "Deleting"


def test_what_the_policy_forbids_is_never_offered() -> None:
    card = card_of(frozenset({Action.SEE, Action.CONNECT}), me="p-bob", phase=Phase.READY)
    assert card.can == {Action.SEE, Action.CONNECT}
    assert card.watches_only
    assert card.shared_by == "Ada Lin"


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("desired", list(Desired))
@pytest.mark.parametrize("reason", list(Reason))
def test_every_state_has_words_and_a_tone(phase: Phase, desired: Desired, reason: Reason, language: str) -> None:
    card = card_of(phase=phase, desired=desired, reason=reason, language=language)
    assert card.state
    assert card.tone in {"ready", "busy", "waiting", "stopped", "failed", "leaving"}


def test_the_place_in_the_line_comes_with_the_reason_and_the_time() -> None:
    expected = T0 + timedelta(hours=1)
    line = card_of(phase=Phase.QUEUED, queue=QueuePlace(3, ("vcpus", "memory_mib"), expected)).line
    assert line is not None
    assert (line.place, line.lacking, line.expected_at) == ("Number 3 in line.", "CPUs and memory", expected)


def test_who_is_next_is_told_so() -> None:
    line = card_of(phase=Phase.QUEUED, queue=QueuePlace(1, (), None)).line
    assert line is not None
    assert line.place == "Next in line."


def test_a_failure_says_its_cause_and_what_to_do() -> None:
    card = card_of(phase=Phase.FAILED, reason=Reason.GUEST_FAILED, detail="display: no space left on device")
    assert card.reason == "Something inside the desktop could not start."
    assert card.detail == "display: no space left on device"
    assert card.advice.startswith("Try again.")


def test_who_cannot_try_again_is_not_told_to() -> None:
    assert card_of(frozenset({Action.SEE}), me="p-bob", phase=Phase.FAILED, reason=Reason.GUEST_FAILED).advice == ""


def test_a_desktop_stopped_by_its_lease_says_so() -> None:
    card = card_of(phase=Phase.STOPPED, desired=Desired.STOPPED, desired_reason=Reason.LEASE_ENDED)
    assert card.reason.startswith("Its time was over")


def test_stopping_it_oneself_needs_no_explanation() -> None:
    assert card_of(phase=Phase.STOPPED, desired=Desired.STOPPED, desired_reason=Reason.USER).reason == ""


@pytest.mark.parametrize(
    ("minutes", "level"), [(120, "calm"), (31, "calm"), (30, "soon"), (6, "soon"), (5, "critical"), (-1, "critical")]
)
def test_the_end_comes_with_a_warning(minutes: int, level: str) -> None:
    left = card_of(phase=Phase.READY, lease_ends_at=T0 + timedelta(minutes=minutes)).time_left
    assert left is not None
    assert left.level == level


def test_waiting_in_line_uses_up_no_time() -> None:
    assert card_of(phase=Phase.QUEUED).time_left is None


def test_the_screen_is_shown_only_to_those_who_may_open_it() -> None:
    assert card_of(phase=Phase.READY).shows_screen
    assert not card_of(frozenset({Action.SEE, Action.STOP}), phase=Phase.READY).shows_screen
    assert not card_of(phase=Phase.STOPPED).shows_screen


def test_equal_input_gives_an_equal_card() -> None:
    card = card_of(phase=Phase.READY)
    assert replace(card) == card_of(phase=Phase.READY)


def test_a_ready_desktop_that_fell_silent_says_so_on_its_card() -> None:
    card = card_of(phase=Phase.READY, reason=Reason.GUEST_SILENT, detail="The desktop's agent was last heard of at 12:00:00 UTC.")
    assert card.trouble
    assert card.reason == "The desktop stopped answering."
    assert "12:00:00" in card.detail


def test_what_is_well_stopped_or_failed_is_no_trouble() -> None:
    assert not card_of(phase=Phase.READY).trouble
    assert not card_of(phase=Phase.FAILED, reason=Reason.GUEST_FAILED).trouble
    assert not card_of(phase=Phase.STOPPED, desired=Desired.STOPPED, desired_reason=Reason.IDLE).trouble


FALLEN_BACK = encoder.FALLEN_BACK.format(how="was ended by signal 6 (SIGABRT)")


def remarking(language: str = "en", me: str = ADA.id, **desktop: Any) -> Card:
    """Return the card of a desktop whose agent remarks something."""
    row = make_desktop(**{"phase": Phase.READY, **desktop})
    steps = tuple(Step(name, StepState.DONE, FALLEN_BACK if name is StepName.STREAM else "") for name in StepName)
    guest = Guest(row.id, None, T0, None, "", seen_at=T0, steps=steps)
    view = DesktopView(row, EXPERIMENT, ADA, None, None, progress(row, guest), EVERYTHING, can_extend=True, last_active_at=T0)
    return make_card(view, PersonId(me), Say(words_for(language), T0))


def test_a_remark_of_a_ready_desktop_is_told_in_the_readers_language() -> None:
    assert remarking().remarks == (FALLEN_BACK,)
    (chinese,) = remarking("zh").remarks
    assert chinese.startswith("串流服务在使用显卡时失败")
    assert "was ended by signal 6 (SIGABRT)" in chinese
    assert remarking(phase=Phase.BOOTING).remarks == ()


def test_who_looks_over_a_shoulder_is_told_no_remarks() -> None:
    assert remarking(me="bob").remarks == ()


def test_every_remark_of_the_agent_is_translated() -> None:
    full = storage.home_warning.__code__.co_consts
    for text in (FALLEN_BACK, *(text for text in full if isinstance(text, str) and text.startswith("Your home"))):
        assert remark(words_for("zh"), text).count("。") == 2
