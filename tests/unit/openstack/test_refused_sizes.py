"""A size that no host takes is learned from how builds end; an outage is not taken for one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from beamdesk.adapters.openstack.records import NovaServer
from beamdesk.adapters.openstack.refused_sizes import RefusedSizes
from beamdesk.domain.server import Remedy
from engine_kit import T0

HUGE, SMALL = (1000, 4_000_000, 10), (1, 2048, 10)


def server(size: tuple[int, int, int], seconds: float, *, ran: bool = True) -> NovaServer:
    """Return a server that was ordered so many seconds after the first, and ran or found no host."""
    at = T0 + timedelta(seconds=seconds)
    status, fault = ("ACTIVE", "") if ran else ("ERROR", "No valid host was found.")
    return NovaServer(f"u{seconds}", status, "", at, (), {}, fault, "", partial=False, size=size, launched=ran)


def helps(sizes: RefusedSizes, refused: NovaServer) -> Remedy:
    return sizes.refused(refused, Remedy.LATER)


def test_what_others_got_and_this_size_never_did_is_not_tried_again() -> None:
    sizes = RefusedSizes()
    assert helps(sizes, server(HUGE, 0, ran=False)) is Remedy.LATER, "the first is tried again"
    sizes.took(server(SMALL, 20))
    assert helps(sizes, server(HUGE, 29, ran=False)) is Remedy.LATER, "an outage may have been"
    assert helps(sizes, server(HUGE, 31, ran=False)) is Remedy.PERSON


def test_an_outage_that_refuses_everybody_is_waited_for() -> None:
    sizes = RefusedSizes()
    sizes.took(server(SMALL, -5))
    for seconds in (0, 40, 80):
        assert helps(sizes, server(HUGE, seconds, ran=False)) is Remedy.LATER
        assert helps(sizes, server(SMALL, seconds + 1, ran=False)) is Remedy.LATER


def test_a_size_that_was_taken_again_begins_anew() -> None:
    sizes = RefusedSizes()
    helps(sizes, server(HUGE, 0, ran=False))
    sizes.took(server(SMALL, 10))
    sizes.took(server(HUGE, 20))
    sizes.took(server(SMALL, 50))
    assert helps(sizes, server(HUGE, 60, ran=False)) is Remedy.LATER
    assert helps(sizes, server(HUGE, 0, ran=False)) is Remedy.LATER, "an old one is seen again"
    sizes.took(server(SMALL, 70))
    assert helps(sizes, server(HUGE, 80, ran=False)) is Remedy.LATER
    assert helps(sizes, server(HUGE, 91, ran=False)) is Remedy.PERSON


def test_sizes_with_other_extra_specs_are_others() -> None:
    sizes = RefusedSizes()
    card = {"pci_passthrough:alias": "a100:1"}
    helps(sizes, NovaServer("c1", "ERROR", "", T0, (), {}, "", "", partial=False, size=SMALL, specs=card, launched=False))
    sizes.took(server(SMALL, 10))
    late = T0 + timedelta(seconds=40)
    refused = NovaServer("c2", "ERROR", "", late, (), {}, "", "", partial=False, size=SMALL, specs=card, launched=False)
    assert helps(sizes, refused) is Remedy.PERSON
    assert helps(sizes, server(SMALL, 41, ran=False)) is Remedy.LATER


@pytest.mark.parametrize("told", [Remedy.PERSON, Remedy.WAIT, Remedy.AGAIN])
def test_what_is_known_better_stands(told: Remedy) -> None:
    sizes = RefusedSizes()
    helps(sizes, server(HUGE, 0, ran=False))
    sizes.took(server(SMALL, 10))
    assert sizes.refused(server(HUGE, 60, ran=False), told) is told


def test_builds_that_failed_otherwise_say_nothing_of_a_size() -> None:
    sizes = RefusedSizes()
    sizes.refused(server(HUGE, 0, ran=False), Remedy.AGAIN)
    sizes.took(server(SMALL, 10))
    assert helps(sizes, server(HUGE, 60, ran=False)) is Remedy.LATER


def test_what_was_refused_long_ago_is_tried_again() -> None:
    sizes = RefusedSizes()
    helps(sizes, server(HUGE, 0, ran=False))
    sizes.took(server(SMALL, 10))
    assert helps(sizes, server(HUGE, 700, ran=False)) is Remedy.LATER
