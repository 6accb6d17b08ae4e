"""The snapshot of the site, fetched in a thread of its own: HTTPS, a credential from a file, ETag, timeout, jitter.

A request that is being scheduled only looks at what is held. Whoever reads decides by `Held.asof` whether it is still good.
`asof` is this machine's time when the request was sent, so that neither a slow answer nor another clock makes old news look
fresh.
"""

from __future__ import annotations

import http.client
import logging
import math
import os
import random
import ssl
import stat
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from beamdesk.plugins.nova.options import Options
from beamdesk.scheduling.cards import CardState
from beamdesk.scheduling.errors import SchedulingError
from beamdesk.scheduling.policy import DEFAULT, POLICIES
from beamdesk.scheduling.wire import LONGEST, Published, read_snapshot

LOG = logging.getLogger(__name__)
PATH = "/api/v1/scheduling/snapshot"
SPEAKS = 2
"""The protocol of these plugins: since 2, a booking is spent part after part by its name (docs/reference/nova-scheduler.md)."""
SLOWEST = 60.0
_CHUNK = 1 << 20


class FetchFailed(Exception):
    """No snapshot came; the message says why. It never holds the credential."""


Place = tuple[str, str]
"""A card: host and address."""


@dataclass(frozen=True, slots=True)
class Held:
    """A snapshot, and when it was last known to be the API's (seconds since the epoch, this machine's clock).

    ``bad``: cards that it shows in use, dirty, being cleaned or failed. ``noticed``: when others were last shown so.
    """

    published: Published
    asof: float
    etag: str = ""
    bad: frozenset[Place] = frozenset()
    noticed: Mapping[Place, float] = field(default_factory=dict)

    def noticed_at(self, place: Place) -> float:
        """Return when the records last showed a card as anything but free; minus infinity = never."""
        return self.asof if place in self.bad else self.noticed.get(place, -math.inf)


def follow(before: Held | None, published: Published, asof: float, etag: str = "") -> Held:
    """Return what is held when a new snapshot follows on another."""
    bad = {
        (host.name, card.address) for host in published.snapshot.hosts for card in host.cards if card.state is not CardState.FREE
    }
    bad |= {(claim.host, grant.address) for claim, _ in published.snapshot.claims for grant in claim.grants}
    noticed: dict[Place, float] = {}
    if before is not None:
        noticed = {**before.noticed, **dict.fromkeys(before.bad - bad, before.asof)}
    return Held(published, asof, etag, frozenset(bad), noticed)


class Source(Protocol):
    """Where the engine takes the snapshot from."""

    def held(self) -> Held | None:
        """Return what is held, None before the first one came. Never waits for the API, but for the very first answer."""
        ...


class Nothing:
    """No API is configured."""

    def held(self) -> Held | None:
        """Return None."""
        return None


def fetch(options: Options, before: Held | None, clock: Callable[[], float]) -> Held:
    """Ask the API once.

    Raises:
        FetchFailed: unreachable, refused, too long, or not a snapshot.
    """
    asof = clock()
    headers = {
        "Authorization": f"Bearer {_credential(options.credential_file)}",
        "Accept": "application/json",
        "Beamdesk-Plugin": str(SPEAKS),
    }
    if before is not None and before.etag:
        headers["If-None-Match"] = before.etag
    request = urllib.request.Request(options.api_url.rstrip("/") + PATH, headers=headers)  # noqa: S310 -- https, or http to loopback
    try:
        with _opener(options).open(request, timeout=options.timeout) as answer:
            body, etag = _body(answer, options), answer.headers.get("ETag", "")
        published = read_snapshot(body)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.NOT_MODIFIED and before is not None:
            return replace(before, asof=asof)
        raise FetchFailed(f"{options.api_url} answers {error.code} {error.reason}") from error
    except SchedulingError as error:
        raise FetchFailed(f"{options.api_url} sent what is not a snapshot: {error.message}") from error
    except (OSError, http.client.HTTPException) as error:
        raise FetchFailed(f"{options.api_url} cannot be reached: {error}") from error
    return follow(before, _known_policy(published), asof, etag)


