import io
import threading
import time

import pytest

from beamdesk.guest.console import Console
from beamdesk.guest.errors import ApiUnavailable, Refused
from beamdesk.guest.progress import Progress
from beamdesk.guest.reporter import Reporter
from beamdesk.protocol.guest import ReportReply, StepName, StepState


class Api:
    """Takes reports; ``fault`` is raised instead, once for each."""

    def __init__(self):
        self.reports = []
        self.faults = []
        self.messages = ()
        self.came = threading.Condition()

    def report(self, report):
        with self.came:
            self.came.notify_all()
            if self.faults:
                raise self.faults.pop(0)
            self.reports.append(report)
            messages, self.messages = self.messages, ()
            return ReportReply(messages)

    def wait_for(self, what):
        with self.came:
            assert self.came.wait_for(what, 6)


class Cpu:
    def share(self):
        return 0.25


@pytest.fixture
def world():
    class World:
        def __init__(self):
            self.api = Api()
            self.progress = Progress(Console(io.StringIO()))
            self.shown = []
            self.refused = []
            self.gpu = 0.123456

        def start(self):
            self.reporter = Reporter(
                self.progress,
                self.api,
                Cpu(),
                lambda: self.gpu,
                lambda: 1.5,
                self.show,
                lambda: self.refused.append(True),
                Console(io.StringIO()),
                time.monotonic,
            )
            self.reporter.start()

        def show(self, message):
            if message == "broken":
                raise OSError("no notifications here")
            self.shown.append(message)

    world = World()
    world.start()
    yield world
    world.reporter.close()


def test_a_change_is_reported_at_once_and_then_the_heartbeat_goes_on(world):
    began = time.monotonic()
    world.progress.set(StepName.DISPLAY, StepState.DONE)
    world.api.wait_for(lambda: any(report.steps[3].state is StepState.DONE for report in world.api.reports))
    assert time.monotonic() - began < 1
    count = len(world.api.reports)
    world.api.wait_for(lambda: len(world.api.reports) > count)
    assert world.api.reports[-1].activity.input_idle_s == 1.5


def test_the_cards_share_is_reported_or_that_it_is_not_known(world):
    world.api.wait_for(lambda: world.api.reports and world.api.reports[-1].activity.gpu == 0.1235)
    world.gpu = None
    world.api.wait_for(lambda: world.api.reports[-1].activity.gpu is None)


def test_messages_are_shown(world):
    world.api.messages = ("Your desktop ends soon.",)
    world.progress.set(StepName.ENROL, StepState.DONE)
    world.api.wait_for(lambda: not world.api.messages)
    world.progress.set(StepName.ACCOUNT, StepState.DONE)
    world.api.wait_for(lambda: world.shown == ["Your desktop ends soon."])


@pytest.mark.parametrize("fault", [ApiUnavailable("down"), ZeroDivisionError("a bug")])
def test_neither_an_outage_nor_a_bug_ends_the_heartbeat(world, fault):
    world.api.faults = [fault]
    world.progress.set(StepName.ENROL, StepState.DONE)
    world.api.wait_for(lambda: not world.api.faults)
    count = len(world.api.reports)
    world.api.wait_for(lambda: len(world.api.reports) > count)


def test_a_message_that_cannot_be_shown_does_not_end_the_heartbeat(world):
    world.api.messages = ("broken",)
    world.progress.set(StepName.ENROL, StepState.DONE)
    world.api.wait_for(lambda: not world.api.messages)
    count = len(world.api.reports)
    world.api.wait_for(lambda: len(world.api.reports) > count)


def test_a_refusal_is_told_once_and_ends_reporting(world):
    world.api.faults = [Refused("gone")]
    world.progress.set(StepName.ENROL, StepState.DONE)
    world.api.wait_for(lambda: not world.api.faults)
    world.reporter.close()
    assert world.refused == [True]
    assert not world.reporter._thread.is_alive()


def test_the_last_word_is_said_before_the_end(world):
    world.api.wait_for(lambda: world.api.reports)
    world.progress.fail("the end")
    world.reporter.close()
    assert world.api.reports[-1].failure == "the end"
