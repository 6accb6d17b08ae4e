"""What was seen of the servers of one place, and how long it may be told. No requests, no clock: times are given.

It answers only for servers that it knows; of a desktop without one it says nothing, which proves nothing (decision 96).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from beamdesk.adapters.openstack.records import NovaServer, Port
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.server import Observation, Server, ServerStatus

FRESH_S = 100.0
"""So old news may be for memory to be told. Whatever changes meanwhile is in the next news, which wakes the desktop.

Who asks gives a busy cloud half a minute to answer, twice: the last news is three answers old at most, while they come at all.
With less, looks began whenever news took long, and news took longer for them. News that stays away is distrusted at once.
"""
PAUSE_S = 2.5
"""So long nobody may have asked for news: who asks no more wakes nobody, and then memory is only old."""
LOOK_S = 30.0
"""So long a server that nobody saw is told from memory: what Nova does not date is in no news."""
BUILD_LOOK_S = 120.0
"""The same while it is being built: nothing is ordered meanwhile, and how a build ends is dated. Longer than from list to list."""
ABSENT_S = 15.0
"""So long a look that found nothing is worth to who makes the server; the port keeps a second one off (decision 95)."""
_TOLD = (ServerStatus.BUILD, ServerStatus.ACTIVE)
"""Servers that come up or run, which is what storms ask for. One that is off or broken is given an order next: look."""
_MOST = 20_000


class Reader(Protocol):
    """How records are read; see `watch.Sight`."""

    def desktop_of(self, server: NovaServer) -> DesktopId | None:
        """Return whose server it is; None = not ours."""

    def desktop_named(self, name: str) -> DesktopId | None:
        """Return the desktop in the name of a server or port; anybody can give such a name."""

    def describe(self, server: NovaServer, port: Port | None) -> Server | None:
        """Return the server as the reconciler knows it; None = only a look can tell."""


class Memory:
    """Servers by desktop, with their ports, and when what was seen. Times are seconds of one steady clock."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._servers: dict[str, NovaServer] = {}
        self._of: dict[DesktopId, set[str]] = {}
        self._ports: dict[str, Port] = {}
        self._seen: dict[DesktopId, float] = {}
        self._wrote: dict[DesktopId, float] = {}
        self._absent: dict[DesktopId, float] = {}
        self._gone: dict[str, None] = {}
        self._untold: set[DesktopId] = set()
        self.fresh_at = float("-inf")
        """When the last news was asked for."""
        self.told_at = float("-inf")
        self.asking = False

    def forget(self, before: float) -> None:
        """Know no server any more that was seen before then."""
        for desktop_id in [one for one, at in self._seen.items() if at < before]:
            self._unsee(desktop_id)

    def distrust(self) -> None:
        """Tell nothing until news comes again."""
        self.fresh_at = float("-inf")

    def _unsee(self, desktop_id: DesktopId) -> None:
        self._seen.pop(desktop_id, None)
        for uuid in self._of.pop(desktop_id, ()):
            self._servers.pop(uuid, None)

    def _make_room(self) -> None:
        if max(len(self._seen), len(self._gone), len(self._ports), len(self._wrote), len(self._absent)) > _MOST:
            self.forget(float("inf"))
            for known in (self._gone, self._ports, self._wrote, self._absent):
                known.clear()

    def recall(self, desktop_id: DesktopId, now: float) -> Observation | None:
        """Return the desktop's servers where they are known well enough; None = look."""
        asked = self.asking or now - self.told_at <= PAUSE_S
        if not asked or now - self.fresh_at > FRESH_S or self._wrote.get(desktop_id, float("-inf")) >= self.fresh_at:
            return None
        uuids = self._of.get(desktop_id, ())
        built = all(self._servers[uuid].status is ServerStatus.BUILD for uuid in uuids)
        if now - self._seen.get(desktop_id, float("-inf")) > (BUILD_LOOK_S if built else LOOK_S):
            return None
        servers = [self._described(uuid) for uuid in uuids]
        known = tuple(server for server in servers if server is not None)
        return Observation(known) if known and len(known) == len(servers) else None

    def _described(self, uuid: str) -> Server | None:
        server, port = self._servers[uuid], self._ports.get(uuid)
        if server.partial or server.status not in _TOLD or (server.status is ServerStatus.ACTIVE and port is None):
            return None
        return self._reader.describe(server, port)

    def looked(
        self, observations: Mapping[DesktopId, Observation], servers: Iterable[NovaServer], ports: Iterable[Port], begun: float
    ) -> None:
        """Remember a look that began then: it replaces what was known of these desktops."""
        self._make_room()
        for desktop_id in observations:
            self._unsee(desktop_id)
            self._seen[desktop_id] = begun
            self._absent.pop(desktop_id, None)
        for server in servers:
            self._put(server)
        listed = tuple(ports)
        self._ports.update({port.device: port for port in listed if port.device})
        taken = {self._reader.desktop_named(port.name) for port in listed}
        for desktop_id, seen in observations.items():
            if seen.complete and not seen.servers and desktop_id not in taken:
                self._absent[desktop_id] = begun

    def listed(self, servers: Iterable[NovaServer], ports: Iterable[Port], begun: float) -> None:
        """Remember a list of everything that began then, so that nobody looks at what is in it one by one.

        It proves that a server was there, and nothing of what is missing, was seen since or ordered since. Who asked for it asked
        for something else: what looks other than before is told with the next news.
        """
        self._make_room()
        there = tuple(servers)
        uuids = {server.uuid for server in there}
        for server in there:
            desktop_id = self._reader.desktop_of(server)
            if desktop_id is None or server.uuid in self._gone or self._knows_better(desktop_id, server, begun):
                continue
            if _face(self._servers.get(server.uuid)) != _face(server):
                self._untold.add(desktop_id)
            self._put(server)
            if self._of[desktop_id] <= uuids:
                self._seen[desktop_id] = begun
        self._ports.update({port.device: port for port in ports if port.device in self._servers})

    def _knows_better(self, desktop_id: DesktopId, server: NovaServer, begun: float) -> bool:
        if max(self._seen.get(desktop_id, float("-inf")), self._wrote.get(desktop_id, float("-inf"))) >= begun:
            return True
        before = self._servers.get(server.uuid)
        if before is None or before.updated_at is None:
            return False
        return server.updated_at is None or server.updated_at < before.updated_at

    def learn(self, servers: Iterable[NovaServer], begun: float, now: float) -> frozenset[DesktopId]:
        """Remember news that was asked for then; return the desktops whose server looks other than before."""
        self.fresh_at, self.told_at = begun, now
        untold, self._untold = frozenset(self._untold), set()
        return untold.union(self._news(servers, begun))

    def _news(self, servers: Iterable[NovaServer], begun: float) -> Iterable[DesktopId]:
        for server in servers:
            before = self._servers.get(server.uuid)
            if server.raw_status == "DELETED":
                gone = self._drop(server.uuid) or self._reader.desktop_named(server.name)
                if gone is not None and server.uuid not in self._gone:
                    self._gone[server.uuid] = None
                    yield gone
                continue
            desktop_id = self._reader.desktop_of(server)
            if desktop_id is None:
                continue
            self._put(server)
            self._seen[desktop_id] = max(begun, self._seen.get(desktop_id, begun))
            if _face(before) != _face(server) or (desktop_id in self._wrote and _redated(before, server)):
                yield desktop_id

    def _put(self, server: NovaServer) -> None:
        desktop_id = self._reader.desktop_of(server)
        if desktop_id is not None:
            self._servers[server.uuid] = server
            self._of.setdefault(desktop_id, set()).add(server.uuid)
            self._absent.pop(desktop_id, None)

    def _drop(self, uuid: str) -> DesktopId | None:
        """Forget a server that is gone; return whose it was, as far as that was known."""
        self._ports.pop(uuid, None)
        server = self._servers.pop(uuid, None)
        desktop_id = self._reader.desktop_of(server) if server is not None else None
        if desktop_id is not None:
            self._of.get(desktop_id, set()).discard(uuid)
        return desktop_id

    def made(self, desktop_id: DesktopId, server: NovaServer, port: Port, now: float) -> None:
        """Remember that this process had a server made, with this port; the order to make it is no reason to look any more."""
        self._ports[server.uuid] = port
        self._put(server)
        self._seen[desktop_id] = now
        self._wrote.pop(desktop_id, None)

    def wrote(self, desktop_id: DesktopId, now: float) -> None:
        """Take note that an order was given: only news that is asked for later may be told."""
        self._wrote[desktop_id] = now
        self._absent.pop(desktop_id, None)

    def wrote_to(self, uuid: str, now: float) -> None:
        """Take note that a server was given an order."""
        server = self._servers.get(uuid)
        desktop_id = self._reader.desktop_of(server) if server is not None else None
        if desktop_id is not None:
            self.wrote(desktop_id, now)

    def absent(self, desktop_id: DesktopId, now: float) -> bool:
        """Tell, once, whether a look found nothing at all of the desktop, `ABSENT_S` ago at most."""
        return now - self._absent.pop(desktop_id, float("-inf")) <= ABSENT_S


def _redated(before: NovaServer | None, server: NovaServer) -> bool:
    """Tell whether something happened though it looks as before: an order that Nova took, tried and gave up between two news."""
    return before is not None and before.updated_at != server.updated_at


def _face(server: NovaServer | None) -> tuple[object, ...]:
    """Return what a reconciler would see of a server. One that is being built looks like one that nobody saw yet."""
    if server is None or (server.status is ServerStatus.BUILD and not server.fault):
        return ()
    return server.status, server.offloaded, server.fault, server.host, server.launched, server.partial