def _known_policy(published: Published) -> Published:
    """Return a snapshot whose policy is known here: a newer API's name for one is no reason to lose sight of the cards."""
    if published.policy in POLICIES:
        return published
    LOG.warning("The snapshot names the policy %s, which this version does not know: %s decides.", published.policy, DEFAULT)
    return replace(published, policy=DEFAULT)


def _body(answer: http.client.HTTPResponse, options: Options) -> bytes:
    """Read the answer within bounds of size and time: a timeout of the socket alone would let it trickle for ever."""
    ends, parts, size = time.monotonic() + 4 * options.timeout, [], 0
    while chunk := answer.read1(_CHUNK):
        size += len(chunk)
        if size > LONGEST or time.monotonic() > ends:
            raise FetchFailed(f"{options.api_url} sent too much, or too slowly")
        parts.append(chunk)
    return b"".join(parts)


def _opener(options: Options) -> urllib.request.OpenerDirector:
    """No proxy from the environment, no redirect: the credential goes where the operator said."""
    context = ssl.create_default_context(cafile=options.ca_file or None)
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirect())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: object, **_kwargs: object) -> None:
        return None


def _credential(path: str) -> str:
    """Read the credential anew each time, so that it can be changed without a restart."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, encoding="ascii") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_mode & stat.S_IRWXO:
                raise FetchFailed(f"{path} must be a file that others than its owner and group cannot open (chmod 0640)")
            text = file.read(4097).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FetchFailed(f"the credential in {path} cannot be read: {error}") from error
    if not text or len(text) > 4096 or not text.isprintable() or " " in text:
        raise FetchFailed(f"{path} does not hold a credential: one line without spaces")
    return text


class Fetcher:
    """Keeps the latest snapshot. The thread starts in each process that is forked off, or with the first look.

    A nova-scheduler makes its filters, then forks its workers: each of them has a snapshot before its first request.
    """

    def __init__(self, options: Options, clock: Callable[[], float] = time.time) -> None:
        self._options, self._clock = options, clock
        self._held: Held | None = None
        self._trouble = ""
        self._begin()
        os.register_at_fork(after_in_child=self._begin_again)

    def _begin(self) -> None:
        """A fork copies no thread, and perhaps a lock that nobody will release."""
        self._owner = -1
        self._starting = threading.Lock()
        self._first, self._end = threading.Event(), threading.Event()

    def _begin_again(self) -> None:
        self._begin()
        self.start()

    def held(self) -> Held | None:
        """Return what is held; waits for the very first attempt of this process, ``first_wait`` seconds at most."""
        self.start()
        if not self._first.is_set():
            self._first.wait(self._options.first_wait)
        return self._held

    def start(self) -> None:
        """Start the thread unless it runs in this process."""
        if self._owner == os.getpid():
            return
        with self._starting:
            if self._owner != os.getpid():
                threading.Thread(target=self._run, name="beamdesk-snapshot", daemon=True).start()
                self._owner = os.getpid()

    def stop(self) -> None:
        """End the thread after its present attempt."""
        self._end.set()

    def _run(self) -> None:
        chance, pause, end, first = random.Random(), self._options.interval, self._end, self._first  # noqa: S311 -- jitter
        while not end.is_set():
            try:
                self._held = fetch(self._options, self._held, self._clock)
            except FetchFailed as error:
                self._tell(str(error))
                pause = min(SLOWEST, max(self._options.interval, 2 * pause))
            except Exception:  # the outermost frame of the thread: without it the site would be blind for ever
                LOG.exception("Fetching the snapshot failed in an unexpected way")
                pause = min(SLOWEST, max(self._options.interval, 2 * pause))
            else:
                self._tell("")
                pause = self._options.interval
            first.set()
            end.wait(pause * chance.uniform(0.8, 1.2))

    def _tell(self, trouble: str) -> None:
        """Log when something begins or ends, not each time."""
        if trouble and not self._trouble:
            LOG.warning("No snapshot: %s. GPU desktops go on for %g s.", trouble, self._options.stale_after)
        if self._trouble and not trouble:
            LOG.info("Snapshots are here again.")
        self._trouble = trouble
