"""One tree of errors, each with a stable ``code``, a text for the user and whether trying again can help.

    BeamdeskError
    ├── Refused              the caller may not, or not now
    │   ├── NotSignedIn      not_signed_in
    │   ├── Forbidden        forbidden
    │   ├── NotFound         not_found          also for what the caller may not see
    │   ├── QuotaExceeded    quota_exceeded
    │   ├── Invalid          invalid            bad input; ``field`` names the field
    │   ├── Conflict         conflict           the state does not allow it now
    │   ├── StaleWrite       stale_write        If-Match did not match
    │   ├── TicketRefused    ticket_refused
    │   └── TooManyRequests  too_many_requests
    ├── CloudError           cloud_error        the driver failed; retryable says if again
    │   ├── CloudUnavailable cloud_unavailable  no answer: the call may or may not have happened
    │   ├── CloudFull        cloud_full         nothing of the kind is free now
    │   ├── CloudRefused     cloud_refused      a definite no, with the cause
    │   └── NotSupported     not_supported      this machine or cloud cannot do it
    ├── StoreUnavailable     store_unavailable
    ├── StreamUnavailable    stream_unavailable the desktop's streaming server does not answer
    └── ConfigurationError   configuration

A code never changes once released. ``message`` is shown to people: it says what happened and what to do next.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar


class BeamdeskError(Exception):
    """Root of all errors that Beamdesk raises on purpose."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, field: str | None = None, **context: object) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.context = context


class Refused(BeamdeskError):
    """The caller may not do this, or not now."""

    code = "refused"


class NotSignedIn(Refused):
    """Nobody is signed in, or the sign-in ended."""

    code = "not_signed_in"


class Forbidden(Refused):
    """The policy says no."""

    code = "forbidden"


class NotFound(Refused):
    """It does not exist, or the caller may not know that it does."""

    code = "not_found"


class QuotaExceeded(Refused):
    """The person's or the experiment's quota does not allow it."""

    code = "quota_exceeded"


class Invalid(Refused):
    """Bad input; ``field`` names the offending field where there is one."""

    code = "invalid"


class Conflict(Refused):
    """The present state does not allow it."""

    code = "conflict"


class SlotTaken(Conflict):
    """Not enough is free in a slot. ``nearest``: begin and end of the nearest slot of the same length, where one was found."""

    code = "conflict"

    def __init__(self, message: str, *, nearest: tuple[datetime, datetime] | None, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.nearest = nearest


class StaleWrite(Conflict):
    """Somebody else changed the object since the caller read it."""

    code = "stale_write"


class TicketRefused(Refused):
    """The ticket is unknown, spent, expired or for something else; the text never says which."""

    code = "ticket_refused"


class TooManyRequests(Refused):
    """A rate limit was reached."""

    code = "too_many_requests"
    retryable = True


class CloudError(BeamdeskError):
    """A driver call failed."""

    code = "cloud_error"
    retryable = True


class CloudUnavailable(CloudError):
    """No definite answer: what was asked may or may not have happened."""

    code = "cloud_unavailable"


class CloudFull(CloudError):
    """A definite no for now: a quota is used up, or nothing of the kind is free. Somebody else's stop helps."""

    code = "cloud_full"


class CloudRefused(CloudError):
    """A definite no, with its cause; trying the same again will not help."""

    code = "cloud_refused"
    retryable = False


class NotSupported(CloudRefused):
    """This machine or cloud cannot do it; the text names what is missing."""

    code = "not_supported"


class StoreUnavailable(BeamdeskError):
    """The database does not answer."""

    code = "store_unavailable"
    retryable = True


class StreamUnavailable(BeamdeskError):
    """The desktop's stream server does not answer as one."""

    code = "stream_unavailable"
    retryable = True


class ConfigurationError(BeamdeskError):
    """A setting is missing, malformed or contradicts another; the text names it."""

    code = "configuration"
