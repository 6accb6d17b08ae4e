"""Volumes of desktops on Cinder: the home, which outlives servers, and clones of prepared root disks.

Cinder's names are not unique. Of homes made at the same time the oldest counts and the others are removed by who made them, unused;
where two unused ones are found later nobody guesses which has the person's work: that is an error for an operator.
A home that Cinder never finishes is given up, once: it is marked so before another one is ordered, and goes with the desktop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog

from beamdesk.adapters.openstack.config import Homes
from beamdesk.adapters.openstack.connection import Connection
from beamdesk.adapters.openstack.errors import Service
from beamdesk.adapters.openstack.names import CLONE_KEY, DEPLOYMENT_KEY, DESKTOP_KEY, GIVEN_UP_KEY, Names
from beamdesk.adapters.openstack.records import Volume, mapping, sequence, text, when
from beamdesk.domain.errors import CloudError, CloudRefused
from beamdesk.domain.ids import DesktopId

log = structlog.get_logger("beamdesk.openstack")
_ABSENT = frozenset({404})
_ABSENT_OR_BUSY = frozenset({400, 404})
_LOOK_S = 0.25
_LOOKS = 32
_LOST_AFTER = timedelta(seconds=60)
"""So long Cinder may take to begin with a volume; then the order may have been lost on its way, as when a broker restarts."""
_GIVEN_UP_AFTER = timedelta(seconds=100)
"""So long a backend may take to make an empty home, which takes seconds; then its order may have been lost as well."""
_ORPHAN_S = 60.0
"""So long Cinder may keep a volume for a server that Nova does not know: Nova reserves it before it records the server."""
_MOST_REMEMBERED = 10_000
_ATTACHMENTS = "3.27"
"""Cinder's microversion that lists and removes attachments, those that are only reserved included."""


