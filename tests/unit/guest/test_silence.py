"""When an X server that says nothing is ended, and when it is waited for."""

import pytest

from beamdesk.guest.silence import IN_USE_S, STARTING_S, STREAM_S, Silence


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def silence(clock):
    one = Silence(clock)
    one.server_started()
    return one


def test_a_server_that_never_answers_is_ended_after_half_a_minute(silence, clock):
    clock.now += STARTING_S
    assert not silence.missed()
    clock.now += 1
    assert silence.missed()


def test_a_server_in_use_may_be_silent_far_longer(silence, clock):
    silence.answered()
    assert not silence.missed()
    clock.now += IN_USE_S
    assert not silence.missed()
    clock.now += 1
    assert silence.missed()


def test_an_answer_ends_the_silence(silence, clock):
    silence.answered()
    silence.missed()
    clock.now += IN_USE_S
    silence.answered()
    clock.now += IN_USE_S
    assert not silence.missed()


def test_its_successor_is_new(silence, clock):
    silence.answered()
    silence.server_started()
    assert not silence.in_use
    clock.now += STARTING_S + 1
    assert silence.missed()


def test_what_has_been_ended_is_not_ended_again_at_once(silence, clock):
    clock.now += STARTING_S + 1
    assert silence.missed()
    assert not silence.missed()


def test_a_streaming_server_is_waited_for_too(clock):
    silence = Silence(clock, in_use_s=STREAM_S)
    silence.answered()
    assert not silence.missed()
    clock.now += STREAM_S
    assert not silence.missed()
    clock.now += 1
    assert silence.missed()
