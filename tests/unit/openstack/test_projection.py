"""Writes of the Placement projection that Placement answers with an error: against its generations, without a Placement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from beamdesk.adapters.openstack.connection import Reply
from beamdesk.adapters.openstack.errors import Service, read_problem, refusal
from beamdesk.adapters.openstack_placement.model import RESOURCE_CLASS, Wanted
from beamdesk.adapters.openstack_placement.projection import TRIES, Projection
from beamdesk.domain.errors import CloudUnavailable

CARD = Wanted(
    "11111111-1111-1111-1111-111111111111",
    "beamdesk-x-host-000_0000:41:00.0",
    "host-000",
    True,
    False,
    frozenset({"CUSTOM_BEAMDESK_A"}),
)
FAILED = '{"errors": [{"status": 500, "detail": "Another thread concurrently updated the resource provider data."}]}'
"""What Placement answers where two writers of traits met in their transactions."""


class OneCard:
    """Placement with the provider of one card: generations are checked, and the next PUTs to a path may fail."""

    def __init__(self) -> None:
        self.generation = 3
        self.traits = {"HW_CPU_X86_AVX"}
        self.inventories: dict[str, Any] = {}
        self.failing: dict[str, int] = {}
        self.writes = 0

    async def call(
        self,
        service: Service,
        method: str,
        path: str,
        doing: str,
        *,
        body: Any = None,
        accept: frozenset[int] = frozenset(),
        **_: Any,
    ) -> Reply:
        part = path.rpartition("/")[2]
        if method == "PUT" and part in {"inventories", "traits"}:
            self.writes += 1
            if self.failing.get(part, 0):
                return self._fail(service, part, doing, accept)
            if body["resource_provider_generation"] != self.generation:
                assert 409 in accept
                return Reply(409, {})
            self.generation += 1
            self._take(part, body[part])
        return Reply(200, self._tell(path, part))

    def _fail(self, service: Service, part: str, doing: str, accept: frozenset[int]) -> Reply:
        """Somebody else's write won: it added a trait."""
        self.failing[part] -= 1
        self.generation += 1
        self.traits.add("HW_CPU_X86_AVX2")
        if 500 not in accept:
            raise refusal(read_problem(service, 500, FAILED), doing)
        return Reply(500, {})

    def _take(self, part: str, value: Any) -> None:
        if part == "traits":
            self.traits = set(value)
        else:
            self.inventories = value

    def _tell(self, path: str, part: str) -> Mapping[str, Any]:
        root = {"uuid": "root", "name": CARD.host, "generation": 1, "parent_provider_uuid": None}
        card = {"uuid": CARD.uuid, "name": CARD.name, "generation": self.generation, "parent_provider_uuid": "root"}
        if path == "/resource_providers":
            return {"resource_providers": [root, card]}
        if part == CARD.uuid:
            return card
        return {"resource_provider_generation": self.generation, "traits": sorted(self.traits), "inventories": self.inventories}


@pytest.mark.anyio
@pytest.mark.parametrize("part", ["traits", "inventories"])
async def test_a_write_that_met_anothers_in_placement_is_compared_and_done_again(part: str) -> None:
    placement = OneCard()
    placement.failing = {part: 1}
    assert (await Projection(placement, "x").reconcile([CARD])).changed == 1
    assert placement.traits == {"HW_CPU_X86_AVX", "CUSTOM_BEAMDESK_A"} | {"HW_CPU_X86_AVX2"}, "theirs stays"
    assert placement.inventories[RESOURCE_CLASS]["reserved"] == 0
    assert placement.writes == 3


@pytest.mark.anyio
@pytest.mark.parametrize("part", ["traits", "inventories"])
async def test_a_placement_that_always_fails_is_told_in_its_own_words(part: str) -> None:
    placement = OneCard()
    placement.failing = {part: TRIES}
    with pytest.raises(CloudUnavailable, match=r"Placement failed \(500\) when asked to write .* concurrently updated"):
        await Projection(placement, "x").reconcile([CARD])
    assert placement.failing == {part: 0}
