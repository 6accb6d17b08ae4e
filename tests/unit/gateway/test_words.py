"""What is said to people, in both languages and for every state."""

from __future__ import annotations

import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desired, Desktop, Phase, Reason
from beamdesk.domain.ids import DesktopId, ExperimentId, FlavorId, ImageId, PersonId, SessionId
from beamdesk.domain.session import Session, ViewerRole
from beamdesk.gateway.lookup import NOBODY, Look, State, split_cookie
from beamdesk.gateway.words import MESSAGES, PAGE, preferred_language, why

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DESKTOP = Desktop(
    DesktopId("d1"), "Tomography", PersonId("ada"), ExperimentId("e1"), ImageId("i"), "ref", FlavorId("small"), Resources(1),
    Desired.RUNNING, Reason.USER, 1, NOW + timedelta(hours=8), Phase.READY, NOW, Reason.NONE, "", 1, True, None, "unix:/x", 0,
    None, None, NOW, NOW, 1, NOW,
)  # fmt: skip
SESSION = Session(SessionId("s1"), DESKTOP.id, PersonId("ada"), "login", ViewerRole.CONTROLLER, b"", NOW, NOW + timedelta(days=1))


def fields_of(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("key", [*PAGE, *MESSAGES])
def test_both_languages_say_it_and_use_the_same_values(key: str):
    texts = [PAGE[key]] if key in PAGE else list(MESSAGES[key])
    for text in texts:
        assert text.en
        assert text.zh
        assert text.en != text.zh
        assert fields_of(text.en) == fields_of(text.zh)


@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("phase", list(Phase))
def test_every_state_has_words(reason: Reason, phase: Phase):
    desktop = replace(DESKTOP, phase=phase, reason=reason, desired=Desired.STOPPED, desired_reason=reason)
    for state in State:
        title, text = why(Look(state, SESSION, None, desktop), "en")
        assert title
        assert text


def test_a_lease_that_ended_is_told():
    desktop = replace(DESKTOP, phase=Phase.STOPPED, desired=Desired.STOPPED, desired_reason=Reason.LEASE_ENDED)
    assert why(Look(State.STOPPED, SESSION, None, desktop), "en") == (
        "Your desktop was stopped",
        "Its time was over. Your files are kept; start it again in the portal.",
    )


def test_a_deleted_desktop_is_told():
    assert why(Look(State.ENDED, SESSION), "en")[0] == "This desktop was deleted"


def test_nobody_learns_nothing():
    assert why(NOBODY, "en") == tuple(text.en for text in MESSAGES["no_session"])


@pytest.mark.parametrize(("header", "language"), [("zh-CN,en;q=0.5", "zh"), ("en-GB,zh;q=0.9", "en"), ("", "en"), ("ZH", "zh")])
def test_the_browsers_first_language_counts(header: str, language: str):
    assert preferred_language(header) == language


@pytest.mark.parametrize(("cookie", "parts"), [("s1.secret", ("s1", "secret")), ("", ("", "")), ("s1", ("s1", ""))])
def test_a_cookie_is_an_id_and_a_secret(cookie: str, parts: tuple[str, str]):
    assert split_cookie(cookie) == parts
