"""A GPU plan as text to read: every file and command in full, nothing to be run unread."""

from __future__ import annotations

from collections.abc import Iterable

from beamdesk.adapters.openstack.gpu_plan_model import Action, Plan, Step


def render(plan: Plan) -> str:
    """Return the plan as text; commands are indented, comments begin with #."""
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: Plan) -> Iterable[str]:
    yield f"GPU pass-through on {plan.host}"
    yield "Read it, then do it step by step, as root on that host unless a line says otherwise. Nothing was changed by printing it."
    if plan.lent:
        yield ""
    for one in plan.lent:
        beside = f", with it {', '.join(function.address for function in one.beside)}" if one.beside else ""
        yield f"  {one.card.address}  {one.card.id}  {one.model.name}{beside}"
    if plan.problems:
        yield ""
        yield "Before you begin:"
        yield from (f"  ! {problem}" for problem in plan.problems)
    for step in plan.steps:
        yield ""
        yield from _step(step)


def _step(step: Step) -> Iterable[str]:
    yield f"Step {step.number}. {step.title}"
    yield from (f"  Found: {fact}" for fact in step.found)
    if not step.actions:
        yield "  Nothing to do."
    for action in step.actions:
        yield from _action(action)
    yield "  Verify:"
    yield from (f"    {line}" for line in step.verify)
    yield "  Undo:"
    yield from (f"    {line}" for line in step.undo)


def _action(action: Action) -> Iterable[str]:
    where = f" (on {action.where})" if action.where else ""
    file = f", file {action.path}" if action.path else ""
    yield f"  {action.title}{where}{file}:"
    yield from (f"    {line}" for line in action.lines)
