"""What the agent tells about itself: the state of each step, and the failure.

Shared between the threads that find out and the one that reports; it must not judge what it is told.
"""

from __future__ import annotations

import threading

from beamdesk.guest.console import Console
from beamdesk.protocol.guest import Step, StepName, StepState

_MAX_DETAIL = 500


class Progress:
    """The steps in their order. Any thread may change them; :meth:`wait` wakes the reporter."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps = {name: Step(name, StepState.WAITING) for name in StepName}
        self._failure = ""
        self._changed = threading.Condition()
        self._revision = 0
        self._closed = False

    def set(self, name: StepName, state: StepState, detail: str = "") -> None:
        """Record the state of a step; saying the same again changes nothing."""
        step = Step(name, state, self._console.clean(detail)[:_MAX_DETAIL])
        with self._changed:
            if self._steps[name] == step:
                return
            self._steps[name] = step
            self._note()
        self._console.say("step", name=name, state=state, **({"detail": step.detail} if step.detail else {}))

    def fail(self, cause: str) -> None:
        """Record that the agent cannot repair something; an empty cause takes it back."""
        cause = self._console.clean(cause)[:_MAX_DETAIL]
        with self._changed:
            if self._failure == cause:
                return
            self._failure = cause
            self._note()
        self._console.say("failure" if cause else "recovered", cause=cause)

    def state(self, name: StepName) -> StepState:
        """Return the state of a step."""
        with self._changed:
            return self._steps[name].state

    def snapshot(self) -> tuple[int, tuple[Step, ...], str]:
        """Return the revision, all steps and the failure."""
        with self._changed:
            return self._revision, tuple(self._steps.values()), self._failure

    def wait(self, seen: int, timeout: float) -> bool:
        """Wait until something newer than revision ``seen`` is there or the time is over; tell whether to go on at all."""
        with self._changed:
            self._changed.wait_for(lambda: self._revision != seen or self._closed, timeout)
            return not self._closed

    def close(self) -> None:
        """Let the reporter end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _note(self) -> None:
        self._revision += 1
        self._changed.notify_all()
