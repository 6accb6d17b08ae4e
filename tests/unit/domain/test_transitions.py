"""`decide` makes the transitions of the table: no other, and each of them. The documentation shows the same table."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from beamdesk.domain.decision import Decision, Observed, Step, Timings
from beamdesk.domain.desktop import Desired, Desktop, Phase, Reason
from beamdesk.domain.diagram import document
from beamdesk.domain.errors import CloudFull, CloudRefused
from beamdesk.domain.guest import Guest
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.domain.lease import LeaseRules
from beamdesk.domain.lifecycle import TRANSITIONS, act_failed, decide
from beamdesk.domain.server import HostState, Observation, Remedy, Server, ServerStatus
from beamdesk.protocol.guest import Step as GuestStep
from beamdesk.protocol.guest import StepName, StepState
from engine_kit import T0, make_desktop

_DOCUMENT = Path(__file__).parents[3] / "docs/explanation/lifecycle.md"
_DONE = tuple(GuestStep(name, StepState.DONE) for name in StepName)
_TIMES = (0.0, 4.0, 7.0, 700.0, 40_000.0)


def _servers() -> Iterator[Observation | None]:
    one = [Server(ServerId("s1"), DesktopId("desktop01"), status, T0, "unix:/s") for status in ServerStatus]
    failed = replace(one[0], status=ServerStatus.ERROR, launched=False)
    stranded = [replace(one[1], host=host, tied=tied) for host in HostState for tied in (True, False)]
    for complete in (True, False):
        yield Observation((), complete)
        for server in one:
            yield Observation((server,), complete)
    for server in (*(replace(failed, remedy=remedy) for remedy in Remedy), *stranded):
        yield Observation((server,))
    yield Observation((one[0], replace(one[1], id=ServerId("s2"))))
    yield None


def _guests(now_s: float) -> Iterator[Guest | None]:
    fresh = Guest(DesktopId("desktop01"), b"n", T0, None, "secret")
    alive = replace(fresh, enrolled_at=T0, seen_at=T0 + timedelta(seconds=now_s))
    yield from (None, fresh, alive, replace(alive, steps=_DONE), replace(alive, failure="why"), replace(alive, seen_at=T0))


def _desktops() -> Iterator[Desktop]:
    for phase, desired, repairs, absent in itertools.product(Phase, Desired, (0, 1), (None, T0)):
        for admitted in (True, False) if phase is Phase.QUEUED else (True,):
            for retry in (0, 1) if phase is Phase.FAILED else (0,):
                desktop = make_desktop(phase=phase, desired=desired, admitted=admitted, repairs=repairs, absent_since=absent)
                yield replace(desktop, desired_generation=retry, observed_generation=1 - retry, reason=Reason.GUEST_SILENT)


def _every_decision() -> Iterator[tuple[Desktop, Decision]]:
    """Every phase and wish against everything that can be seen at any time, and against a refusal of what was decided."""
    timings, lease = Timings(), LeaseRules()
    for now_s in _TIMES:
        now = T0 + timedelta(seconds=now_s)
        for desktop, servers, guest in itertools.product(_desktops(), _servers(), _guests(now_s)):
            observed = Observed(servers, guest, never_fits=("gpus",) if guest is None else ())
            decision = decide(desktop, observed, now, timings, lease)
            yield desktop, decision
            if decision.step not in (Step.NONE, Step.ADMIT):
                told = {"now": now, "timings": timings, "lease": lease, "jitter": 0.5}
                yield desktop, act_failed(desktop, decision, observed, CloudRefused("no"), **told)
                yield desktop, act_failed(desktop, decision, observed, CloudFull("not now"), **told)


def test_the_table_is_what_decide_does() -> None:
    made: set[tuple[Phase, Phase | None]] = set()
    for before, decision in _every_decision():
        after = decision.desktop
        if decision.remove:
            made.add((before.phase, None))
        elif after.phase is not before.phase:
            made.add((before.phase, after.phase))
        assert after.due_at > T0 - timedelta(seconds=1)
        assert (after.phase is Phase.READY) or after.address is None
        if before.phase is Phase.DELETING:
            assert after.phase is Phase.DELETING, "one way"
    assert made == {(one.source, one.to) for one in TRANSITIONS}


def test_no_transition_is_told_twice_and_each_has_a_sentence() -> None:
    pairs = [(one.source, one.to) for one in TRANSITIONS]
    assert len(pairs) == len(set(pairs))
    assert all(one.when.endswith(".") for one in TRANSITIONS)


def test_the_documentation_shows_this_table() -> None:
    shown = _DOCUMENT.read_text(encoding="utf-8")
    assert document(shown) == shown, "run: python -m beamdesk.domain.diagram docs/explanation/lifecycle.md"
