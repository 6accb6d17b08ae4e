"""Namespaces of our own for a cloud that boots machines, so that nothing of the outer machine is touched.

Two of them. :func:`network` moves this thread, and whatever it starts, to a network with nothing in it but loopback and a pair of virtual
cables: machines are on one end (libvirt puts macvtap devices there), the other end is "the site" as machines see it. :func:`holder`
is a process in which libvirt's folders are private and whose end is the end of everything in it, QEMU too; run as a program
(``enclosure.py FOLDER``) this file is the first process there.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HOST = "10.60.0.1"
"""The outer world as machines see it: gateway of the subnet `content.SUBNET`."""
METADATA = "169.254.169.254"
MACHINES_END, HOST_END = "beamdesk0", "beamdesk1"
_MTU = 1400  # as Neutron tells the machines (`global_physnet_mtu`)
_NEW_NETWORK, _NEW_MOUNTS, _NEW_PROCESSES = 0x40000000, 0x00020000, 0x20000000  # CLONE_NEW..., unshare(2)
_PR_SET_PDEATHSIG = 1
_PRIVATE = ("/etc", "/run", "/var/lib", "/var/log", "/var/cache")
"""Where libvirt writes: changes stay in memory, and nobody outside sees them."""
_QEMU = """
user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "logd"
"""
_LIBVIRTD = """
auth_unix_rw = "none"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
host_uuid = "7e3f8a52-0c5d-4a57-9a3b-5d1f6b0c9e21"
"""

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def network() -> Iterator[None]:
    """Have this thread, and the threads and processes that it starts, in a new network for a while. Needs root.

    Raises:
        OSError: the kernel refuses.
    """
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.unshare(_NEW_NETWORK))
        try:
            _connect()
            yield
        finally:
            _checked(_libc.setns(before, _NEW_NETWORK))
    finally:
        os.close(before)


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _connect() -> None:
    for command in (
        "link set lo up",
        f"link add {MACHINES_END} mtu {_MTU} type veth peer name {HOST_END} mtu {_MTU}",
        f"address add {HOST}/16 dev {HOST_END}",
        f"address add {METADATA}/32 dev {HOST_END}",
        f"link set {MACHINES_END} up",
        f"link set {HOST_END} up",
    ):
        subprocess.run(["ip", *command.split()], check=True)


def holder(folder: Path) -> list[str | Path]:
    """Return the command of the process that holds the private folders; ``folder`` shows libvirt's sockets to the outside."""
    return [sys.executable, "-I", Path(__file__).resolve(), folder]


def inside(pid: int, command: Sequence[str | Path]) -> list[str | Path]:
    """Return ``command`` as it runs beside the holder's first process; ``pid`` is the holder's."""
    first = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return ["nsenter", f"--mount=/proc/{first}/ns/mnt", f"--pid=/proc/{first}/ns/pid", *command]


def is_ready(folder: Path) -> bool:
    """Tell whether the private folders are there."""
    return (folder / "ready").exists()


def _make_private(folder: Path) -> None:
    """Put a layer over what libvirt writes to; show its sockets in ``folder``, and only there."""
    (folder / "ready").unlink(missing_ok=True)
    for sub in ("sockets", "layers"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    _mount("--make-rprivate", "/")
    _mount("-t", "proc", "proc", "/proc")
    _mount("-t", "tmpfs", "tmpfs", folder / "layers")
    for number, path in enumerate(_PRIVATE):
        upper, work = folder / f"layers/{number}/upper", folder / f"layers/{number}/work"
        upper.mkdir(parents=True)
        work.mkdir()
        _mount("-t", "overlay", "overlay", "-o", f"lowerdir={path},upperdir={upper},workdir={work}", path)
    for path in ("/run/libvirt", "/etc/libvirt"):
        Path(path).mkdir(exist_ok=True)
    _mount("--bind", folder / "sockets", "/run/libvirt")
    _mount("-t", "sysfs", "sysfs", "/sys")  # that of this network; without control groups, which libvirt would use
    for path, line in (
        ("/etc/passwd", "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin"),
        ("/etc/group", "libvirt-qemu:x:64055:"),
    ):
        with Path(path).open("a") as accounts:  # libvirtd asks for its package's account even where root runs QEMU
            accounts.write(f"{line}\n")
    Path("/etc/libvirt/qemu.conf").write_text(_QEMU)
    Path("/etc/libvirt/libvirtd.conf").write_text(_LIBVIRTD)
    (folder / "ready").touch()


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def _reap() -> None:
    """Live on as the first process: take note of every end, or those who wait for it wait forever."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigwait({signal.SIGCHLD})
        while _reaped():
            pass


def _reaped() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _main(folder: Path) -> None:
    """Be the holder: its child is the first process of the new namespaces and ends with it."""
    _checked(_libc.unshare(_NEW_MOUNTS | _NEW_PROCESSES))
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
    _make_private(folder)
    _reap()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
