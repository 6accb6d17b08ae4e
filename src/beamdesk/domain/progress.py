"""What a waiting person sees: named steps from the application to pixels, derived from phase and guest report."""

from __future__ import annotations

from dataclasses import dataclass

from beamdesk.domain.desktop import Desktop, Phase
from beamdesk.domain.guest import Guest
from beamdesk.protocol.guest import StepName, StepState


@dataclass(frozen=True, slots=True)
class ProgressStep:
    """One step. ``name``: `queue`, `server`, or a guest step (`enrol`, `account`, `storage`, `display`, `desktop`, `stream`).

    ``detail``: the cause where it is not done; of one that is, what the agent remarks.
    """

    name: str
    state: StepState
    detail: str = ""


_ADVANCE = {Phase.QUEUED: 0, Phase.BUILDING: 1, Phase.BOOTING: 2, Phase.REPAIRING: 2, Phase.READY: 8}


def progress(desktop: Desktop, guest: Guest | None) -> tuple[ProgressStep, ...]:
    """Return the steps of a desktop on its way up, in order, exactly one of them running unless all are done or one failed."""
    names = ("queue", "server", *(str(name) for name in StepName))
    reported = {str(step.name): step for step in guest.steps} if guest else {}
    if desktop.phase is Phase.READY:
        remarks = {name: step.detail for name, step in reported.items() if step.state is StepState.DONE}
        return tuple(ProgressStep(name, StepState.DONE, remarks.get(name, "")) for name in names)
    done_until = _reached(desktop, guest)
    steps = []
    for index, name in enumerate(names):
        state = StepState.DONE if index < done_until else StepState.WAITING
        detail = ""
        if index >= 2 and name in reported:
            state, detail = reported[name].state, reported[name].detail
        steps.append(ProgressStep(name, state, detail))
    return _mark_current(tuple(steps), desktop)


def _reached(desktop: Desktop, guest: Guest | None) -> int:
    if desktop.phase in _ADVANCE:
        return _ADVANCE[desktop.phase]
    if guest is not None and guest.enrolled_at is not None:
        return 2
    return 1 if desktop.admitted else 0


def _mark_current(steps: tuple[ProgressStep, ...], desktop: Desktop) -> tuple[ProgressStep, ...]:
    if any(step.state is StepState.FAILED for step in steps):
        return steps
    state = StepState.FAILED if desktop.phase is Phase.FAILED else StepState.RUNNING
    if state is StepState.RUNNING and any(step.state is StepState.RUNNING for step in steps):
        return steps
    marked = list(steps)
    for index, step in enumerate(steps):
        if step.state is not StepState.DONE:
            marked[index] = ProgressStep(step.name, state, desktop.detail or step.detail)
            break
    return tuple(marked)
