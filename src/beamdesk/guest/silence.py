"""How long a server may say nothing: the rule that keeps a person's programs alive on a machine that is merely slow.

Everything on the screen ends with the X server. One on which a person works is therefore given longer than the pauses that load,
emulation or a machine moved to another host make; one that has just been started has nothing to lose but time.
"""

from __future__ import annotations

from collections.abc import Callable

STARTING_S, IN_USE_S = 30.0, 45.0
"""Until an X server that does not answer is ended and started again: before its first answer, and after it."""
STREAM_S = 20.0
"""Until a streaming server that answered before is. The picture alone is lost with it; ended too soon, there is never one."""


class Silence:
    """Of one server after another, the X server if nothing else is said; ``clock``: monotonic seconds."""

    def __init__(self, clock: Callable[[], float], starting_s: float = STARTING_S, in_use_s: float = IN_USE_S) -> None:
        self._clock = clock
        self._starting_s, self._in_use_s = starting_s, in_use_s
        self._since: float | None = None
        self.in_use = False

    def server_started(self) -> None:
        """A new server was started: nobody uses it yet."""
        self.in_use = False
        self._since = self._clock()

    def answered(self) -> None:
        """The server answered: from now on it has something to lose."""
        self.in_use = True
        self._since = None

    def missed(self) -> bool:
        """Note that it did not answer; tell whether it has been silent for too long. Then its time begins anew."""
        now = self._clock()
        since = now if self._since is None else self._since
        too_long = now - since > (self._in_use_s if self.in_use else self._starting_s)
        self._since = now if too_long else since
        return too_long
