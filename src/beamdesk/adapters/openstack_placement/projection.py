"""Makes Placement say what `model.py` wants: reads, compares, writes the difference; safe to run again, and beside another one.

Every write carries the provider's generation; when somebody else wrote meanwhile it reads and compares anew. Placement tells that
with 409, and with 500 where both were in their transaction at once: its handler of traits lets that error of its own through
(`placement/handlers/trait.py`, `set_traits`). Providers that are not this deployment's are only read. A provider
that is in use is never deleted: it is reserved until it is free.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import structlog

from beamdesk.adapters.openstack.connection import Json, Reply
from beamdesk.adapters.openstack.errors import Service
from beamdesk.adapters.openstack_placement.model import MANAGED, RESOURCE_CLASS, Wanted, prefix
from beamdesk.domain.errors import CloudRefused, CloudUnavailable

VERSION = "1.37"
"""The oldest microversion with all that is used: reserving all of an inventory (1.26), moving a provider in its tree (1.37)."""
TRIES = 6
_CONFLICT, _GONE, _FAILED = 409, 404, 500
_LOG = structlog.get_logger("beamdesk.placement")


class Caller(Protocol):
    """Who speaks to Placement (`beamdesk.adapters.openstack.connection.Connection`)."""

    async def call(
        self,
        service: Service,
        method: str,
        path: str,
        doing: str,
        *,
        body: Json | None = None,
        accept: frozenset[int] = frozenset(),
        version: str | None = None,
    ) -> Reply:
        """Send one request."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider as Placement lists it."""

    uuid: str
    name: str
    generation: int
    parent: str | None


@dataclass(slots=True)
class Outcome:
    """What a round did. ``homeless``: hosts that Nova does not know."""

    created: int = 0
    changed: int = 0
    deleted: int = 0
    kept: int = 0
    homeless: set[str] = field(default_factory=set)


