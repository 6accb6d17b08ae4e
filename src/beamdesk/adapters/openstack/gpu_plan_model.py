"""What a GPU plan is made of: steps, actions, cards. Data only."""

from __future__ import annotations

from dataclasses import dataclass

from beamdesk.adapters.openstack.gpu_plan_cards import CardModel
from beamdesk.adapters.openstack.gpu_plan_facts import PciFunction


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do: commands to run, or (``path``) the content of a file to write. ``where``: which machine, if not the host."""

    title: str
    lines: tuple[str, ...]
    path: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the paper. ``found``: what the facts say now; ``verify`` and ``undo``: commands, comments begin with #."""

    number: int
    title: str
    found: tuple[str, ...]
    actions: tuple[Action, ...]
    verify: tuple[str, ...]
    undo: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lent:
    """A card that the plan lends, and the functions that must leave the host's drivers with it."""

    card: PciFunction
    model: CardModel
    beside: tuple[PciFunction, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan for a host. ``problems``: what must be decided before the first step."""

    host: str
    lent: tuple[Lent, ...]
    problems: tuple[str, ...]
    steps: tuple[Step, ...]
