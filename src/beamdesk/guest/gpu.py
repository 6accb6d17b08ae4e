"""How much the desktop's cards are used, so that a computation that needs only them is not taken for idleness.

The looking is done by a process of its own (:mod:`beamdesk.guest.gpu_probe`): whatever a driver does, asking here returns at once.
What cannot be known counts as use, because ending somebody's computation is worse than waiting for the end of the lease.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from beamdesk.guest.accounts import Person
from beamdesk.protocol.guest import NO_CARD_WORKS

SILENT_S = 10.0
"""A probe that says nothing for so long hangs in its driver, and is ended."""
_DELAYS_S = (0.0, 2.0, 10.0, 60.0)
"""One that ends again and again is started ever more slowly, one that lived for ``_FORGIVEN_S`` at once."""
_FORGIVEN_S = 60.0
_SIGNS = {"?": None, "-": NO_CARD_WORKS}
_PIPE = 65536
_MAX_LINE = 500
_MOST_SAID = 20


class GpuMeter:
    """Measures the share (0..1) that the busiest card was used since the last call.

    Args:
        launch: starts the probe with this descriptor as its output; an OSError counts as its end.
        has_card: tells whether there is anything to look at.
        clock: monotonic seconds.
        say: told once of each thing that is wrong.
    """

    def __init__(
        self,
        launch: Callable[[int], subprocess.Popen[bytes]],
        has_card: Callable[[], bool],
        clock: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self._launch = launch
        self._has_card = has_card
        self._clock = clock
        self._say = say
        self._said: set[str] = set()
        self._probe: subprocess.Popen[bytes] | None = None
        self._output = -1
        self._rest = b""
        self._started_at = self._heard_at = 0.0
        self._share: float | None = None
        self._deaths = 0
        self._due_at = 0.0

    def share(self) -> float | None:
        """Return the share; None if there is a card whose use is not known, `NO_CARD_WORKS` if there is none to compute on."""
        if self._probe is None:
            if not self._has_card():
                return NO_CARD_WORKS
            self._start()
        if self._probe is not None:
            self._listen()
            self._check(self._probe)
        return self._share

    def pids(self) -> list[int]:
        """Return the probe's process id: it is no use of the desktop."""
        return [self._probe.pid] if self._probe else []

    def close(self) -> None:
        """End the probe; waits for nothing."""
        if self._probe:
            self._probe.kill()

    def _start(self) -> None:
        if self._clock() < self._due_at:
            return
        self._output, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._output, False)
        self._rest, self._started_at, self._heard_at = b"", self._clock(), self._clock()
        try:
            self._probe = self._launch(writer)
        except (OSError, subprocess.SubprocessError) as error:
            self._ended(f"cannot be started: {error}")
        finally:
            os.close(writer)

    def _listen(self) -> None:
        """Take in what was said since the last time: as much as a pipe holds, however much more comes."""
        said = b""
        with contextlib.suppress(BlockingIOError):
            said = os.read(self._output, _PIPE)
        *lines, self._rest = (self._rest + said)[-_PIPE:].split(b"\n")
        shares: list[float | None] = []
        for line in lines:
            share, _space, words = line[:_MAX_LINE].decode("utf-8", "replace").partition(" ")
            # the probe runs as the person, who could make it say anything
            with contextlib.suppress(ValueError):
                shares.append(_SIGNS[share] if share in _SIGNS else min(1.0, max(0.0, float(share))))
            self._tell(words)
        if shares:
            self._heard_at = self._clock()
            self._share = _mean(shares)

    def _check(self, probe: subprocess.Popen[bytes]) -> None:
        code = probe.poll()
        if code is not None:
            self._ended(f"ended with code {code}")
        elif self._clock() - self._heard_at > SILENT_S:
            # one that cannot even be killed stays, alone: no second one joins it
            self._share = None
            self._tell("the driver of the cards does not answer")
            probe.kill()

    def _ended(self, how: str) -> None:
        os.close(self._output)
        self._probe = self._share = None
        self._tell(f"the probe of the cards {how}")
        if self._clock() - self._started_at > _FORGIVEN_S:
            self._deaths = 0
        self._due_at = self._clock() + _DELAYS_S[min(self._deaths, len(_DELAYS_S) - 1)]
        self._deaths += 1

    def _tell(self, words: str) -> None:
        if words and words not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(words)
            self._say(words)


def _mean(shares: Sequence[float | None]) -> float | None:
    """Return the mean; unknown where one is; `NO_CARD_WORKS` only where no card worked all the time."""
    known = [share for share in shares if share is not None]
    if len(known) < len(shares):
        return None
    measured = [share for share in known if share != NO_CARD_WORKS]
    return sum(measured) / len(measured) if measured else NO_CARD_WORKS


def command() -> Sequence[str]:
    """Return the probe's command: from our own library only, nothing of the person's home or environment can slip in."""
    library = Path(__file__).parents[2]
    program = (
        "import sys, runpy; sys.path.insert(0, sys.argv[1]); runpy.run_module('beamdesk.guest.gpu_probe', run_name='__main__')"
    )
    return (sys.executable, "-I", "-c", program, str(library))


def launch(person: Person, output: int) -> subprocess.Popen[bytes]:
    """Start the probe as the person, with the groups that open cards and no others' environment.

    Raises:
        OSError: it cannot be started.
    """
    return subprocess.Popen(
        command(),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        cwd="/",
        user=person.uid,
        group=person.gid,
        extra_groups=list(person.gids),
        start_new_session=True,
    )
