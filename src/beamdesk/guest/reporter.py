"""Tells the guest API how the desktop is, at every change and as a heartbeat, and shows the person the messages that come back."""

from __future__ import annotations

import threading
from collections.abc import Callable

from beamdesk.guest.activity import CpuMeter
from beamdesk.guest.client import GuestApi
from beamdesk.guest.console import Console
from beamdesk.guest.errors import ApiError, Refused
from beamdesk.guest.progress import Progress
from beamdesk.protocol.guest import HEARTBEAT_S, Activity, Report


class Reporter:
    """Sends the state of ``progress``.

    Args:
        progress: what to tell.
        api: where to; used by this thread only.
        cpu: measured once a heartbeat.
        gpu: the share of the busiest card, None if not known, `NO_CARD_WORKS` if there is none; asked once a heartbeat,
            and answers at once.
        idle_s: seconds since the last input.
        show: shows a message on the desktop.
        refused: called once when our identity is no longer valid.
        console: the log.
    """

    def __init__(
        self,
        progress: Progress,
        api: GuestApi,
        cpu: CpuMeter,
        gpu: Callable[[], float | None],
        idle_s: Callable[[], float],
        show: Callable[[str], None],
        refused: Callable[[], None],
        console: Console,
        clock: Callable[[], float],
    ) -> None:
        self._progress = progress
        self._api = api
        self._cpu = cpu
        self._gpu = gpu
        self._idle_s = idle_s
        self._show = show
        self._refused = refused
        self._console = console
        self._clock = clock
        self._share = 0.0
        self._gpu_share = gpu()
        self._measured_at = clock()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._reachable = True

    def start(self) -> None:
        """Begin to report."""
        self._thread.start()

    def close(self) -> None:
        """Send what is still unsaid and end; waits a moment at most."""
        self._progress.close()
        self._thread.join(1.0)

    def _run(self) -> None:
        going = True
        while going:
            try:
                going = self._turn()
            except Exception as error:  # noqa: BLE001 - the outermost frame: whatever it was, the heartbeat goes on
                self._console.say("reporter", error=repr(error))
                going = self._progress.wait(self._progress.snapshot()[0], HEARTBEAT_S)

    def _turn(self) -> bool:
        """Send one report and wait for the next reason to; tell whether to go on."""
        seen = self._say()
        if seen is None:
            return False
        if self._progress.wait(seen, HEARTBEAT_S):
            return True
        if self._progress.snapshot()[0] != seen:
            self._say()
        return False

    def _say(self) -> int | None:
        """Send the present state; return its revision, None if we are refused."""
        revision, steps, failure = self._progress.snapshot()
        return revision if self._send(Report(steps, self._activity(), failure)) else None

    def _activity(self) -> Activity:
        now = self._clock()
        if now - self._measured_at >= HEARTBEAT_S * 0.75:
            self._share, self._gpu_share, self._measured_at = self._cpu.share(), self._gpu(), now
        gpu = None if self._gpu_share is None else round(self._gpu_share, 4)
        return Activity(input_idle_s=round(self._idle_s(), 3), cpu=round(self._share, 4), gpu=gpu)

    def _send(self, report: Report) -> bool:
        """Send one report; tell whether to go on."""
        try:
            reply = self._api.report(report)
        except Refused as error:
            self._console.say("refused", cause=error)
            self._refused()
            return False
        except ApiError as error:
            if self._reachable:
                self._console.say("unreachable", cause=error)
            self._reachable = False
            return True
        self._reachable = True
        for message in reply.messages:
            self._show(message)
        return True
