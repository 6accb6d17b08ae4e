"""Puts the parts together, once per process. The only module that knows which adapter stands behind which port."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Any

import structlog
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from beamdesk.adapters.catalog import FileCatalog
from beamdesk.adapters.fake.world import FileWorld
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.adapters.system import SystemClock, SystemSecrets
from beamdesk.app.context import App, SiteRules
from beamdesk.app.data import Data
from beamdesk.domain.catalog import Resources
from beamdesk.domain.errors import CloudError, ConfigurationError, NotSupported
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.domain.storage import GuestSite
from beamdesk.pace import reconcile_rules
from beamdesk.ports.catalog import Catalog
from beamdesk.ports.cloud import Cloud, ServerOperations
from beamdesk.ports.files import ExperimentFiles
from beamdesk.ports.identity import PasswordSignIn
from beamdesk.ports.placing import HostSource
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.wire import read_snapshot
from beamdesk.settings import Settings
from beamdesk.telemetry import configure_logging

log = structlog.get_logger()

_CAPACITY_FRESH_S = 10.0
_GUEST_CONNECTIONS = 4096
"""Two for each of 2000 desktops; more is nothing that desktops do."""


def run(process: str, settings: Settings) -> None:
    """Run one service until SIGTERM.

    Raises:
        ConfigurationError: the settings or what they name cannot work.
    """
    configure_logging(process, level=settings.log_level, log_format=settings.log_format)
    services: dict[str, Callable[[Settings, asyncio.Event], Awaitable[None]]] = {
        "serve": serve,
        "reconcile": reconcile,
        "gateway": gateway,
    }
    uvloop.run(_until_told(services[process], settings))


async def _until_told(service: Callable[[Settings, asyncio.Event], Awaitable[None]], settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    log.info("process.started")
    await service(settings, stop)
    log.info("process.stopped")


@dataclass(slots=True)
class _CapacityReader:
    """What the cloud offers in total, asked at most every ten seconds; the last answer while it does not answer."""

    cloud: Cloud
    _value: Resources | None = None
    _until: float = 0.0

    async def __call__(self) -> Resources | None:
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            try:
                total = await self.cloud.capacity()
                self._value = Resources(total.vcpus, total.memory_mib, total.disk_gib, total.gpus) if total else None
                self._until = now + _CAPACITY_FRESH_S
            except NotSupported:
                raise
            except CloudError:
                log.debug("capacity.unknown")
        return self._value


def desktop_origin(settings: Settings) -> Callable[[DesktopId], str]:
    """Return the function that names a desktop's own origin."""

    def origin(desktop_id: DesktopId) -> str:
        default = 443 if settings.scheme == "https" else 80
        port = "" if settings.gateway_port == default else f":{settings.gateway_port}"
        return f"{settings.scheme}://d-{desktop_id}.{settings.desktop_domain}{port}"

    return origin


def open_cloud(settings: Settings) -> Cloud:
    """Return the driver that the settings name."""
    if settings.cloud == "local":
        from beamdesk.adapters.local.client import HelperClient
        from beamdesk.adapters.local.driver import LocalCloud

        return LocalCloud(
            HelperClient(settings.helper_socket),
            settings.read_deployment_id(),
            aggregates=frozenset(settings.capacity.aggregates),
            dedicated=settings.capacity.dedicated,
        )
    if settings.cloud == "openstack":
        from beamdesk.adapters.openstack.driver import OpenStackCloud

        return OpenStackCloud(settings.openstack.config(), settings.read_deployment_id())
    from beamdesk.adapters.fake.cloud import FakeCloud

    return FakeCloud(SystemClock(), world=_fake_world(settings), places=_fake_hosts(settings))


def _fake_hosts(settings: Settings) -> Callable[[], tuple[HostFacts, ...]] | None:
    """Return the reader of the fake cloud's hosts, where a file describes them: a scheduling snapshot, read anew each time."""
    path = settings.app_dir / "fake-hosts.json"
    return (lambda: read_snapshot(path.read_bytes()).snapshot.hosts) if path.exists() else None


def _fake_world(settings: Settings) -> FileWorld:
    return FileWorld(settings.app_dir / "fake-cloud.json")


