"""Calls to the services of one place: threads, time limits, retries, microversions. Knows HTTP and nothing of desktops.

openstacksdk reads clouds.yaml and secure.yaml, signs in and keeps the token; keystoneauth finds the endpoints. Every call runs in a
thread of the place's own small pool, so that a cloud that hangs blocks nobody else, and ends after `OpenStackConfig.timeout_s`.
Only reading is tried again, with jitter; a write whose answer was lost raises `CloudUnavailable`, and whoever called observes.
Nothing that is sent or received is logged: user-data holds a nonce, headers hold tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TypeVar, cast

import openstack.config
import requests
from keystoneauth1 import exceptions as ksa
from keystoneauth1.adapter import Adapter
from openstack import exceptions as sdk
from openstack.config.cloud_region import CloudRegion
from urllib3.exceptions import NewConnectionError

from beamdesk.adapters.openstack.config import OpenStackConfig, Place
from beamdesk.adapters.openstack.errors import NOT_SENT, Service, read_problem, refusal, too_old, unreachable
from beamdesk.domain.errors import CloudError, CloudUnavailable, ConfigurationError

Json = Mapping[str, object]
Query = Mapping[str, str | list[str]]
T = TypeVar("T")

NEEDED = (2, 52)
"""Nova's oldest microversion that can tag a server while making it: a server without tag would be nobody's."""
PREFERRED = (2, 79)
"""The newest whose forms the driver knows; an older cloud gets what it has."""
TRIES = 3
PAGE = 500
MOST_PAGES = 100

_VERSIONS = {
    Service.COMPUTE: ("2.1", "2.latest"),
    Service.NETWORK: ("2", "2.latest"),
    Service.IMAGE: ("2", "2.latest"),
    Service.VOLUME: ("3", "3.latest"),
    Service.PLACEMENT: ("1", "1.latest"),
    Service.IDENTITY: ("3", "3.latest"),
}
_AHEAD = 4
"""News, the same asked again while nobody waits for the first any more, and what is asked to see whether anybody answers."""
_TRANSIENT = frozenset({429, 502, 503, 504})
_NO_SERVICE = (ksa.EndpointNotFound, ksa.VersionNotAvailable)
_NO_ANSWER = (ksa.ConnectionError, ksa.DiscoveryFailure, requests.RequestException, ksa.RetriableConnectionFailure)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that was asked for: a 2xx, or a status that the caller accepts. ``date``: the service's HTTP date."""

    status: int
    data: Json
    kind: str = ""
    message: str = ""
    date: str = ""

    @property
    def clock(self) -> datetime | None:
        """The service's own time, to the second; None where it does not tell, as an API without a web server in front may not."""
        try:
            return parsedate_to_datetime(self.date)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class _Limit:
    """A call may take so many ``seconds`` in all, ``until`` then by the loop's clock, in a thread of this ``pool``."""

    seconds: float
    until: float
    pool: ThreadPoolExecutor


def open_region(place: Place, config: OpenStackConfig) -> CloudRegion:
    """Read the place's entry in clouds.yaml. Asks nobody yet.

    Raises:
        ConfigurationError: no such entry, or it lacks something; the text never holds a value of it.
    """
    files = [str(config.clouds_yaml)] if config.clouds_yaml else None
    secure = [str(config.clouds_yaml.with_name("secure.yaml"))] if config.clouds_yaml else None
    try:
        loader = openstack.config.OpenStackConfig(config_files=files, secure_files=secure, app_name="beamdesk")
        if place.cloud not in loader.get_cloud_names():
            known = ", ".join(sorted(loader.get_cloud_names())) or "none"
            raise ConfigurationError(f"clouds.yaml has no cloud {place.cloud} (it has: {known}). Correct openstack.cloud.")
        with warnings.catch_warnings():  # the SDK warns of what it passes to itself
            warnings.simplefilter("ignore", category=PendingDeprecationWarning)
            # Without the limit a Keystone that hangs would hold every thread of the pool for ever.
            return loader.get_one(cloud=place.cloud, region_name=place.region or None, api_timeout=config.timeout_s)
    except (sdk.SDKException, ksa.ClientException) as error:
        cause = type(error).__name__
        text = f"The cloud {place.cloud} in clouds.yaml cannot be used ({cause}). Compare it with `openstack --os-cloud`."
        raise ConfigurationError(text) from error


