"""What can go wrong in the agent.

SrmError
├── ConfigError     the configuration or the credential file cannot work: somebody has to act
├── ApiUnavailable  no answer, or "later": try again
├── OutOfStep       the API wants a new session: open one
└── Refused         the API does not accept the credential or the enrolment token
"""

from __future__ import annotations


class SrmError(Exception):
    """Root of the agent's errors; the text is for its log."""


class ConfigError(SrmError):
    """The configuration cannot work."""


class ApiUnavailable(SrmError):
    """The API does not answer, or says that it cannot now. ``retry_after_s``: what it asked for."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OutOfStep(SrmError):
    """The API refuses this report: a new session and a full report are needed."""


class Refused(SrmError):
    """The API does not accept who we say we are."""