def guest_site(settings: Settings) -> GuestSite:
    """Return what desktops of this site become when they enrol."""
    if settings.cloud != "openstack":
        return GuestSite()
    return GuestSite(
        stream_listen=f"tcp:0.0.0.0:{settings.openstack.stream_port}",
        areas=tuple(area.storage_area() for area in settings.guest.storage),
        home_volume=settings.openstack.home.kind == "volume",
    )


@asynccontextmanager
async def open_app(settings: Settings, cloud: Cloud) -> AsyncIterator[App]:
    """Open the store and build the application around it."""
    store = await SqlStore.open(settings.store_url)

    async def console(server_id: ServerId) -> str:
        return await cloud.console_log(server_id)

    try:
        async with _open_catalog(settings) as catalog:
            yield App(
                store=store,
                catalog=catalog,
                clock=SystemClock(),
                secrets=SystemSecrets(),
                sign_in=await _demo_sign_in(settings, store) if settings.demo else None,
                rules=SiteRules(
                    lease=settings.lease.rules(),
                    person_quota=settings.person_quota.quota(),
                    experiment_quota=settings.experiment_quota.quota(),
                    srm=settings.srm.rules(),
                    policy=settings.scheduling.policy,
                ),
                capacity=_CapacityReader(cloud),
                desktop_origin=desktop_origin(settings),
                portal_origin=settings.origin,
                console=console,
                screen=cloud.console_url if isinstance(cloud, ServerOperations) else None,
                guest_site=guest_site(settings),
                hosts=cloud.hosts if isinstance(cloud, HostSource) else None,
            )
    finally:
        await store.close()


@asynccontextmanager
async def _open_catalog(settings: Settings) -> AsyncIterator[Catalog]:
    """Yield the catalogue: the image builder's file, or the first place of the cloud."""
    if settings.cloud != "openstack":
        yield FileCatalog(settings.cache_dir / "images" / "catalog.json", tuple(f.flavor() for f in settings.flavors))
        return
    from beamdesk.adapters.openstack.catalog import OpenStackCatalog
    from beamdesk.adapters.openstack.catalog_source import read_lists
    from beamdesk.adapters.openstack.connection import Connection

    config = settings.openstack.config()
    connection = Connection(config.places[0], replace(config, concurrency=2))
    catalog = OpenStackCatalog(partial(read_lists, connection), config.flavors)
    try:
        yield catalog
    finally:
        await catalog.close()
        connection.close()


async def _demo_sign_in(settings: Settings, store: SqlStore) -> PasswordSignIn:
    from beamdesk.adapters.demo.load import load_demo
    from beamdesk.adapters.demo.people import EXPERIMENTS, PEOPLE
    from beamdesk.adapters.demo.sign_in import open_demo_sign_in

    await load_demo(store, PEOPLE, EXPERIMENTS)
    return open_demo_sign_in(settings.app_dir, PEOPLE, host=settings.host)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run portal, API and guest API."""
    from beamdesk.adapters.preview.pool import SandboxedPreviews

    cloud, previews = open_cloud(settings), SandboxedPreviews()
    async with open_app(settings, cloud) as app:
        web = _http(
            _web(app, Data(app, _files(settings), previews), settings),
            host=settings.host,
            port=settings.port,
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
        await _run_servers(stop, web, *_guest_servers(app, settings))
    await previews.close()
    await cloud.close()


def _guest_servers(app: App, settings: Settings) -> list[_Server]:
    """Return the guest API's servers: the socket that containers share, and HTTPS for desktops in a cloud."""
    from beamdesk.api.guest import create_guest_api

    api, guest = create_guest_api(app), settings.guest
    servers = [_http(api, uds=str(settings.run_dir / "guest-api" / "guest.sock"))]
    if guest.host is not None:
        tls = {"ssl_certfile": guest.tls_certificate, "ssl_keyfile": guest.tls_key}
        servers.append(_http(api, host=guest.host, port=guest.port, limit_concurrency=_GUEST_CONNECTIONS, **tls))
    return servers


