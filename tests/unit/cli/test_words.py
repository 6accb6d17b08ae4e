"""The client has words for everything that the API can say."""

import pytest

from beamdesk.cli.failure import EXIT_OF_CODE, Exit
from beamdesk.cli.words import AVAILABILITY, LACKING, REASONS, STEPS, lacking, now_doing, use, why
from beamdesk.domain.desktop import Reason
from beamdesk.domain.outlook import IMAGE_NEEDS, State
from beamdesk.protocol.guest import StepName


def test_every_reason_and_step_has_words():
    assert {str(reason) for reason in Reason if reason} == REASONS.keys()
    assert {"queue", "server", *map(str, StepName)} == STEPS.keys()
    assert AVAILABILITY.keys() == {"quota", *map(str, State)}
    assert LACKING.keys() == {
        "desktops",
        "vcpus",
        "memory_mib",
        "disk_gib",
        "gpus",
        "gpu_kind",
        "together",
        "booked",
        "hosts",
        "stale",
        "image",
        IMAGE_NEEDS,
    }


def test_unknown_codes_are_shown_as_they_are():
    assert lacking(["vcpus", "unicorns"]) == "CPUs, unicorns"
    desktop = {"queue": None, "reason": "new_reason", "detail": "cause"}
    assert why(desktop) == "new_reason; cause"


def test_the_place_in_the_line_is_told():
    queue = {"place": 2, "lacking": ["gpus"], "expected_at": None}
    desktop = {"queue": queue, "reason": "waiting_for_capacity", "detail": ""}
    assert why(desktop) == "place 2 in the line, short of GPUs; waiting for free resources"


def test_progress_counts_steps():
    steps = [
        {"name": name, "state": state, "detail": ""}
        for name, state in (("queue", "done"), ("server", "running"), ("enrol", "waiting"))
    ]
    assert now_doing({"phase": "building", "steps": steps}) == "[1/3] starting the machine"


@pytest.mark.parametrize(
    ("code", "status"), [("not_signed_in", 3), ("not_found", 4), ("conflict", 5), ("quota_exceeded", 5), ("invalid", 2)]
)
def test_exit_codes_are_those_documented(code, status):
    assert EXIT_OF_CODE[code] == status
    assert [int(one) for one in Exit] == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("phase", "told", "said"),
    [
        ("stopped", None, ""),
        ("ready", None, "not known"),
        ("ready", {"cpu": 0.0, "gpu": None, "gpu_state": "none"}, "CPU 0%"),
        ("ready", {"cpu": 0.424, "gpu": 0.93, "gpu_state": "known"}, "CPU 42%, GPU 93%"),
        ("ready", {"cpu": 1.0, "gpu": None, "gpu_state": "unknown"}, "CPU 100%, GPU not known"),
        ("ready", {"cpu": 1.0, "gpu": None, "gpu_state": "unusable"}, "CPU 100%, GPU cannot be used"),
    ],
)
def test_use_that_is_not_known_is_no_zero(phase, told, said):
    assert use({"phase": phase, "use": told}) == said


def test_an_older_portal_tells_of_no_use():
    assert use({"phase": "ready"}) == "not known"
