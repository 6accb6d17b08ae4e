"""What Placement should say of a site's cards: names, classes, traits, reservations. Pure; asks nobody.

A provider a card, child of the compute node's provider, with an inventory of one `RESOURCE_CLASS`. Only a free card of a host
that reports and is open can be allocated; every other one is reserved. Traits are those of the GPU plan: the model, and "at least
so much memory".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from uuid import UUID, uuid5

from beamdesk.adapters.openstack.gpu_plan_cards import MODELS, CardModel
from beamdesk.domain.srm import CardState, DeviceRecord, HostRecord
from beamdesk.protocol.srm import CardFacts, LendMode

RESOURCE_CLASS = "CUSTOM_BEAMDESK_GPU"
OWNER_TRAIT = "CUSTOM_BEAMDESK_SRM"
MANAGED = ("CUSTOM_GPU_", "CUSTOM_BEAMDESK_")
"""Traits with these beginnings are ours on our providers; operators may add others, which stay."""
_MOST_TRAIT = 255


@dataclass(frozen=True, slots=True)
class Wanted:
    """A provider as it should be. ``lendable``: nothing reserved; ``in_use``: its holder may have allocated it."""

    uuid: str
    name: str
    host: str
    lendable: bool
    in_use: bool
    traits: frozenset[str]


def wanted(
    deployment: str, hosts: Iterable[HostRecord], devices: Iterable[DeviceRecord], stale: frozenset[str]
) -> tuple[Wanted, ...]:
    """Return the providers for all whole cards. Cards lent in parts are Nova's to report (VGPU, mdev types), not ours."""
    known = {host.name: host for host in hosts}
    return tuple(
        _wanted(deployment, known[device.host], device, stale=device.host in stale)
        for device in devices
        if device.host in known and device.facts.mode is LendMode.PASSTHROUGH
    )


def _wanted(deployment: str, host: HostRecord, device: DeviceRecord, *, stale: bool) -> Wanted:
    free = device.present and device.state is CardState.FREE
    return Wanted(
        uuid=str(uuid5(namespace(deployment), f"{host.name}/{device.address}")),
        name=f"{prefix(deployment)}{host.name}_{device.address}"[:200],
        host=host.name,
        lendable=free and host.enabled and not stale,
        in_use=device.present and device.state is CardState.USED,
        traits=traits_of(device.facts),
    )


def namespace(deployment: str) -> UUID:
    """Return the namespace of this deployment's provider ids."""
    return uuid5(UUID("6c2f4a5e-0b1d-5d7a-9a44-9b0d6f3c8e21"), deployment)


def prefix(deployment: str) -> str:
    """Return how the names of this deployment's providers begin: what we may delete carries it."""
    return f"beamdesk-srm_{namespace(deployment).hex[:12]}_"


def traits_of(facts: CardFacts) -> frozenset[str]:
    """Return a card's traits."""
    memory = (facts.memory_mib or 0) // 1024
    planned = MODELS.get(f"{facts.vendor}:{facts.device}")
    if planned is None or (planned.memory_gib and memory and planned.memory_gib != memory):
        planned = CardModel(facts.model, word_of(facts.model))
    model = replace(planned, memory_gib=memory or planned.memory_gib)
    return frozenset({OWNER_TRAIT, *(trait[:_MOST_TRAIT] for trait in model.traits)})


def word_of(model: str) -> str:
    """Return a model's name as Placement allows it in a trait: capital letters, digits, underscores."""
    return re.sub(r"[^A-Z0-9]+", "_", model.upper()).strip("_") or "UNKNOWN"
