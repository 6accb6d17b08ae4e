"""The desktop's life: starts its programs, finds out by looking what is really there, and reports and repairs what is not.

One loop for the start and for every repair: nothing counts as up because it was started, only because it was seen. Runs in the main
thread; everything slow about looking (pictures, the streaming server's answers) is the observer's.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import struct
from collections.abc import Callable
from pathlib import Path

from beamdesk.guest import cards, encoder, processes, stream
from beamdesk.guest.accounts import Person
from beamdesk.guest.components import BACKGROUND, DISPLAY_NUMBER, FIRST_SIZE, Component, Stage, components, environment
from beamdesk.guest.console import Console
from beamdesk.guest.errors import DisplayError
from beamdesk.guest.progress import Progress
from beamdesk.guest.silence import Silence
from beamdesk.guest.supervisor import Running, Supervisor
from beamdesk.guest.x11 import SOCKETS, DesktopProbe, Display
from beamdesk.guest.xresize import resize
from beamdesk.protocol.guest import Identity, StepName, StepState

_LOOK_FAST_S, _LOOK_S, _WATCH_S = 0.005, 0.04, 1.0
_CARD_LIMIT_S = 30.0
"""A streaming server on a card that does not answer for so long after its start hangs in the driver; one that works needs 1 s."""
_UNKILLABLE_S = 5.0
"""What still runs so long after SIGKILL hangs in the kernel."""
_DESKTOP_PATIENCE_S = 5.0
"""Programs that wait for the whole desktop start anyway after so long."""
_GRACE_S = 0.7


class Session:
    """The programs and the display of one person's desktop. ``tell``: shows the person a message."""

    def __init__(
        self,
        person: Person,
        identity: Identity,
        progress: Progress,
        console: Console,
        clock: Callable[[], float],
        tell: Callable[[str], None],
    ) -> None:
        self._person = person
        self._identity = identity
        self._progress = progress
        self._console = console
        self._clock = clock
        nodes = cards.render_nodes()
        self._environment = environment(person, identity, nodes)
        self._output = processes.Output(lambda name, line: console.say("output", program=name, line=line))
        self._tell = tell
        coding = encoder.settings(cards.nvidia_cards(), nodes)
        self._supervisor = Supervisor(components(person, identity.stream, coding), self._start, self._end, clock)
        self._fallen_back = ""
        self._stream_since = 0.0
        self._killed: tuple[int, float] | None = None
        self._display: Display | None = None
        self._display_since = 0.0
        self._silence = Silence(clock)
        self._stopping = False
        self._stuck: set[tuple[str, int]] = set()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.cookie = b""

    def stop(self) -> None:
        """Ask :meth:`run` to end; may be called by any thread or signal handler."""
        self._stopping = True
        self._wake()

    def report_stuck(self, name: str) -> None:
        """Have a program that runs but does not answer ended and started again; may be called by any thread."""
        process = self._supervisor.process(name)
        if process is not None:  # that one: by the time it is ended, a successor may have taken its place
            self._stuck.add((name, process.pid))
        self._wake()

    def pids(self) -> list[int]:
        """Return the process ids of the desktop's own programs."""
        return self._supervisor.pids()

    def stream_is_up(self) -> bool:
        """Tell whether the streaming server was seen to accept connections and has not ended since."""
        return self._progress.state(StepName.STREAM) is StepState.DONE

    def is_up(self) -> bool:
        """Tell whether the desktop is on the screen."""
        return self._progress.state(StepName.DESKTOP) is StepState.DONE

    def notify(self, title: str, text: str) -> processes.Process:
        """Show a message on the desktop."""
        command = ("/usr/bin/notify-send", "--app-name=Beamdesk", "--icon=beamdesk", "--urgency=critical", "--", title, text)
        return processes.start("notice", command, self._person, self._environment, self._output)

    def run(self) -> None:
        """Bring the desktop up and keep it up until :meth:`stop`."""
        stream.prepare(self._identity.stream.listen, self._person)
        SOCKETS.mkdir(mode=0o1777, exist_ok=True)
        SOCKETS.chmod(0o1777)
        self._set(StepName.DISPLAY, StepState.RUNNING)
        while not self._stopping:
            self._repair()
            self._look()
            self._supervisor.start_due(self._reached())
            self._wait()
        self._close_display()
        self._supervisor.stop_all()

    # -- programs

    def _start(self, component: Component) -> processes.Process:
        if component.name == "xserver":
            self._prepare_display()
        if component.name == "bus":
            (self._person.runtime / "bus").unlink(missing_ok=True)
        env = {**self._environment, **component.environment}
        process = processes.start(component.name, component.command, self._person, env, self._output, nice=component.nice)
        if component.victim:
            processes.prefer_as_victim(process)
        self._stream_since = self._clock() if component.name == "stream" else self._stream_since
        self._console.say("started", program=component.name, pid=process.pid)
        return process

    def _end(self, running: list[Running]) -> None:
        processes.stop_all([process for process in running if isinstance(process, processes.Process)], _GRACE_S)

    def _repair(self) -> None:
        while self._stuck:
            name, pid = self._stuck.pop()
            running = self._supervisor.process(name)
            if running is not None and running.pid == pid:
                self._kill(name, "does not answer")
        self._give_up_on_the_driver()
        for component in self._supervisor.reap():
            self._console.say("ended", program=component.name, cause=self._supervisor.cause(component.name))
            if component.vital:
                self._close_display()
        self._notice_fall_back()
        self._progress.fail(self._supervisor.failure())

    def _give_up_on_the_driver(self) -> None:
        """End a streaming server that hangs in the card's driver; where even that does not help, go on without it."""
        process = self._supervisor.process("stream")
        if process is None or not self._supervisor.has_spare("stream"):
            return
        up = self._progress.state(StepName.STREAM) is StepState.DONE
        if self._killed and self._killed[0] == process.pid:
            if self._clock() - self._killed[1] > _UNKILLABLE_S:
                self._supervisor.last_chance("stream")
                self._supervisor.abandon("stream")
        elif not up and self._clock() - self._stream_since > _CARD_LIMIT_S:
            self._supervisor.last_chance("stream")
            self._kill("stream", "does not begin to answer")

    def _notice_fall_back(self) -> None:
        """Tell once, on the desktop and on the console, that the picture is not coded by the card any more."""
        if not self._fallen_back and (how := self._supervisor.replaced("stream")):
            self._fallen_back = encoder.FALLEN_BACK.format(how=how)
            self._console.say("fallback", program="stream", cause=how)
            self._tell(self._fallen_back)

    def _kill(self, name: str, why: str) -> None:
        process = self._supervisor.process(name)
        if isinstance(process, processes.Process):
            self._console.say("killing", program=name, cause=why)
            self._killed = (process.pid, self._clock()) if name == "stream" else self._killed
            process.signal(signal.SIGKILL)

    # -- looking

    def _look(self) -> None:
        if self._display is None:
            self._connect()
        if self._display is not None:
            self._look_at_desktop(self._display)
        self._look_at_stream()

    def _connect(self) -> None:
        if self._supervisor.process("xserver") is None or not (SOCKETS / f"X{DISPLAY_NUMBER}").exists():
            return self._display_missing()
        display = None
        try:
            display = Display(DISPLAY_NUMBER, self.cookie)
            if not self._silence.in_use:  # else its size is the person's
                self._arrange(display)
            display.sync()
        except DisplayError as error:
            if display is not None:
                display.close()
            return self._display_missing(str(error))
        self._display = display
        if not self._silence.in_use:
            self._display_since = self._clock()
        self._silence.answered()
        return self._set(StepName.DISPLAY, StepState.DONE)

    def _arrange(self, display: Display) -> None:
        resize(display, *FIRST_SIZE)
        display.paint_root(BACKGROUND)
        # resizing left it in the lower right corner, where it would open a tooltip of the panel
        display.move_pointer(FIRST_SIZE[0] // 2, FIRST_SIZE[1] // 2)

    def _display_missing(self, why: str = "") -> None:
        if not self._silence.in_use:
            self._set(StepName.DISPLAY, StepState.RUNNING, self._supervisor.explained("xserver"))
        if self._supervisor.process("xserver") and self._silence.missed():
            self._kill("xserver", why or "does not answer")

    def _look_at_desktop(self, display: Display) -> None:
        try:
            missing = DesktopProbe(display).missing()
        except DisplayError as error:
            # what is on the screen stays: a slow server is asked again, a dead one is noticed by its end
            display.close()
            self._display = None
            return self._display_missing(str(error))
        if not missing:
            return self._set(StepName.DESKTOP, StepState.DONE)
        causes = "; ".join(filter(None, map(self._supervisor.explained, ("wm", "desktop", "panel"))))
        return self._set(StepName.DESKTOP, StepState.RUNNING, causes or f"waiting for {missing}")

    def _look_at_stream(self) -> None:
        listen = self._identity.stream.listen
        if self._supervisor.process("stream") is None:
            cause = self._supervisor.explained("stream")
            self._set(StepName.STREAM, StepState.RUNNING if cause else StepState.WAITING, cause)
        elif self._progress.state(StepName.STREAM) is not StepState.DONE:
            stream.open_to_gateway(listen)
            done = stream.accepts(listen)
            self._set(StepName.STREAM, StepState.DONE if done else StepState.RUNNING, self._fallen_back)

    def _set(self, name: StepName, state: StepState, detail: str = "") -> None:
        if state is StepState.RUNNING and self._supervisor.failure():
            state = StepState.FAILED
        self._progress.set(name, state, detail)

    # -- waiting

    def _reached(self) -> frozenset[Stage]:
        reached = {Stage.NOTHING}
        if self._display is not None and (self._person.runtime / "bus").exists():
            reached.add(Stage.DISPLAY)
            patient = self._clock() - self._display_since < _DESKTOP_PATIENCE_S
            if self._progress.state(StepName.DESKTOP) is StepState.DONE or not patient:
                reached.add(Stage.DESKTOP)
        return frozenset(reached)

    def _wait(self) -> None:
        states = {self._progress.state(name) for name in (StepName.DESKTOP, StepName.STREAM)}
        if self._display is None:
            pause = _LOOK_FAST_S if self._supervisor.process("xserver") else _LOOK_S
        else:
            pause = _WATCH_S if states == {StepState.DONE} else _LOOK_S
        poll = select.poll()
        for fd in (self._wake_reader, *self._supervisor.pidfds()):
            poll.register(fd, select.POLLIN)
        poll.poll(pause * 1000)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_reader, 4096)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_writer, b"\0")

    # -- display

    def _prepare_display(self) -> None:
        self._close_display()
        self._silence.server_started()
        self.cookie = secrets.token_bytes(16)
        write_authority(self._person, self.cookie)
        for leftover in (SOCKETS / f"X{DISPLAY_NUMBER}", SOCKETS.parent / f".X{DISPLAY_NUMBER}-lock"):
            leftover.unlink(missing_ok=True)

    def _close_display(self) -> None:
        if self._display:
            self._display.close()
            self._display = None
        for name in (StepName.DISPLAY, StepName.DESKTOP, StepName.STREAM):
            if self._progress.state(name) is StepState.DONE:
                self._set(name, StepState.RUNNING, "starting again")


def write_authority(person: Person, cookie: bytes) -> Path:
    """Write the X cookie where the person's programs look for it (Xau format, any host, display 0)."""
    path = person.runtime / "Xauthority"
    draft = person.runtime / ".Xauthority.new"
    draft.unlink(missing_ok=True)
    parts = (b"", str(DISPLAY_NUMBER).encode(), b"MIT-MAGIC-COOKIE-1", cookie)
    record = struct.pack(">H", 0xFFFF) + b"".join(struct.pack(">H", len(part)) + part for part in parts)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        os.fchown(fd, person.uid, person.gid)
        file.write(record)
    draft.rename(path)
    return path
