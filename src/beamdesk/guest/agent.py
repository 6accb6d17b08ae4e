"""The agent from its first instruction to its last: enrol, make the account, check the storage, run the session."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

from beamdesk.guest import accounts, cards, gpu, metadata, processes, storage
from beamdesk.guest.activity import CpuMeter
from beamdesk.guest.client import GuestApi
from beamdesk.guest.config import AgentConfig, AgentFiles
from beamdesk.guest.console import Console
from beamdesk.guest.errors import ApiUnavailable, GuestError, Refused
from beamdesk.guest.gpu import GpuMeter
from beamdesk.guest.observer import Observer
from beamdesk.guest.progress import Progress
from beamdesk.guest.reporter import Reporter
from beamdesk.guest.session import Session
from beamdesk.protocol.guest import NO_CARD_WORKS, Identity, StepName, StepState

_FIRST_RETRY_S, _LAST_RETRY_S = 0.05, 2.0
_MAX_MESSAGE = 500


class Agent:
    """One run of the agent. ``clock``: monotonic seconds."""

    def __init__(self, files: AgentFiles, console: Console, clock: Callable[[], float]) -> None:
        self._files = files
        self._console = console
        self._clock = clock
        self._progress = Progress(console)
        self._stopped = threading.Event()
        self._exit_code = 0
        self._session: Session | None = None
        self._gpu: GpuMeter | None = None
        self._notices: list[processes.Process] = []
        self._showing = threading.Lock()

    def run(self) -> int:
        """Run until told to stop; return the exit code (1: we are refused or cannot even begin)."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self.stop())
        processes.forbid_new_privileges()
        try:
            config = self._files.config()
            api = GuestApi(config.enrol_url, ca=config.ca)
            identity = self._enrol(api, config)
        except GuestError as error:
            self._console.say("failure", cause=error)
            return 1
        if identity is None:
            return 0
        self._serve(identity, api, GuestApi(config.enrol_url, ca=config.ca))
        self._console.say("stopped")
        return self._exit_code

    def stop(self) -> None:
        """End soon; may be called by any thread or signal handler."""
        self._stopped.set()
        if self._session:
            self._session.stop()

    # -- enrolment

    def _enrol(self, api: GuestApi, config: AgentConfig) -> Identity | None:
        """Return our identity, kept or new; None if told to stop meanwhile."""
        self._progress.set(StepName.ENROL, StepState.RUNNING)
        nonce = "" if config.persistent and not self._files.has_nonce() else self._files.nonce()
        identity = None if nonce else self._files.identity()
        if identity and (fresh := metadata.nonce()) and not self._files.was_spent(fresh):
            nonce = fresh  # stopped and started again: the kept identity is worthless
        if nonce or identity is None:
            nonce = nonce or self._files.nonce()
            self._console.hide(nonce)
            identity = self._spend(api, nonce)
            if identity and config.persistent:
                self._files.keep(config, identity, nonce)
        if identity:
            self._console.hide(identity.token)
            self._console.hide(identity.stream.secret)
            self._progress.set(StepName.ENROL, StepState.DONE)
        return identity

    def _spend(self, api: GuestApi, nonce: str) -> Identity | None:
        pause = _FIRST_RETRY_S
        while not self._stopped.is_set():
            try:
                identity = api.enrol(nonce)
            except ApiUnavailable as error:
                if pause == _FIRST_RETRY_S:
                    self._console.say("waiting", cause=error)
                self._stopped.wait(pause)
                pause = min(2 * pause, _LAST_RETRY_S)
                continue
            except Refused:
                self._files.spend_nonce()
                raise
            self._files.spend_nonce()
            return identity
        return None

    # -- service

    def _serve(self, identity: Identity, api: GuestApi, picture_api: GuestApi) -> None:
        for client in (api, picture_api):
            client.use_token(identity.token)
        observer: Observer | None = None
        cpu = CpuMeter(self._own_pids, self._clock)
        started = self._clock()
        reporter = Reporter(
            self._progress,
            api,
            cpu,
            self._gpu_share,
            lambda: observer.idle_s() if observer else self._clock() - started,
            self._show,
            self._refuse,
            self._console,
            self._clock,
        )
        reporter.start()
        try:
            person = self._prepare(identity)
            if person:
                self._gpu = self._watch_cards(person)
                self._session = Session(person, identity, self._progress, self._console, self._clock, self._show)
                observer = Observer(self._session, identity.stream.listen, picture_api, self._console, self._clock)
                observer.start()
                if not self._stopped.is_set():
                    self._session.run()
                observer.close()
            else:
                self._stopped.wait()
        finally:
            reporter.close()
            if self._gpu:
                self._gpu.close()

    def _gpu_share(self) -> float | None:
        if self._gpu:
            return self._gpu.share()
        return None if cards.has_card() else NO_CARD_WORKS

    def _watch_cards(self, person: accounts.Person) -> GpuMeter:
        return GpuMeter(
            lambda output: gpu.launch(person, output),
            cards.has_card,
            self._clock,
            lambda words: self._console.say("gpu", cause=words),
        )

    def _prepare(self, identity: Identity) -> accounts.Person | None:
        """Make the account and check the storage; None (and the cause is told) if that cannot be done."""
        step = StepName.ACCOUNT
        try:
            self._progress.set(step, StepState.RUNNING)
            person = accounts.with_devices(accounts.ensure(identity.account), cards.groups())
            accounts.make_runtime(person)
            # a home of its own comes before what is put into it
            storage.ensure(tuple(mount for mount in identity.mounts if mount.target == str(person.home)))
            accounts.fill_home(person)
            self._progress.set(step, StepState.DONE)
            step = StepName.STORAGE
            self._progress.set(step, StepState.RUNNING)
            storage.ensure(identity.mounts)
            self._progress.set(step, StepState.DONE, storage.home_warning(person))
        except (GuestError, OSError) as error:
            self._progress.set(step, StepState.FAILED, str(error))
            self._progress.fail(str(error))
            return None
        return person

    def _own_pids(self) -> list[int]:
        own = [int(Path("/proc/self").readlink().name)]
        own += self._gpu.pids() if self._gpu else []
        return own + (self._session.pids() if self._session else [])

    def _show(self, message: str) -> None:
        with self._showing:  # the reporter's thread and the session's
            for notice in [notice for notice in self._notices if notice.ended() is not None]:
                notice.close()
                self._notices.remove(notice)
            if self._session and self._progress.state(StepName.DESKTOP) is StepState.DONE:
                self._console.say("message", text=message)
                self._notices.append(self._session.notify("Beamdesk", message[:_MAX_MESSAGE]))

    def _refuse(self) -> None:
        self._exit_code = 1
        self.stop()
