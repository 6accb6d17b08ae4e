"""Start one container: a child prepares the mounts, joins the limits and becomes systemd-nspawn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable

from beamdesk.adapters.local.helper import children, nspawn, stage, syscalls
from beamdesk.adapters.local.helper.config import Config
from beamdesk.adapters.local.helper.errors import HelperError
from beamdesk.adapters.local.helper.plan import Plan

_SYSCTL = "/proc/sys/user/max_user_namespaces"


async def start(config: Config, plan: Plan, join: Callable[[], None], output_fd: int) -> int:
    """Fork the container's supervisor with its output on ``output_fd`` and return its process id once it runs systemd-nspawn.

    Raises:
        HelperError: the set-up failed, with the cause; nothing is left of it.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    try:
        pid = children.fork(lambda: _become_container(config, plan, join, write_end, output_fd))
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    try:
        failure = await _read_all(read_end)
    except BaseException:  # out of time: it must not become a container behind our back
        os.kill(pid, signal.SIGKILL)
        await children.wait(pid)
        raise
    if failure:
        await children.wait(pid)
        error = json.loads(failure)
        raise HelperError(error["code"], error["detail"])
    return pid


def _become_container(config: Config, plan: Plan, join: Callable[[], None], status_fd: int, output_fd: int) -> None:
    """Run in the child; the close-on-exec ``status_fd`` says why it failed, or nothing when systemd-nspawn runs."""
    try:
        os.setsid()
        staged = stage.build(config, plan)
        arguments = nspawn.command(plan, staged, config.init)
        # Only now: the device filter of these groups would also keep us from the loop device.
        join()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.dup2(output_fd, 1)
        os.dup2(output_fd, 2)
        os.umask(0o022)
        os.execve(nspawn.PROGRAM, arguments, nspawn.environment(config.notify_socket))  # noqa: S606 - no shell is the point
    except HelperError as error:
        _report(status_fd, error.code, error.detail)
    except OSError as error:
        what = f" ({error.filename})" if error.filename else ""
        _report(status_fd, "failed", f"The container cannot be prepared: {error.strerror}{what}.")


def _report(status_fd: int, code: str, detail: str) -> None:
    os.write(status_fd, json.dumps({"code": code, "detail": detail}).encode())


async def _read_all(read_end: int) -> bytes:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(read_end, readable.set)
    content = b""
    try:
        while True:
            await readable.wait()
            readable.clear()
            with contextlib.suppress(BlockingIOError):
                chunk = os.read(read_end, 65536)
                content += chunk
                if not chunk:
                    return content
    finally:
        loop.remove_reader(read_end)
        os.close(read_end)


async def forbid_user_namespaces(leader: int) -> bool:
    """Let nobody in the container make user namespaces: they would give any user the kernel's whole attack surface again.

    Returns false when that failed: then the container has ended, or must not run on.
    """

    def work() -> None:
        try:
            namespace = os.open(f"/proc/{leader}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # it has ended
            os._exit(1)
        syscalls.setns(namespace, syscalls.CLONE_NEWUSER)
        # Which namespace's limit this file is, is decided by who opens it; no capability is left inside to raise it again.
        sysctl = os.open(_SYSCTL, os.O_WRONLY | os.O_CLOEXEC)
        os.write(sysctl, b"0\n")

    return await children.wait(children.fork(work)) == 0