class Connection:
    """The services of one place. Safe to use from one event loop."""

    def __init__(self, place: Place, config: OpenStackConfig, *, jitter: Callable[[], float] = random.random) -> None:
        self.place = place
        self._region = open_region(place, config)
        self._timeout_s = config.timeout_s
        self._jitter = jitter
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix=f"openstack-{place.name}")
        self._quick = ThreadPoolExecutor(_AHEAD, thread_name_prefix=f"openstack-news-{place.name}")
        self._lock = threading.Lock()
        self._adapters: dict[Service, Adapter] = {}
        self._microversion: str | None = None
        self._slots = asyncio.Semaphore(config.concurrency)
        self._dates: dict[Service, tuple[datetime, float]] = {}

    async def call(
        self,
        service: Service,
        method: str,
        path: str,
        doing: str,
        *,
        body: Json | None = None,
        query: Query | None = None,
        accept: frozenset[int] = frozenset(),
        version: str | None = None,
        ahead: float = 0.0,
    ) -> Reply:
        """Send one request. ``doing`` completes "when asked to ..." in an error. ``accept``: statuses that are no error here.

        ``version``: a microversion (Placement's forms differ by it); Nova's is negotiated unless given. ``ahead``: do not stand in
        line behind others, and take so many seconds at most instead of the usual ones.

        Raises:
            CloudUnavailable: no answer, or none that tells what happened. CloudRefused: a definite no. CloudError: no, for now.
        """
        if version is None and service is Service.COMPUTE:
            version = await self.microversion()
        tries = TRIES if method == "GET" else 1
        async with contextlib.nullcontext() if ahead else self._slots:
            limit = self._limit(ahead)  # it is the service's: waiting for others is not counted
            send = partial(self._send, service, method, path, body, query, version, limit.seconds)
            reply = await self._tried(service, doing, send, tries, accept, limit)
        if (date := reply.clock) is not None:
            self._dates[service] = (date, time.monotonic())
        return reply

    async def _tried(
        self,
        service: Service,
        doing: str,
        send: Callable[[], requests.Response],
        tries: int,
        accept: frozenset[int],
        limit: _Limit,
    ) -> Reply:
        while True:
            tries -= 1
            pause = (0.2 + 0.3 * self._jitter()) * (TRIES - tries)
            try:
                response = await self._in_thread(service, doing, send, limit)
            except CloudUnavailable:
                if not tries or asyncio.get_running_loop().time() + pause >= limit.until:
                    raise
            else:
                if response.status_code not in _TRANSIENT or response.status_code in accept or not tries:
                    return _reply(service, doing, response, accept)
            await asyncio.sleep(pause)

    def clock(self, service: Service) -> datetime | None:
        """Return a service's own time by the date of its last answer; None where none has told it yet."""
        if service not in self._dates:
            return None
        date, at = self._dates[service]
        return date + timedelta(seconds=time.monotonic() - at)

    async def pages(
        self,
        service: Service,
        path: str,
        collection: str,
        doing: str,
        query: Mapping[str, str],
        *,
        version: str | None = None,
        ahead: float = 0.0,
    ) -> AsyncIterator[Reply]:
        """Yield the pages of a list, each with one request; a page that is not full is the last, without another request."""
        query = {**query, "limit": str(PAGE)}
        for _page in range(MOST_PAGES):
            reply = await self.call(service, "GET", path, doing, query=query, version=version, ahead=ahead)
            yield reply
            items = cast("list[Json]", reply.data.get(collection) or [])
            if not items or (len(items) < PAGE and not _goes_on(reply.data.get(f"{collection}_links"))):
                return
            query["marker"] = str(items[-1].get("id"))
        raise CloudError(f"OpenStack's list does not end when asked to {doing}. Beamdesk looks again.")

    async def microversion(self) -> str:
        """Return the microversion to use with Nova: the newest that both know.

        Raises:
            NotSupported: Nova is too old.
        """
        if self._microversion is None:
            least, most = await self._in_thread(Service.COMPUTE, "tell its versions", self._offered)
            if most < NEEDED or least > PREFERRED:
                raise too_old(".".join(map(str, most)) if any(most) else "", ".".join(map(str, NEEDED)))
            self._microversion = ".".join(map(str, min(most, PREFERRED)))
        return self._microversion

    async def has(self, service: Service) -> bool:
        """Tell whether the cloud's catalogue has this service."""
        try:
            await self._in_thread(service, "tell its address", lambda: self._adapter(service).get_endpoint())
        except CloudError as error:
            if error.context.get("kind") == "EndpointNotFound":
                return False
            raise
        return True

    async def project_id(self) -> str:
        """Return the id of the project that the credentials belong to."""
        find = partial(self._adapter(Service.COMPUTE).get_project_id)
        return str(await self._in_thread(Service.IDENTITY, "sign in", find))

    def close(self) -> None:
        """Take no more calls; those under way end by themselves."""
        for pool in (self._pool, self._quick):
            pool.shutdown(wait=False, cancel_futures=True)

    def _limit(self, ahead: float = 0.0) -> _Limit:
        seconds = ahead or self._timeout_s
        return _Limit(seconds, asyncio.get_running_loop().time() + seconds, self._quick if ahead else self._pool)

    async def _in_thread(self, service: Service, doing: str, work: Callable[[], T], limit: _Limit | None = None) -> T:
        """Work in a thread, within the limit, the usual one unless given. What was begun ends by itself."""
        limit = limit or self._limit()
        try:
            async with asyncio.timeout_at(limit.until):
                return await asyncio.get_running_loop().run_in_executor(limit.pool, work)
        except TimeoutError as error:
            raise unreachable(service, doing, f"nothing within {limit.seconds:g} s") from error
        except (ksa.ClientException, sdk.SDKException, requests.RequestException) as error:
            raise _translate(service, doing, error) from error

    def _adapter(self, service: Service) -> Adapter:
        with self._lock:
            if service not in self._adapters:
                least, most = _VERSIONS[service]
                self._adapters[service] = Adapter(
                    session=self._region.get_session(),
                    service_type=self._region.get_service_type(str(service)),
                    interface=self._region.get_interface(str(service)),
                    region_name=self._region.get_region_name(str(service)),
                    endpoint_override=self._region.get_endpoint(str(service)),
                    min_version=least,
                    max_version=most,
                )
            return self._adapters[service]

    def _offered(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        data = self._adapter(Service.COMPUTE).get_endpoint_data()
        return _numbers(data.min_microversion if data else None), _numbers(data.max_microversion if data else None)

    def _send(
        self,
        service: Service,
        method: str,
        path: str,
        body: Json | None,
        query: Query | None,
        version: str | None,
        limit_s: float,
    ) -> requests.Response:
        return self._adapter(service).request(
            path,
            method,
            json=body,
            params=query,
            microversion=version,
            raise_exc=False,
            log=False,
            timeout=limit_s,
            redirect=False,
        )


def _goes_on(links: object) -> bool:
    """Tell whether a page links to a next one; Neutron's link to the previous one, too."""
    return isinstance(links, list) and any(isinstance(link, Mapping) and link.get("rel") == "next" for link in links)


def _numbers(version: tuple[int | float, ...] | None) -> tuple[int, ...]:
    return tuple(int(part) for part in version or (0,))


def _reply(service: Service, doing: str, response: requests.Response, accept: frozenset[int]) -> Reply:
    status, date = response.status_code, response.headers.get("Date", "")
    if status >= 300:  # a redirection, too: the token is for whom the catalogue names
        problem = read_problem(service, status, response.text)
        if status not in accept:
            raise refusal(problem, doing)
        return Reply(status, {}, problem.kind, problem.message, date)
    if not response.content:
        return Reply(status, {}, date=date)
    try:
        data = json.loads(response.content)
    except ValueError as error:
        raise unreachable(service, doing, "its answer is not JSON") from error
    return Reply(status, data if isinstance(data, dict) else {}, date=date)


def _never_sent(error: BaseException | None) -> bool:
    """Tell whether there was no connection at all; one that broke later may have carried the request."""
    while error is not None:
        reasons = (error, *(getattr(part, "reason", None) for part in error.args))
        if any(isinstance(reason, NewConnectionError) for reason in reasons):
            return True
        error = error.__cause__ or error.__context__
    return False


def _translate(service: Service, doing: str, error: Exception) -> CloudError:
    if isinstance(error, ksa.Unauthorized):
        return refusal(read_problem(Service.IDENTITY, 401, json.dumps({"message": error.message or ""})), "sign in")
    if isinstance(error, _NO_SERVICE):
        return CloudError(
            f"The cloud's catalogue has no {service} service for Beamdesk's account. An operator must look at clouds.yaml.",
            kind="EndpointNotFound",
        )
    if isinstance(error, ksa.HttpError) and not isinstance(error, _NO_ANSWER):
        message = json.dumps({"message": str(error.message or "")})
        return refusal(read_problem(Service.IDENTITY, error.http_status or 500, message), "sign in")
    if isinstance(error, ksa.SSLError):
        return unreachable(service, doing, "its certificate is not trusted: set cacert in clouds.yaml")
    if isinstance(error, _NO_ANSWER):
        return unreachable(service, doing, "no connection", NOT_SENT if _never_sent(error) else "")
    return unreachable(service, doing, type(error).__name__)
