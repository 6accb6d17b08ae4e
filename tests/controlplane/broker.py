"""A private RabbitMQ node: its listener, its Erlang distribution and its epmd are on loopback."""

from __future__ import annotations

import socket

from .layout import Layout
from .processes import Processes, wait_for

_COOKIE = "beamdesk"


def start(layout: Layout, processes: Processes) -> None:
    """Start the broker; `wait` returns when it takes connections."""
    home = layout.root / "rabbit"
    (home / "home").mkdir(parents=True, exist_ok=True)
    (home / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{layout.ports['rabbit']}\n"
        "loopback_users = none\n"
        "vm_memory_high_watermark.absolute = 1GB\n"
        "disk_free_limit.absolute = 100MB\n"
        "log.console = true\nlog.console.level = warning\nlog.file = false\n"
    )
    (home / "enabled_plugins").write_text("[].\n")
    epmd = str(layout.ports["epmd"])
    processes.spawn("epmd", ["epmd", "-address", "127.0.0.1", "-port", epmd])
    processes.spawn("rabbit", ["/usr/lib/rabbitmq/bin/rabbitmq-server"], {
        "HOME": str(home / "home"),
        "RABBITMQ_NODENAME": f"beamdesk{layout.ports['rabbit']}@localhost",
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_DIST_PORT": str(layout.ports["rabbit-distribution"]),
        "RABBITMQ_CTL_ERL_ARGS": f"-setcookie {_COOKIE}",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-setcookie {_COOKIE} +S 2:2 +sbwt none -kernel inet_dist_use_interface {{127,0,0,1}}",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": epmd,
    })  # fmt: skip


def wait(layout: Layout) -> None:
    """Return when the broker listens."""
    wait_for(lambda: listening(layout.ports["rabbit"]), "RabbitMQ (log/rabbit.log)")


def listening(port: int) -> bool:
    """Tell whether a loopback port takes connections."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