def _files(settings: Settings) -> ExperimentFiles:
    from beamdesk.adapters.local.client import HelperClient
    from beamdesk.adapters.local.files import DirectFiles, HelperFiles

    if settings.cloud == "local":
        return HelperFiles(HelperClient(settings.helper_socket))
    return DirectFiles(settings.data_dir)


def _http(application: Any, **where: Any) -> _Server:
    return _Server(
        uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=32 * 1024,
            **where,
        )
    )


def _web(app: App, data: Data, settings: Settings) -> Starlette:
    from beamdesk.api.app import create_api, nothing_there
    from beamdesk.portal.app import create_portal
    from beamdesk.portal.config import DemoHint, PortalSettings

    hint = None
    if settings.demo:
        from beamdesk.adapters.demo.people import PEOPLE

        hint = DemoHint(tuple((person.login, person.full_name) for person in PEOPLE))
    portal = PortalSettings(settings.origin, hint, settings.site_name, settings.contact)
    return Starlette(
        routes=[
            Route("/healthz", _healthy),
            Mount("/api/v1", create_api(app, data)),
            Mount("/", create_portal(app, portal, data)),
        ],
        exception_handlers={HTTPStatus.NOT_FOUND: nothing_there},
    )


async def _healthy(_request: Request) -> Response:
    return PlainTextResponse("ok\n")


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process: it has two servers."""
        yield


async def _run_servers(stop: asyncio.Event, *servers: _Server) -> None:
    async def end() -> None:
        await stop.wait()
        for server in servers:
            server.should_exit = True

    ending = asyncio.create_task(end())
    try:
        await asyncio.gather(*(server.serve() for server in servers))
    except SystemExit as error:
        raise ConfigurationError("The portal cannot listen: its port or its guest socket is taken.") from error
    finally:
        ending.cancel()


async def reconcile(settings: Settings, stop: asyncio.Event) -> None:
    """Run the reconciler and the sweeper; with the fake cloud also its guests."""
    from beamdesk.reconcile import main, srm
    from beamdesk.reconcile.placing import Placer

    cloud = open_cloud(settings)
    async with open_app(settings, cloud) as app:
        rules = reconcile_rules(settings)
        placer = Placer(app.hosts, app.catalog.flavors, app.rules.srm, app.rules.policy) if app.hosts is not None else None
        work = [main.run(app.store, cloud, app.clock, app.secrets, rules, stop, placer=placer), srm.run(app, stop)]
        if settings.srm.placement_cloud:
            work.append(_project(settings, app, stop))
        if settings.cloud == "fake":
            from beamdesk.adapters.fake.guest import FakeGuests

            work.append(FakeGuests(app.store, _fake_world(settings), app.clock, app.secrets).run(stop))
        await asyncio.gather(*work)
    await cloud.close()


async def _project(settings: Settings, app: App, stop: asyncio.Event) -> None:
    """Write SRM records into Placement, with the account of an entry of clouds.yaml that may write there."""
    from beamdesk.adapters.openstack.config import GuestApi, OpenStackConfig, Place
    from beamdesk.adapters.openstack.connection import Connection
    from beamdesk.adapters.openstack_placement import worker

    place = Place("placement", settings.srm.placement_cloud, "", settings.srm.placement_region)
    config = OpenStackConfig((place,), GuestApi(""), clouds_yaml=settings.openstack.clouds_yaml, concurrency=2)
    connection = Connection(place, config)
    try:
        await worker.run(app, connection, settings.read_deployment_id(), stop)
    finally:
        connection.close()


async def gateway(settings: Settings, stop: asyncio.Event) -> None:
    """Run the gateway."""
    from beamdesk.gateway import server
    from beamdesk.gateway.config import GatewaySettings

    cloud = open_cloud(settings)
    async with open_app(settings, cloud) as app:
        await server.run(
            app,
            GatewaySettings(
                host=settings.gateway_host,
                port=settings.gateway_port,
                portal_origin=settings.origin,
                desktop_domain=settings.desktop_domain,
                selkies_web_dir=settings.cache_dir / "selkies-web",
                run_dir_prefix=settings.run_dir / "desktops",
                tls_certificate=settings.tls_certificate,
                tls_key=settings.tls_key,
            ),
            stop,
        )
    await cloud.close()