class Projection:
    """One deployment's providers. Remembers what it wrote, so that a quiet round is one request."""

    def __init__(self, cloud: Caller, deployment: str) -> None:
        self._cloud = cloud
        self._prefix = prefix(deployment)
        self._traits: set[str] = set()
        self._settled: dict[str, tuple[int, Wanted]] = {}

    async def reconcile(self, wanted: Iterable[Wanted]) -> Outcome:
        """Do one round.

        Raises:
            CloudUnavailable, CloudRefused: Placement does not answer, or does not let us.
        """
        outcome, asked = Outcome(), {one.uuid: one for one in wanted}
        providers = await self._providers()
        by_name = {provider.name: provider for provider in providers.values()}
        await self._prepare(asked.values())
        for one in asked.values():
            root = by_name.get(one.host)
            if root is None:
                outcome.homeless.add(one.host)
            else:
                await self._settle(one, providers.get(one.uuid), root, outcome)
        for provider in providers.values():
            if provider.name.startswith(self._prefix) and provider.uuid not in asked:
                await self._remove(provider, outcome)
        return outcome

    async def _settle(self, one: Wanted, known: Provider | None, root: Provider, outcome: Outcome) -> None:
        if known is not None and self._settled.get(one.uuid) == (known.generation, one) and known.parent == root.uuid:
            return
        if known is None:
            await self._create(one, root)
            outcome.created += 1
        elif known.parent != root.uuid:
            await self._move(known, root)
        changed = await self._set_inventory(one.uuid, one)
        changed |= await self._set_traits(one)
        outcome.changed += changed
        generation = (await self._get(f"/resource_providers/{one.uuid}", "read a provider"))["generation"]
        self._settled[one.uuid] = (int(cast(int, generation)), one)

    async def _providers(self) -> dict[str, Provider]:
        listed = cast("list[dict[str, Any]]", (await self._get("/resource_providers", "list providers"))["resource_providers"])
        found = (Provider(one["uuid"], one["name"], one["generation"], one.get("parent_provider_uuid")) for one in listed)
        return {provider.uuid: provider for provider in found}

    async def _prepare(self, wanted: Iterable[Wanted]) -> None:
        """Have the resource class and the traits that are needed; both calls are idempotent."""
        missing = {trait for one in wanted for trait in one.traits} - self._traits
        if missing and not self._traits:
            await self._send("PUT", f"/resource_classes/{RESOURCE_CLASS}", "make a resource class")
        for trait in sorted(missing):
            await self._send("PUT", f"/traits/{trait}", "make a trait")
        self._traits |= missing

    async def _create(self, one: Wanted, root: Provider) -> None:
        """Make a provider; that it is there already (another process was quicker) is fine if it is the same one."""
        body = {"uuid": one.uuid, "name": one.name, "parent_provider_uuid": root.uuid}
        reply = await self._send("POST", "/resource_providers", "make a provider", body, accept=frozenset({_CONFLICT}))
        if reply.status == _CONFLICT:
            found = await self._send("GET", f"/resource_providers/{one.uuid}", "read a provider", accept=frozenset({_GONE}))
            if found.status == _GONE:
                raise CloudRefused(f"Placement has another provider of the name {one.name}. Delete it.", name=one.name)

    async def _move(self, known: Provider, root: Provider) -> None:
        body = {"name": known.name, "parent_provider_uuid": root.uuid}
        await self._send("PUT", f"/resource_providers/{known.uuid}", "move a provider", body)

    async def _set_inventory(self, uuid: str, one: Wanted | None) -> bool:
        """Write the inventory; ``one`` None = reserve it, whatever it was."""

        async def compare(data: Json) -> Json | None:
            own = cast("dict[str, Any]", data["inventories"]).get(RESOURCE_CLASS, {})
            reserved = 0 if one is not None and (one.lendable or (one.in_use and await self._is_allocated(uuid))) else 1
            right = {"total": 1, "reserved": reserved, "min_unit": 1, "max_unit": 1, "step_size": 1, "allocation_ratio": 1.0}
            return (
                None if all(own.get(name) == value for name, value in right.items()) else {"inventories": {RESOURCE_CLASS: right}}
            )

        return await self._set(uuid, "inventories", compare)

    async def _is_allocated(self, uuid: str) -> bool:
        data = await self._get(f"/resource_providers/{uuid}/usages", "read a usage")
        return bool(cast("Mapping[str, int]", data["usages"]).get(RESOURCE_CLASS))

    async def _set_traits(self, one: Wanted) -> bool:
        async def compare(data: Json) -> Json | None:
            now = set(cast("list[str]", data["traits"]))
            right = {trait for trait in now if not trait.startswith(MANAGED)} | one.traits
            return None if now == right else {"traits": sorted(right)}

        return await self._set(one.uuid, "traits", compare)

    async def _set(self, uuid: str, what: str, compare: Callable[[Json], Awaitable[Json | None]]) -> bool:
        """Read and write what ``compare`` says is missing, None = nothing, until it is so; tell whether anything was written.

        Writes are guarded by the generation that was read. Which 500 was a rival's is only known by the next comparison; that of
        the last try is an error.
        """
        path = f"/resource_providers/{uuid}/{what}"
        for left in reversed(range(TRIES)):
            data = await self._get(path, f"read {what}")
            body = await compare(data)
            if body is None:
                return False
            guarded = {"resource_provider_generation": data["resource_provider_generation"], **body}
            again = frozenset({_CONFLICT, _FAILED} if left else {_CONFLICT})
            if (await self._send("PUT", path, f"write {what}", guarded, accept=again)).status not in again:
                return True
        raise CloudUnavailable(f"Placement's provider {uuid} changes all the time. Beamdesk tries again.")

    async def _remove(self, provider: Provider, outcome: Outcome) -> None:
        """Delete a provider of ours that stands for no card any more; one that is in use is reserved instead."""
        reply = await self._send(
            "DELETE", f"/resource_providers/{provider.uuid}", "delete a provider", accept=frozenset({_CONFLICT, _GONE})
        )
        self._settled.pop(provider.uuid, None)
        if reply.status == _CONFLICT:
            await self._set_inventory(provider.uuid, None)
            outcome.kept += 1
            _LOG.info("placement.kept", provider=provider.name)
        else:
            outcome.deleted += 1

    async def _get(self, path: str, doing: str) -> Json:
        return (await self._cloud.call(Service.PLACEMENT, "GET", path, doing, version=VERSION)).data

    async def _send(
        self, method: str, path: str, doing: str, body: Json | None = None, *, accept: frozenset[int] = frozenset()
    ) -> Reply:
        return await self._cloud.call(Service.PLACEMENT, method, path, doing, body=body, accept=accept, version=VERSION)
