"""Experiments: proposal + beamline + team + dates, the user office's object."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from beamdesk.domain.ids import ExperimentId, PersonId
from beamdesk.domain.text import Text


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment. ``folder`` is its folder name under the data root, ``gid`` the POSIX group that may read it."""

    id: ExperimentId
    proposal: str
    title: Text
    beamline: str
    beamline_title: Text
    team: frozenset[PersonId]
    starts: datetime
    ends: datetime
    folder: str
    gid: int

    def has_member(self, person_id: PersonId) -> bool:
        """Tell whether the person is in the team."""
        return person_id in self.team
