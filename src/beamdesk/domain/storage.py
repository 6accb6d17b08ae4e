"""What a site's desktops find inside: where their storage comes from, and where their stream listens. Pure data.

On one machine the host mounts an experiment's areas into the desktop; in a cloud the guest agent mounts them itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from string import Template

from beamdesk.domain.experiment import Experiment
from beamdesk.domain.person import Person
from beamdesk.protocol.guest import Mount

LOCAL_STREAM = "unix:/run/beamdesk/stream/stream.sock"
AREAS = ("raw", "processed")
"""Raw data are never writable; processed data belong to the team."""


@dataclass(frozen=True, slots=True)
class StorageArea:
    """An area of every experiment on the site's storage.

    ``source``: with ``${folder}`` where the experiment's folder belongs. ``kind``, ``options``, ``secret``: as in a Mount.
    """

    name: str
    kind: str
    source: str
    options: str = ""
    secret: str = field(default="", repr=False)

    def mount(self, folder: str) -> Mount:
        """Return the mount of an experiment's area."""
        source = Template(self.source).safe_substitute(folder=folder)
        return Mount(self.kind, source, f"/data/{folder}/{self.name}", self.name == "processed", self.options, self.secret)


HOST_AREAS = tuple(StorageArea(name, "bind", f"${{folder}}/{name}") for name in AREAS)


@dataclass(frozen=True, slots=True)
class GuestSite:
    """What all desktops of a site have in common. ``home_volume``: the cloud attaches a volume that is the home."""

    stream_listen: str = LOCAL_STREAM
    areas: tuple[StorageArea, ...] = HOST_AREAS
    home_volume: bool = False

    def mounts(self, experiment: Experiment, owner: Person) -> tuple[Mount, ...]:
        """Return all that a desktop of this experiment and person shows."""
        home = (Mount("disk", "auto", f"/home/{owner.login}", writable=True),) if self.home_volume else ()
        return home + tuple(area.mount(experiment.folder) for area in self.areas)
