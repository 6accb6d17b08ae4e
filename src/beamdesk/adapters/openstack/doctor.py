"""`beamdesk openstack doctor`: checks of a cloud and of a hypervisor, each with what it found and what to do about it.

A check is a small function with an id that never changes, a title, and an outcome. It only reads. docs/reference/doctor.md lists
them all. This module knows no check: it runs them and says what came of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from beamdesk.adapters.openstack.doctor_probe import Denied, Probe
from beamdesk.adapters.openstack.gpu_plan_facts import HostFacts
from beamdesk.domain.errors import CloudError

Run = TypeVar("Run")


class Verdict(StrEnum):
    """What a check came to. ``missing``: needed and not there; ``unknown``: could not be seen with these rights."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"
    WRONG = "wrong"
    UNKNOWN = "unknown"


FAILED = frozenset({Verdict.MISSING, Verdict.WRONG})


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one check: verdict, facts found, and what to do unless it is fine."""

    verdict: Verdict
    facts: tuple[str, ...]
    remedy: str = ""


def ok(*facts: str) -> Outcome:
    """Return a good outcome."""
    return Outcome(Verdict.OK, facts)


def warning(remedy: str, *facts: str) -> Outcome:
    """Return an outcome that works, but should be better."""
    return Outcome(Verdict.WARNING, facts, remedy)


def missing(remedy: str, *facts: str) -> Outcome:
    """Return an outcome where something needed is not there."""
    return Outcome(Verdict.MISSING, facts, remedy)


def wrong(remedy: str, *facts: str) -> Outcome:
    """Return an outcome where something is as it must not be."""
    return Outcome(Verdict.WRONG, facts, remedy)


def unknown(remedy: str, *facts: str) -> Outcome:
    """Return an outcome that could not be seen."""
    return Outcome(Verdict.UNKNOWN, facts, remedy)


@dataclass(frozen=True, slots=True)
class Check(Generic[Run]):
    """A check. ``blocks``: desktops cannot start while it fails. ``first``: nothing after it can be examined while it fails."""

    id: str
    title: str
    run: Run
    blocks: bool = False
    first: bool = False


CloudCheck = Check[Callable[[Probe], Awaitable[Outcome]]]
HostCheck = Check[Callable[[HostFacts], Outcome]]


@dataclass(frozen=True, slots=True)
class Finding:
    """A check's result with its name. ``place``: the place of the settings, or the host."""

    place: str
    id: str
    title: str
    verdict: Verdict
    facts: tuple[str, ...]
    remedy: str
    blocks: bool

    @property
    def failed(self) -> bool:
        """Tell whether something is missing or wrong."""
        return self.verdict in FAILED

    @property
    def stops_desktops(self) -> bool:
        """Tell whether desktops cannot start because of it."""
        return self.blocks and self.failed


async def examine(checks: Sequence[CloudCheck], probe: Probe) -> AsyncIterator[Finding]:
    """Run the checks of a cloud in order; a `first` one that fails is the last."""
    for check in checks:
        finding = _finding(probe.place.name, check, await _outcome(check, probe))
        yield finding
        if check.first and finding.failed:
            return


async def _outcome(check: CloudCheck, probe: Probe) -> Outcome:
    try:
        return await check.run(probe)
    except Denied as denied:
        return unknown("Only an administrator may see it: run again with --admin-cloud NAME of clouds.yaml.", str(denied))
    except CloudError as error:
        return wrong("The service must answer: look at its log and its address in the catalogue.", error.message)


def _finding(place: str, check: Check[Run], outcome: Outcome) -> Finding:
    return Finding(place, check.id, check.title, outcome.verdict, outcome.facts, outcome.remedy, check.blocks)


def examine_host(checks: Iterable[HostCheck], facts: HostFacts) -> tuple[Finding, ...]:
    """Run the checks of a hypervisor."""
    return tuple(_finding(facts.host, check, check.run(facts)) for check in checks)
