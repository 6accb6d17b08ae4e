import io
import threading

from beamdesk.guest.console import Console
from beamdesk.guest.progress import Progress
from beamdesk.protocol.guest import StepName, StepState


def progress():
    out = io.StringIO()
    return Progress(Console(out, started=0.0)), out


def test_all_steps_wait_at_first():
    steps = progress()[0].snapshot()[1]
    assert [step.name for step in steps] == list(StepName)
    assert {step.state for step in steps} == {StepState.WAITING}


def test_saying_the_same_again_is_no_change():
    state, _ = progress()
    state.set(StepName.DISPLAY, StepState.RUNNING, "why")
    revision = state.snapshot()[0]
    state.set(StepName.DISPLAY, StepState.RUNNING, "why")
    assert state.snapshot()[0] == revision


def test_a_change_wakes_the_reporter():
    state, _ = progress()
    revision = state.snapshot()[0]
    timer = threading.Timer(0.05, lambda: state.set(StepName.ENROL, StepState.DONE))
    timer.start()
    assert state.wait(revision, 5.0)
    assert state.snapshot()[0] > revision
    timer.join()


def test_closing_ends_the_reporter_at_once():
    state, _ = progress()
    state.close()
    assert not state.wait(state.snapshot()[0], 5.0)


def test_details_are_cut_and_cleaned():
    state, _ = progress()
    state.set(StepName.DESKTOP, StepState.FAILED, "a\nb\x1b[31m" + "x" * 1000)
    detail = state.snapshot()[1][4].detail
    assert len(detail) <= 500
    assert detail.startswith("a b [31m")


def test_secrets_never_reach_console_or_report():
    out = io.StringIO()
    console = Console(out)
    console.hide("s3cr3t-token")
    state = Progress(console)
    state.set(StepName.STREAM, StepState.RUNNING, "ended: bad token s3cr3t-token")
    state.fail("it printed s3cr3t-token")
    assert "s3cr3t" not in out.getvalue()
    assert "s3cr3t" not in str(state.snapshot())
