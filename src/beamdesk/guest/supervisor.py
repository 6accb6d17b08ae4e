"""Keeps the programs of a desktop running: starts what is due, notices what ended, and starts it again, ever more slowly.

It decides nothing about what a desktop needs (see :mod:`beamdesk.guest.components`) and does not look at the screen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from beamdesk.guest.components import Component, Stage

_DELAYS_S = (0.0, 0.5, 1.0, 2.0)
_WINDOW_S = 60.0
_RETRY_S = 20.0
"""A program that ended too often is tried again so seldom; meanwhile it counts as failed."""
_SPARE_AFTER, _SPARE_WINDOW_S = 2, 600.0
"""A program with a spare that ended so often within this time is not started again."""


class Running(Protocol):
    """What the supervisor needs of a started program."""

    pidfd: int
    pid: int

    def ended(self) -> str | None:
        """Return how it ended, None while it runs."""

    def close(self) -> None:
        """Forget it."""


@dataclass(slots=True)
class _Slot:
    component: Component
    process: Running | None = None
    due_at: float = 0.0
    deaths: deque[float] = field(default_factory=deque)
    cause: str = ""
    ends: deque[float] = field(default_factory=lambda: deque(maxlen=_SPARE_AFTER))
    replaced: str = ""

    @property
    def given_up(self) -> bool:
        return len(self.deaths) > len(_DELAYS_S)


class Supervisor:
    """Holds the programs ``components``.

    Args:
        components: in the order to start them.
        start: starts one; an OSError counts as its end.
        stop: ends several for certain.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        components: Sequence[Component],
        start: Callable[[Component], Running],
        stop: Callable[[list[Running]], None],
        clock: Callable[[], float],
    ) -> None:
        self._slots = [_Slot(component) for component in components]
        self._start = start
        self._stop = stop
        self._clock = clock

    def start_due(self, reached: frozenset[Stage]) -> list[str]:
        """Start every program whose stage is reached and whose time has come; return their names."""
        started = []
        for slot in self._slots:
            if slot.process is None and slot.component.after in reached and self._clock() >= slot.due_at:
                try:
                    slot.process = self._start(slot.component)
                    started.append(slot.component.name)
                except OSError as error:
                    self._note_end(slot, f"cannot be started: {error.strerror}")
        return started

    def reap(self) -> list[Component]:
        """Notice programs that ended. If one of them was vital all others are ended too, to be started anew."""
        ended = []
        for slot in self._slots:
            how = slot.process.ended() if slot.process else None
            if slot.process and how is not None:
                slot.process.close()
                slot.process = None
                self._note_end(slot, how)
                ended.append(slot.component)
        if any(component.vital for component in ended):
            self.stop_all()
        return ended

    def stop_all(self) -> None:
        """End all programs; they are started again when due."""
        running = [slot.process for slot in self._slots if slot.process]
        self._stop(running)
        for slot in self._slots:
            if slot.process:
                slot.process.ended()
                slot.process.close()
                slot.process = None

    def process(self, name: str) -> Running | None:
        """Return the running program ``name``."""
        return next((slot.process for slot in self._slots if slot.component.name == name), None)

    def cause(self, name: str) -> str:
        """Return why ``name`` is not running, in plain words; empty if it has not ended lately."""
        return next((slot.cause for slot in self._slots if slot.component.name == name and slot.process is None), "")

    def explained(self, name: str) -> str:
        """Return :meth:`cause` as a sentence about the program; empty if there is none."""
        titles = {slot.component.name: slot.component.title for slot in self._slots}
        return f"{titles[name]} {cause}" if (cause := self.cause(name)) else ""

    def has_spare(self, name: str) -> bool:
        """Tell whether another program would take the place of ``name``."""
        return any(slot.component.spare for slot in self._slots if slot.component.name == name)

    def last_chance(self, name: str) -> None:
        """Let the next end of ``name`` bring its spare, however long ago the last was."""
        for slot in self._slots:
            if slot.component.name == name:
                slot.ends.append(self._clock())

    def abandon(self, name: str) -> None:
        """Count ``name`` as ended though it is not: it hangs in a driver, where no signal reaches it."""
        for slot in self._slots:
            if slot.component.name == name and slot.process:
                slot.process.close()
                slot.process = None
                self._note_end(slot, "hangs and cannot be ended")

    def replaced(self, name: str) -> str:
        """Return why the spare of ``name`` runs in its place, from then on; empty if it does not."""
        return next((slot.replaced for slot in self._slots if slot.component.name == name), "")

    def failure(self) -> str:
        """Return the cause if a program ends again and again; empty otherwise. Programs that lived on for a while are forgiven."""
        for slot in self._slots:
            self._forget_old(slot)
            if slot.given_up:
                return f"{slot.component.title} {slot.cause} ({len(slot.deaths)} times within a minute)"
        return ""

    def pidfds(self) -> list[int]:
        """Return descriptors that become readable when a program ends."""
        return [slot.process.pidfd for slot in self._slots if slot.process]

    def pids(self) -> list[int]:
        """Return the process ids of all running programs."""
        return [slot.process.pid for slot in self._slots if slot.process]

    def _note_end(self, slot: _Slot, how: str) -> None:
        now = self._clock()
        slot.cause = how
        slot.deaths.append(now)
        slot.ends.append(now)
        if slot.component.spare and len(slot.ends) == _SPARE_AFTER and now - slot.ends[0] <= _SPARE_WINDOW_S:
            # for good: going back would break the person's picture again and again
            slot.component, slot.replaced = slot.component.spare, how
            slot.deaths.clear()
            slot.due_at = now
            return
        self._forget_old(slot)
        delay = _RETRY_S if slot.given_up else _DELAYS_S[len(slot.deaths) - 1]
        slot.due_at = now + delay

    def _forget_old(self, slot: _Slot) -> None:
        while slot.deaths and self._clock() - slot.deaths[0] > _WINDOW_S:
            slot.deaths.popleft()
