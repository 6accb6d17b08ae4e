"""People, as the facility's directory knows them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from beamdesk.domain.ids import PersonId


class Role(StrEnum):
    """What somebody is to the facility; teams say what they are to an experiment."""

    SCIENTIST = "scientist"
    BEAMLINE_SCIENTIST = "beamline_scientist"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Person:
    """A person with a POSIX identity: ``uid`` is chosen once and is also the primary gid."""

    id: PersonId
    login: str
    full_name: str
    uid: int
    language: str = "en"
    role: Role = Role.SCIENTIST
    beamlines: frozenset[str] = frozenset()

    @property
    def is_operator(self) -> bool:
        """Tell whether this person runs the system."""
        return self.role is Role.OPERATOR