class Volumes:
    """Volumes that carry this deployment's UUID, and no others."""

    def __init__(self, connection: Connection, names: Names, homes: Homes, known: Callable[[str], Awaitable[object]]) -> None:
        """``known`` tells whether Nova knows a server, by its id."""
        self._connection = connection
        self._names = names
        self._homes = homes
        self._known = known
        self._orphans: dict[str, float] = {}  # an attachment's id -> when it was first seen without its server

    async def listed(self, desktop_id: DesktopId | None = None) -> tuple[Volume, ...]:
        """List the volumes of a desktop, or all; those that are going are not there any more."""
        marks = {DEPLOYMENT_KEY: self._names.deployment} | ({DESKTOP_KEY: str(desktop_id)} if desktop_id is not None else {})
        volumes = await self._matching(marks)
        return tuple(volume for volume in volumes if volume.deployment == self._names.deployment and not volume.going)

    async def _matching(self, marks: dict[str, str]) -> tuple[Volume, ...]:
        found: list[Volume] = []
        query = {"metadata": str(marks)}  # Cinder reads the form of a Python literal
        async for page in self._connection.pages(Service.VOLUME, "/volumes/detail", "volumes", "list the volumes", query):
            found += [Volume.read(record) for record in sequence(page.data, "volumes")]
        return tuple(found)

    def is_home(self, volume: Volume) -> bool:
        """Tell whether it is a home and not a root disk."""
        return volume.name == self._names.resource(DesktopId(volume.desktop))

    async def home(self, desktop_id: DesktopId) -> Volume:
        """Return the desktop's home, made where there is none, ready to be attached.

        Raises:
            CloudError: not ready yet. CloudRefused: an operator has to look at it.
        """
        homes = await self._homes_of(desktop_id)
        if not homes:
            body: dict[str, object] = {"size": self._homes.gib}
            if self._homes.volume_type:
                body["volume_type"] = self._homes.volume_type
            made = await self._make(body, self._names.resource(desktop_id), desktop_id, {})
            homes = await self._homes_of(desktop_id)
            if any(volume.id != made.id for volume in homes):
                oldest = min(homes, key=lambda volume: (volume.created_at, volume.id))
                if oldest.id != made.id:
                    await self.delete(await self._ready(made))  # Cinder deletes none that it is making
                homes = (oldest,)
        if len(homes) > 1:
            ids = ", ".join(volume.id for volume in homes)
            raise CloudRefused(
                f"The desktop has more than one home volume in Cinder ({ids}). An operator must remove the wrong one."
            )
        return await self._ready(homes[0] if homes else made)

    async def _homes_of(self, desktop_id: DesktopId) -> tuple[Volume, ...]:
        homes = tuple(volume for volume in await self.listed(desktop_id) if self.is_home(volume))
        return tuple(volume for volume in homes if volume.attached) or tuple(volume for volume in homes if not volume.given_up)

    async def root_clone(self, desktop_id: DesktopId, image: str, gib: int) -> Volume | None:
        """Return a clone of the volume that an operator prepared from the image; None = nobody prepared one.

        The prepared volume carries the metadata ``beamdesk_clone_of`` = the image's id.
        """
        masters = [volume for volume in await self._matching({CLONE_KEY: image}) if volume.status == "available"]
        if not masters:
            return None
        name = f"{self._names.resource(desktop_id)}-root"
        roots = [volume for volume in await self.listed(desktop_id) if volume.name == name and not volume.attached]
        body = {"size": gib, "source_volid": min(masters, key=lambda volume: volume.id).id}
        return await self._ready(roots[0] if roots else await self._make(body, name, desktop_id, {}))

    async def _make(self, body: dict[str, object], name: str, desktop_id: DesktopId, more: dict[str, str]) -> Volume:
        body = {**body, "name": name, "metadata": {**self._names.metadata(desktop_id), **more}}
        reply = await self._connection.call(Service.VOLUME, "POST", "/volumes", "make the volume", body={"volume": body})
        return Volume.read(mapping(reply.data, "volume"))

    async def _ready(self, volume: Volume) -> Volume:
        """Wait a little for a new volume: Nova takes none that is still being made."""
        for _look in range(_LOOKS):
            if volume.status == "available":
                return volume
            if volume.status.startswith("error"):
                text = (
                    f"Cinder could not make or keep the volume {volume.id} (status {volume.status}). An operator must look at it."
                )
                raise CloudRefused(text)
            if volume.status not in ("creating", "downloading", "detaching"):
                break
            await asyncio.sleep(_LOOK_S)
            reply = await self._connection.call(Service.VOLUME, "GET", f"/volumes/{volume.id}", "show the volume")
            volume = Volume.read(mapping(reply.data, "volume"))
        if volume.status == "creating" and await self._was_lost(volume):
            raise CloudError("Cinder never began to make the volume of the desktop. Beamdesk orders another one.")
        if volume.status == "creating" and await self._give_up(volume):
            raise CloudError("Cinder does not finish the volume of the desktop. Beamdesk orders another one.")
        if volume.status != "creating":
            await self._let_go(volume)
        raise CloudError(f"The volume of the desktop is not ready yet (status {volume.status}). Beamdesk waits for it.")

    def _age(self, volume: Volume) -> timedelta:
        now = self._connection.clock(Service.VOLUME) or datetime.now(UTC)
        return now - when(volume.created_at) if volume.created_at else timedelta.max

    async def _was_lost(self, volume: Volume) -> bool:
        """Remove a volume that nobody makes, and tell whether it was one: Cinder refuses while a backend has the order."""
        if self._age(volume) < _LOST_AFTER:
            return False
        path = f"/volumes/{volume.id}"
        reply = await self._connection.call(Service.VOLUME, "DELETE", path, "remove a lost volume", accept=_ABSENT_OR_BUSY)
        return reply.status not in _ABSENT_OR_BUSY

    async def _give_up(self, volume: Volume) -> bool:
        """Mark a home that Cinder does not finish, and tell whether it is given up: one of a desktop, no heap for a slow backend.

        Only an operator can end *creating* where a backend had the order (``openstack volume set --state error``). The mark stays:
        were the home made after all, nobody would have to guess which of the two is in use.
        """
        if not self.is_home(volume) or self._age(volume) < _GIVEN_UP_AFTER:
            return False
        desktop_id = DesktopId(volume.desktop)
        if any(other.given_up for other in await self.listed(desktop_id)):
            return False
        path = f"/volumes/{volume.id}/metadata"
        await self._connection.call(Service.VOLUME, "POST", path, "give the volume up", body={"metadata": {GIVEN_UP_KEY: "true"}})
        log.warning("volume.given_up", desktop=str(desktop_id), volume=volume.id, remedy="openstack volume set --state error")
        return True

    async def delete(self, volume: Volume) -> None:
        """Delete a volume; absent is success, and so is one that was given up and that Cinder does not let go of.

        Raises:
            CloudRefused: a server uses it. CloudError: not yet, as while Cinder keeps it for a server that is gone.
        """
        if volume.stuck:
            return
        path = f"/volumes/{volume.id}"
        try:
            await self._connection.call(Service.VOLUME, "DELETE", path, "delete the volume", accept=_ABSENT)
        except CloudRefused as refused:
            if not await self._let_go(volume):
                raise
            raise CloudError("Cinder is not done with the desktop's volume yet. Beamdesk waits for it.") from refused

    async def _let_go(self, volume: Volume) -> bool:
        """Tell whether no server uses a volume. What Cinder keeps for a server that is gone is removed once it has had its time.

        Nova's own request for that gets lost where a server is deleted while it is being built. Cinder does not let a project take
        an attachment from a server that Nova knows (bug 2004555).
        """
        reply = await self._connection.call(
            Service.VOLUME, "GET", "/attachments", "list attachments", query={"volume_id": volume.id}, version=_ATTACHMENTS
        )
        attachments = sequence(reply.data, "attachments")
        for one in attachments:
            server = text(one, "instance")
            if not server or await self._known(server):
                return False
        for one in attachments:
            await self._remove_orphan(text(one, "id"))
        return bool(attachments) or volume.status not in ("available", "error")

    async def _remove_orphan(self, attachment: str) -> None:
        now = time.monotonic()
        if len(self._orphans) >= _MOST_REMEMBERED:
            self._orphans.clear()
        if now - self._orphans.setdefault(attachment, now) < _ORPHAN_S:
            return
        path = f"/attachments/{attachment}"
        await self._connection.call(Service.VOLUME, "DELETE", path, "release the volume", accept=_ABSENT, version=_ATTACHMENTS)
        log.warning("volume.released", attachment=attachment)
        del self._orphans[attachment]
