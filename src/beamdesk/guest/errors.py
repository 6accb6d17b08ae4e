"""Errors of the agent, each with a plain sentence for the console and the portal.

``GuestError`` > ``ConfigError`` | ``ApiError`` (> ``ApiUnavailable`` | ``Refused``) | ``DisplayError`` | ``SetupError``
"""

from __future__ import annotations


class GuestError(Exception):
    """Base of all that goes wrong on purpose here."""


class ConfigError(GuestError):
    """The agent's own files are missing or wrong: it cannot even enrol."""


class ApiError(GuestError):
    """The guest API did not accept a request."""


class ApiUnavailable(ApiError):
    """The guest API cannot be reached or is not able to answer now; worth another try."""


class Refused(ApiError):
    """The guest API does not accept who we are; never worth another try."""


class DisplayError(GuestError):
    """The X server does not answer, or not as the protocol says."""


class SetupError(GuestError):
    """The account or the storage cannot be made as told."""
