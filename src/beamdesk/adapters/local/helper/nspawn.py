"""The command line of systemd-nspawn for a prepared container.

systemd-nspawn makes the namespaces, drops the capabilities and loads the seccomp filter; mounts and limits are ready before.
No secret may ever stand here: command lines are public.
"""

from __future__ import annotations

from pathlib import Path

from beamdesk.adapters.local.helper.idmap import RANGE
from beamdesk.adapters.local.helper.plan import Plan
from beamdesk.adapters.local.helper.stage import Stage

PROGRAM = "/usr/bin/systemd-nspawn"

DROPPED_CAPABILITIES = (
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_WRITE",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_NICE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TTY_CONFIG",
)
"""All that systemd-nspawn would leave but CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID and SETUID: what an agent that sets
up a person's session needs. Without SYS_ADMIN root inside can neither mount nor remount."""


def command(plan: Plan, stage: Stage, init: tuple[str, ...]) -> tuple[str, ...]:
    """Return the argument list that starts ``plan`` on ``stage`` with ``init`` as its first own process."""
    binds = tuple(f"--bind{'-ro' if bind.read_only else ''}={bind.source}:{bind.target}" for bind in stage.binds)
    return (
        PROGRAM,
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--settings=no",
        f"--directory={stage.root}",
        f"--machine=beamdesk-{plan.desktop_id}",
        f"--hostname=desktop-{plan.desktop_id[:8]}",
        f"--private-users={plan.base}:{RANGE}",
        "--private-users-ownership=off",
        "--private-network",
        "--no-new-privileges=yes",
        f"--drop-capability={','.join(DROPPED_CAPABILITIES)}",
        "--rlimit=CORE=0",
        "--oom-score-adjust=0",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--console=pipe",
        "--as-pid2",
        "--setenv=PYTHONPATH=/opt/beamdesk/lib",
        "--setenv=PYTHONUNBUFFERED=1",
        *binds,
        "--",
        *init,
    )


def environment(notify_socket: Path) -> dict[str, str]:
    """Return systemd-nspawn's own environment: nothing of the helper's, and where it names the container's first process."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "NOTIFY_SOCKET": str(notify_socket),
        "SYSTEMD_LOG_TARGET": "console",
        # /tmp on the container's own scratch space, whose size is ours, and not on another file system in memory
        "SYSTEMD_NSPAWN_TMPFS_TMP": "0",
    }
