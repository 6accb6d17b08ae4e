"""Runs commands on and inside a root under construction, with everything they may break taken away afterwards.

All mounts are made in a mount namespace of our own, so that they vanish with the process however it ends. Commands inside a root
get their own process namespace: nothing that a package starts can outlive its step.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .errors import BuildError

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE, _MS_BIND = 0x4000, 0x40000, 0x1000
_MNT_DETACH = 2
_TAIL_LINES = 12
_libc = ctypes.CDLL(None, use_errno=True)


def own_mounts() -> None:
    """Move this process to a mount namespace of its own, from which nothing propagates to the host."""
    _check(_libc.unshare(_CLONE_NEWNS), "make a mount namespace")
    _mount("none", Path("/"), "", _MS_REC | _MS_PRIVATE)


def mount_overlay(lowers: Sequence[Path], upper: Path, work: Path, target: Path) -> None:
    """Mount an overlay of ``lowers`` (topmost first) with a writable ``upper`` at ``target``."""
    options = f"lowerdir={':'.join(map(str, lowers))},upperdir={upper},workdir={work}"
    _mount("overlay", target, "overlay", 0, options)


def bind(source: Path, target: Path) -> None:
    """Bind-mount the file or folder ``source`` at ``target``, which is made if it is missing."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(str(source), target, "", _MS_BIND | _MS_REC)


def unmount(target: Path) -> None:
    """Detach the mount at ``target``."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"unmount {target}")


def _mount(source: str, target: Path, kind: str, flags: int, options: str = "") -> None:
    result = _libc.mount(source.encode(), os.fsencode(target), kind.encode(), flags, options.encode() or None)
    _check(result, f"mount {source} at {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise BuildError(f"cannot {what}: {os.strerror(error)} (images are built as root)")


class Log:
    """The log file of one layer's build; keeps its last lines for the error message."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w", encoding="utf-8", errors="replace")
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def write(self, line: str) -> None:
        """Append one line."""
        self._file.write(line + "\n")
        self._file.flush()
        if line.strip():
            self._tail.append(line)

    def failure(self, what: str) -> BuildError:
        """Return the error for a failed step, with the log's last lines and its path."""
        lines = "".join(f"\n    {line}" for line in self._tail)
        return BuildError(f"{what} failed; the last lines of {self.path}:{lines}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def run(
    log: Log,
    what: str,
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run a command on the host with its output in the log.

    Args:
        log: where every line goes.
        what: the step in the words of the error message.
        command: argument list.
        env: the whole environment; ours if None.
        on_line: sees every line as well.

    Raises:
        BuildError: it cannot be started or exits with an error.
    """
    log.write(f"+ {' '.join(command)}")
    if not shutil.which(command[0]):
        raise BuildError(f"{what} needs the program {command[0]}, which is not installed")
    # whoever kills this program kills what it started too
    with subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=env,
    ) as process:
        try:
            for line in process.stdout or ():
                log.write(line.rstrip("\n"))
                if on_line:
                    on_line(line.rstrip("\n"))
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise log.failure(what)


def run_inside(
    log: Log,
    what: str,
    root: Path,
    command: Sequence[str],
    *,
    network: bool = False,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run a command inside ``root``: clean environment, own processes and, unless ``network``, no network; see :func:`run`."""
    namespaces = ["unshare", "--pid", "--fork", "--kill-child", "--uts", "--ipc", f"--mount-proc={root}/proc"]
    if not network:
        namespaces.append("--net")
    inside = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        **(env or {}),
    }
    run(log, what, [*namespaces, "chroot", str(root), *command], env=inside, on_line=on_line)
