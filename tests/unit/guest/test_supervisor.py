import os

from beamdesk.guest.components import Component, Stage
from beamdesk.guest.supervisor import Supervisor

ALL = frozenset(Stage)


class Program:
    """A program that ends when told to."""

    def __init__(self, component):
        self.name = component.name
        self.command = component.command[0]
        self.pid = id(self)
        self.pidfd = os.open("/dev/null", os.O_RDONLY)
        self.how = None

    def ended(self):
        return self.how

    def close(self):
        os.close(self.pidfd)


class World:
    def __init__(self, *components):
        self.now = 100.0
        self.started = []
        self.stopped = []
        self.broken = set()
        self.supervisor = Supervisor(components, self.start, self.stop, lambda: self.now)

    def start(self, component):
        if component.name in self.broken:
            raise FileNotFoundError(2, "No such file or directory")
        program = Program(component)
        self.started.append(program)
        return program

    def stop(self, programs):
        for program in programs:
            program.how = "was stopped"
            self.stopped.append(program.name)

    def run(self, reached=ALL):
        self.supervisor.start_due(reached)

    def kill(self, name, how="was ended by signal 9 (SIGKILL)"):
        self.supervisor.process(name).how = how
        self.supervisor.reap()

    def names(self):
        return [program.name for program in self.started]


WM = Component("wm", "the window manager", ("wm",))
X = Component("x", "the X server", ("x",), Stage.NOTHING, vital=True)


SPARE = Component("stream", "the streaming server", ("on-cpus",))
STREAM = Component("stream", "the streaming server", ("on-card",), spare=SPARE)


def test_programs_start_in_order_when_their_stage_is_reached():
    world = World(X, WM)
    world.run(frozenset({Stage.NOTHING}))
    assert world.names() == ["x"]
    world.run()
    assert world.names() == ["x", "wm"]


def test_an_ended_program_starts_again_at_once_the_first_time():
    world = World(WM)
    world.run()
    world.kill("wm")
    world.run()
    assert world.names() == ["wm", "wm"]


def test_repeated_deaths_are_answered_more_and_more_slowly():
    world = World(WM)
    world.run()
    world.kill("wm")
    world.run()
    world.kill("wm")
    world.run()
    assert len(world.started) == 2
    world.now += 0.6
    world.run()
    assert len(world.started) == 3


def test_dying_again_and_again_is_a_failure_within_ten_seconds_that_names_the_cause():
    world = World(WM)
    began = world.now
    while not world.supervisor.failure():
        world.run()
        if world.supervisor.process("wm"):
            world.kill("wm", "ended with code 1: cannot open display")
        world.now += 0.1
        assert world.now - began < 10
    assert "the window manager ended with code 1: cannot open display" in world.supervisor.failure()


def test_a_failed_program_is_still_tried_and_forgiven_when_it_lives():
    world = World(WM)
    for _ in range(5):
        world.now += 3
        world.run()
        world.kill("wm")
    assert world.supervisor.failure()
    world.now += 21
    world.run()
    assert world.supervisor.process("wm")
    world.now += 61
    assert not world.supervisor.failure()


def test_the_end_of_a_vital_program_restarts_all():
    world = World(X, WM)
    world.run()
    world.kill("x")
    assert world.stopped == ["wm"]
    world.run()
    assert world.names() == ["x", "wm", "x", "wm"]


def test_being_stopped_with_the_display_is_not_held_against_a_program():
    world = World(X, WM)
    for _ in range(3):
        world.run()
        world.kill("x")
        world.now += 3
    world.run()
    assert world.supervisor.cause("wm") == ""


def test_a_program_that_cannot_be_started_has_a_cause():
    world = World(WM)
    world.broken.add("wm")
    world.run()
    assert "No such file" in world.supervisor.cause("wm")


def commands(world):
    return [program.command for program in world.started]


def test_a_program_that_ends_twice_gives_way_to_its_spare_at_once():
    world = World(STREAM)
    world.run()
    world.kill("stream")
    world.run()
    assert not world.supervisor.replaced("stream")
    world.kill("stream", "was ended by signal 11 (SIGSEGV)")
    world.run()
    assert commands(world) == ["on-card", "on-card", "on-cpus"]
    assert world.supervisor.replaced("stream") == "was ended by signal 11 (SIGSEGV)"


def test_it_does_not_go_back_from_the_spare():
    world = World(X, STREAM)
    world.run()
    for _ in range(2):
        world.kill("stream")
        world.run()
    world.now += 24 * 3600
    world.kill("x")
    world.run()
    world.kill("stream")
    world.run()
    assert commands(world)[-2:] == ["on-cpus", "on-cpus"]


def test_ends_that_are_far_apart_are_accidents():
    world = World(STREAM)
    for _ in range(5):
        world.run()
        world.kill("stream")
        world.now += 601
    world.run()
    assert set(commands(world)) == {"on-card"}


def test_a_spare_that_cannot_live_either_is_a_failure():
    world = World(STREAM)
    began = world.now
    while not world.supervisor.failure():
        world.run()
        if world.supervisor.process("stream"):
            world.kill("stream", "ended with code 1: no display")
        world.now += 0.1
        assert world.now - began < 20
    assert "the streaming server ended with code 1: no display" in world.supervisor.failure()


def test_being_stopped_with_the_display_does_not_bring_the_spare():
    world = World(X, STREAM)
    for _ in range(4):
        world.run()
        world.kill("x")
        world.now += 3
    world.run()
    assert "on-cpus" not in commands(world)


def test_one_that_hangs_in_a_driver_is_left_behind_and_its_spare_started():
    world = World(STREAM)
    world.run()
    assert world.supervisor.has_spare("stream")
    world.supervisor.last_chance("stream")
    world.supervisor.abandon("stream")
    world.run()
    assert commands(world) == ["on-card", "on-cpus"]
    assert world.supervisor.replaced("stream") == "hangs and cannot be ended"
    assert not world.supervisor.has_spare("stream")
