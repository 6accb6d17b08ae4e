"""Waiting for a desktop: ends when it is as wanted, and never silently otherwise."""

import pytest

from beamdesk.cli import waiting
from beamdesk.cli.failure import Exit, Failure
from beamdesk.cli.waiting import wait_for


def desktop(phase="queued", desired="running", **more):
    base = {"id": "d1", "name": "Mine", "phase": phase, "desired": desired, "reason": "", "detail": "", "queue": None}
    return base | {"steps": [{"name": "queue", "state": "running", "detail": ""}]} | more


class Script:
    """An API that answers what a test wrote; None = unchanged."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.tags = []

    def get_if_changed(self, _path, tag):
        self.tags.append(tag)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Failure):
            raise answer
        return answer, f"tag{len(self.tags)}"


@pytest.fixture(autouse=True)
def naps(monkeypatch):
    """Nobody sleeps in a test; the time moves on."""
    clock = {"now": 0.0, "naps": []}

    def sleep(seconds):
        clock["now"] += seconds
        clock["naps"].append(seconds)

    monkeypatch.setattr(waiting.time, "sleep", sleep)
    monkeypatch.setattr(waiting.time, "monotonic", lambda: clock["now"])
    return clock


def test_it_ends_when_the_desktop_is_ready(capsys):
    api = Script(desktop(), None, desktop("booting"), desktop("ready"))
    assert wait_for(api, desktop(), 0)["phase"] == "ready"
    assert api.tags == [None, "tag1", "tag2", "tag3"]
    assert capsys.readouterr().err.splitlines()[-1] == "ready"


def test_a_failure_is_told_with_its_cause():
    with pytest.raises(Failure, match="no display") as failure:
        wait_for(Script(desktop("failed", reason="guest_failed", detail="no display")), desktop(), 0)
    assert failure.value.exit_code is Exit.FAILED


def test_the_time_can_be_up():
    with pytest.raises(Failure, match="after 5 s"):
        wait_for(Script(desktop()), desktop(), 5)


def test_somebody_else_may_want_something_else():
    with pytest.raises(Failure, match="stopped now") as failure:
        wait_for(Script(desktop("stopping", "stopped")), desktop(), 0)
    assert failure.value.exit_code is Exit.CONFLICT


def test_a_deleted_desktop_is_gone_in_the_end():
    gone = Failure(Exit.NOT_FOUND, "There is no such desktop.")
    assert wait_for(Script(desktop("deleting", "deleted"), gone), desktop(desired="deleted"), 0) is None
    with pytest.raises(Failure):
        wait_for(Script(gone), desktop(), 0)


def test_it_asks_ever_less_often_until_something_happens(naps):
    wait_for(Script(desktop(), *[None] * 40, desktop("booting"), None, desktop("ready")), desktop(), 0)
    pauses = naps["naps"]
    assert pauses[0] < pauses[10] < pauses[30] == 2.0
    assert pauses[41] == pauses[0]
