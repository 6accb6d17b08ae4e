"""How a command ends: exit codes, and one line on standard error that says what to do next.

====  ======================================================
code  meaning
====  ======================================================
0     done
1     refused, or failed
2     wrong usage or input
3     not signed in
4     no such thing, or not shared with you
5     not possible in the present state, or over quota
6     the portal cannot be reached
130   interrupted
====  ======================================================
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; they never change once released."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_SIGNED_IN = 3
    NOT_FOUND = 4
    CONFLICT = 5
    UNREACHABLE = 6


class Failure(Exception):
    """Ends the command with a line for people; ``code`` is the problem's code when the portal refused."""

    def __init__(self, exit_code: Exit, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message
        self.code = code


EXIT_OF_CODE = {
    "not_signed_in": Exit.NOT_SIGNED_IN,
    "not_found": Exit.NOT_FOUND,
    "conflict": Exit.CONFLICT,
    "quota_exceeded": Exit.CONFLICT,
    "stale_write": Exit.CONFLICT,
    "invalid": Exit.USAGE,
    "malformed": Exit.USAGE,
}
