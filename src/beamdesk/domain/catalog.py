"""What a desktop can be made of: images and flavors."""

from __future__ import annotations

from dataclasses import dataclass

from beamdesk.domain.ids import FlavorId, ImageId
from beamdesk.domain.text import Text
from beamdesk.scheduling.vocabulary import NOTHING, Words, combine, demand


@dataclass(frozen=True, slots=True)
class Software:
    """A program that an image offers in its menu."""

    name: str
    description: Text


@dataclass(frozen=True, slots=True)
class Image:
    """An image. ``ref`` is the driver's name of it (content hash, Glance id). Empty ``beamlines`` = for every beamline.

    ``words``: what it asks of a host and its cards, by which it narrows a size.
    """

    id: ImageId
    ref: str
    title: Text
    description: Text
    software: tuple[Software, ...] = ()
    beamlines: frozenset[str] = frozenset()
    words: Words = NOTHING

    def fits_beamline(self, beamline: str) -> bool:
        """Tell whether the image is offered to experiments at ``beamline``."""
        return not self.beamlines or beamline in self.beamlines


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of what a host has: vCPUs, memory in MiB, disk in GiB, GPU cards."""

    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    gpus: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            self.vcpus + other.vcpus, self.memory_mib + other.memory_mib, self.disk_gib + other.disk_gib, self.gpus + other.gpus
        )

    def __sub__(self, other: Resources) -> Resources:
        return Resources(
            self.vcpus - other.vcpus, self.memory_mib - other.memory_mib, self.disk_gib - other.disk_gib, self.gpus - other.gpus
        )

    def lacks_for(self, wanted: Resources) -> tuple[str, ...]:
        """Name the resources of which ``wanted`` asks more than this amount (empty = it fits)."""
        names = ("vcpus", "memory_mib", "disk_gib", "gpus")
        return tuple(name for name in names if getattr(wanted, name) > getattr(self, name))


@dataclass(frozen=True, slots=True)
class Flavor:
    """A size on offer. ``words``: what it asks of a host and its cards beside the amounts; `sized` adds the number of cards."""

    id: FlavorId
    title: Text
    resources: Resources
    words: Words = NOTHING


def sized(words: Words, amount: Resources) -> Words:
    """Return words with the number of cards that a size has.

    Raises:
        InvalidRequest: they say another number, or want something of cards where the size has none.
    """
    whole = combine(Words(gpus=amount.gpus), words)
    demand(whole, container=True)
    return whole


def wanted(flavor: Flavor, image: Image) -> Words:
    """Return what a desktop of this size and image asks for.

    Raises:
        InvalidRequest: the two contradict each other.
    """
    words = combine(flavor.words, image.words)
    sized(words, flavor.resources)
    return words
