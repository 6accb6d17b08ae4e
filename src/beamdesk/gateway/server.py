"""The gateway's process: one port, nothing else on its event loop (uvloop), no state but the streams that it relays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from beamdesk.app.connections import Attached
from beamdesk.app.context import App
from beamdesk.gateway.assets import load_assets
from beamdesk.gateway.config import GatewaySettings
from beamdesk.gateway.connection import Connection, Hub
from beamdesk.gateway.site import Site
from beamdesk.gateway.streams import Streams, Watcher
from beamdesk.gateway.upstream import StreamServer

_log = structlog.get_logger("beamdesk.gateway")


async def run(app: App, settings: GatewaySettings, stop: asyncio.Event, started: Callable[[int], None] | None = None) -> None:
    """Serve until ``stop`` is set; ``started`` is told the port that is listened on.

    Raises:
        ConfigurationError: the stream client is missing. OSError: the port is taken.
    """
    assets = load_assets(settings.selkies_web_dir)
    streams = Streams()

    async def open_stream(attached: Attached, key: str) -> tuple[asyncio.Transport, bytes]:
        desktop = StreamServer(attached.address, attached.stream_secret, settings.run_dir_prefix, settings.limits)
        async with app.store.begin() as tx:
            sessions = await tx.sessions.open_sessions(attached.desktop.id, app.clock.now())
        await desktop.push_sessions(sessions)
        return await desktop.open_stream(attached.session.id, key)

    hub = Hub(settings, Site(app, assets, settings.portal_origin), streams, open_stream)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Connection(hub), settings.host, settings.port, ssl=settings.tls(), backlog=512)
    watcher = asyncio.create_task(Watcher(app, streams, poll_s=settings.revocation_poll_s, grace_s=settings.store_grace_s).run())
    port: int = listener.sockets[0].getsockname()[1]
    _log.info("gateway.listening", host=settings.host, port=port, tls=settings.tls_certificate is not None)
    if started is not None:
        started(port)
    try:
        await stop.wait()
    finally:
        listener.close()
        watcher.cancel()
        _hang_up(hub)
        await asyncio.gather(watcher, *hub.tasks, return_exceptions=True)


def _hang_up(hub: Hub) -> None:
    hub.streams.cut(hub.streams.all(), "gateway_stops")
    for connection in tuple(hub.connections):
        connection.transport.abort()
    for task in hub.tasks:
        task.cancel()
