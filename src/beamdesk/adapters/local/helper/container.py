"""One running container: its processes, its console, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from dataclasses import dataclass, field
from pathlib import Path

from beamdesk.adapters.local.helper import children, launch, loop, notify, syscalls
from beamdesk.adapters.local.helper.cgroup import Cgroups, GroupLimits
from beamdesk.adapters.local.helper.config import Config
from beamdesk.adapters.local.helper.console import Console, last_words
from beamdesk.adapters.local.helper.devices import STANDARD, Card
from beamdesk.adapters.local.helper.errors import HelperError
from beamdesk.adapters.local.helper.plan import Plan

START_TIMEOUT_S = 20.0
GRACE_S = 0.5
"""How long processes may tidy up after SIGTERM before they are killed: stopping takes less than a second."""
RELEASE_TIMEOUT_S = 30.0
"""How long the kernel may take to write back and release a home after the last process died."""
_KILLED = 255
"""What systemd-nspawn returns when the first process ended by a signal."""
_STREAM_OPTIONS = "size=64k,nr_inodes=16"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a container holds of the machine while it runs."""

    base: int
    vcpus: int
    memory_mib: int
    cards: tuple[Card, ...]
    shared: bool = False


@dataclass(slots=True)
class Container:
    """A container from its start until everything of it is gone (``released``)."""

    plan: Plan
    grant: Grant
    config: Config
    cgroups: Cgroups
    leaders: notify.Leaders
    supervisor: int = 0
    leader_fd: int = -1
    exit_status: int = 0
    out_of_memory: int = 0
    stopping: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _console: Console | None = None
    _watcher: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The desktop's id; also the name of its control groups."""
        return self.plan.desktop_id

    async def start(self) -> None:
        """Start it and return when its first process runs (it may have ended by then), or leave nothing behind.

        Raises:
            HelperError: with the cause.
        """
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._start()
        except BaseException as error:
            await self._abort()
            if isinstance(error, TimeoutError):
                raise HelperError("failed", "The container did not start in time.") from error
            if isinstance(error, OSError):
                raise HelperError("failed", f"The container cannot be limited or mounted: {error}.") from error
            raise

    async def _start(self) -> None:
        make_stream(self.plan.stream_dir, self.plan.base + self.plan.account.uid)
        self.cgroups.create(self.name, self._limits())
        read_end, write_end = os.pipe()
        self._console = Console(self.config.console_dir / f"{self.name}.log", read_end)
        try:
            self.supervisor = await launch.start(self.config, self.plan, lambda: self.cgroups.join(self.name), write_end)
        finally:
            os.close(write_end)
        leader = self.leaders.expect(self.supervisor)
        self._watcher = asyncio.create_task(self._watch())
        self._watcher.add_done_callback(lambda _watcher: leader.cancel())
        await asyncio.wait({leader})
        if not leader.cancelled():
            await self._adopt(leader.result())

    async def _adopt(self, leader: int) -> None:
        """Hold the container's first process and finish its isolation; one that has ended already is for the watcher."""
        pidfd = notify.open_leader(leader, self.supervisor)
        if pidfd is None:
            return
        self.leader_fd = pidfd
        if not await launch.forbid_user_namespaces(leader) and not _has_ended(pidfd):
            raise HelperError("failed", "The container's user namespaces cannot be limited.")

    def _limits(self) -> GroupLimits:
        rules = (*STANDARD, *{node.rule: None for card in self.grant.cards for node in card.nodes})
        return GroupLimits(self.grant.vcpus, self.grant.memory_mib * 2**20, self.config.pids_max, rules)

    async def _watch(self) -> None:
        self.exit_status = await children.wait(self.supervisor)
        self.out_of_memory = self.cgroups.out_of_memory_kills(self.name)
        self.ended.set()

    async def stop(self) -> None:
        """Ask every process to end, then kill what is left; return when all is gone."""
        self.stopping = True
        if not self.ended.is_set():
            self._terminate()
            try:
                async with asyncio.timeout(GRACE_S):
                    await self.ended.wait()
            except TimeoutError:
                self._kill()
                await self.ended.wait()
        await self.release()

    def _terminate(self) -> None:
        for pid in self.cgroups.processes(self.name):
            if pid != self.supervisor:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    def _kill(self) -> None:
        """End the container's first process, and with it by the kernel all others, then the supervisor."""
        with contextlib.suppress(OSError):
            if self.leader_fd >= 0:
                signal.pidfd_send_signal(self.leader_fd, signal.SIGKILL)
        self.cgroups.kill(self.name)
        with contextlib.suppress(ProcessLookupError):
            if self.supervisor and not self.ended.is_set():
                os.kill(self.supervisor, signal.SIGKILL)

    async def release(self) -> None:
        """Return everything the ended container held; waits until the kernel has let go of its home."""
        self.cgroups.kill(self.name)
        if self._console:
            self._console.close()
        if self.leader_fd >= 0:
            os.close(self.leader_fd)
            self.leader_fd = -1
        remove_stream(self.plan.stream_dir)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                # The kernel has no event for either.
                while not self.cgroups.remove(self.name) or loop.is_attached(self.plan.home_image):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)

    async def _abort(self) -> None:
        self.stopping = True
        if self.supervisor:
            self._kill()
            await self.ended.wait()
        await self.release()

    def cause(self) -> str:
        """Explain an end that nobody asked for, with the container's last words; empty when the desktop shut itself down."""
        if self.exit_status == 0:
            return ""
        words = last_words(self.config.console_dir / f"{self.name}.log")
        return f"{self._reason()} Its last words: {words}" if words else self._reason()

    def _reason(self) -> str:
        if self.out_of_memory:
            return "The desktop ended after processes were killed at its memory limit; choose a larger size."
        if self.exit_status < 0:
            return f"The desktop's supervising process was killed (signal {-self.exit_status})."
        if self.exit_status == _KILLED:
            return "The desktop's first process was killed or crashed."
        return f"The desktop's first process ended with status {self.exit_status}."


def _has_ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 0)[0])


def make_stream(folder: Path, owner: int) -> None:
    """Mount the tiny file system in which the streaming socket appears; only ``owner`` can write, and only a little."""
    remove_stream(folder)
    folder.mkdir(mode=0o711)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("beamdesk", str(folder), "tmpfs", flags, f"{_STREAM_OPTIONS},mode=0755,uid={owner},gid={owner}")


def remove_stream(folder: Path) -> None:
    """Unmount and remove it; absent is fine."""
    with contextlib.suppress(OSError):
        while True:  # more than one mount only after a crash in between
            syscalls.umount(str(folder), syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
    with contextlib.suppress(OSError):
        folder.rmdir()
