"""Errors of the scheduling core.

They stand apart from the product's tree (`beamdesk.domain.errors`) because the core is imported alone inside a foreign process (a
nova-scheduler); callers inside the product translate them at their border. Each message names what was wrong and its value.
"""

from __future__ import annotations


class SchedulingError(ValueError):
    """Root of what the core raises on purpose; ``field`` names the offending field where there is one."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidRequest(SchedulingError):
    """The request contradicts itself or says nothing that can be scheduled."""


class InvalidHost(SchedulingError):
    """A host's description is malformed, or two hosts share a name."""


class NotFree(SchedulingError):
    """What a decision gave is no longer free (or never was): decide again."""


class Malformed(SchedulingError):
    """A document from outside is not what it should be; ``field`` is the path of the first offence."""
