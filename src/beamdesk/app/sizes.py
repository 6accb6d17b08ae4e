"""Sizes as the scheduling core's requests: what a desktop asks of a host, what is typical of a site, what a booking is named."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from beamdesk.domain.catalog import Flavor, Resources, sized
from beamdesk.domain.placement import Booking
from beamdesk.scheduling.fragment import Mix, Task
from beamdesk.scheduling.request import CardDemand, Request
from beamdesk.scheduling.vocabulary import Words, demand, request_for


def demand_of(amount: Resources, words: Words, *, container: bool) -> CardDemand | None:
    """Return the cards of a size. A container may use those that the host drives."""
    return demand(sized(words, amount), container=container)


def request_of(
    name: str, amount: Resources, until: datetime | None, words: Words, image_ref: str | None = None, *, container: bool
) -> Request:
    """Return a size as the core's request.

    Raises:
        InvalidRequest: an image is required on the host, and none is named.
    """
    return request_for(
        name,
        sized(words, amount),
        vcpus=amount.vcpus,
        memory_mib=amount.memory_mib,
        disk_gib=amount.disk_gib,
        image_ref=image_ref,
        container=container,
        until=until.timestamp() if until is not None else None,
    )


def mix_of(flavors: Iterable[Flavor], *, container: bool) -> Mix:
    """Return the sizes on offer as the typical requests, each as often as any other."""
    return tuple(
        Task(1000 * one.resources.vcpus, one.resources.memory_mib, demand_of(one.resources, one.words, container=container), 1)
        for one in flavors
    )


def part_name(booking: Booking, number: int) -> str:
    """Return the core's name of one part of a booking (`beamdesk.scheduling.line.own` finds the parts by it)."""
    return f"{booking.id}.{number}"
