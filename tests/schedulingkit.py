"""Small random worlds and requests for property tests, and a brute-force scheduler that shares no code with the real one."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

from hypothesis import strategies as st

from beamdesk.scheduling.bookings import Booking
from beamdesk.scheduling.cards import MIG_GEOMETRIES, Card, CardMode, CardState, Geometry, equal_size_vgpu, mixed_size_vgpu
from beamdesk.scheduling.claims import Claim, Grant
from beamdesk.scheduling.host import HostFacts, NumaNode
from beamdesk.scheduling.request import CardDemand, GroupRule, NumaRule, Request

EQUAL = equal_size_vgpu("equal", {"e-1": 4, "e-2": 2, "e-4": 1})
MIXED = mixed_size_vgpu("mixed", 8, {"m-1": 1, "m-2": 2, "m-8": 8})
GEOMETRIES = {CardMode.VGPU: (EQUAL, MIXED), CardMode.MIG: (MIG_GEOMETRIES["A30"], MIG_GEOMETRIES["A100-40GB"])}
PROFILES = ("e-1", "e-1", "e-2", "e-2", "m-1", "m-2", "m-8", "1g.6gb", "2g.12gb", "1g.5gb", "3g.20gb", "none-such")
MODELS = {"T4": (16, 4, 320, 1590), "A10": (24, 9, 600, 1695), "A100": (40, 7, 1555, 1410)}


@st.composite
def cards(draw: st.DrawFn, number: int, nodes: int) -> Card:
    model = draw(st.sampled_from(list(MODELS)))
    mode = draw(st.sampled_from([CardMode.PASSTHROUGH, CardMode.PASSTHROUGH, CardMode.HOST, CardMode.VGPU, CardMode.MIG]))
    geometry = draw(st.sampled_from(GEOMETRIES[mode])) if mode in GEOMETRIES else None
    states = [CardState.FREE] * 5 + [CardState.DIRTY, CardState.CLEANING, CardState.FAILED, CardState.USED]
    return Card(
        f"c{number}",
        model,
        *MODELS[model],
        state=draw(st.sampled_from(states)),
        mode=mode,
        numa=draw(st.integers(0, nodes - 1)),
        geometry=geometry,
    )


@st.composite
def hosts(draw: st.DrawFn, name: str) -> HostFacts:
    nodes = tuple(NumaNode(draw(st.integers(1, 6)), draw(st.integers(1, 6))) for _ in range(draw(st.integers(1, 2))))
    count = draw(st.integers(0, 3))
    return HostFacts(
        name,
        sum(node.cpu_milli for node in nodes),
        sum(node.memory_mib for node in nodes),
        disk_gib=draw(st.integers(1, 4)),
        cards=tuple(draw(cards(number, len(nodes))) for number in range(count)),
        numa=nodes,
        aggregates=draw(st.frozensets(st.sampled_from(["B7", "B8"]), max_size=2)),
        images=draw(st.frozensets(st.sampled_from(["imaging", "general"]), max_size=2)),
        dedicated=draw(st.integers(0, 9)) == 9,
        enabled=draw(st.integers(0, 9)) < 9,
        stale=draw(st.integers(0, 7)) == 7,
    )


@st.composite
def some_worlds(draw: st.DrawFn) -> list[HostFacts]:
    return [draw(hosts(f"h{number}")) for number in range(draw(st.integers(1, 4)))]


@st.composite
def demands(draw: st.DrawFn) -> CardDemand:
    kind = draw(st.sampled_from(["whole", "whole", "share", "profile"]))
    return CardDemand(
        count=1 if kind == "share" else draw(st.sampled_from([1, 1, 1, 2, 3])),
        share=draw(st.sampled_from([250, 400, 500])) if kind == "share" else 1000,
        profile=draw(st.sampled_from(PROFILES)) if kind == "profile" else None,
        models=draw(st.sampled_from([frozenset()] * 4 + [frozenset({"T4"}), frozenset({"A10", "A100"})])),
        memory_mib=draw(st.sampled_from([0] * 5 + [20])),
        cores=draw(st.sampled_from([0] * 5 + [8])),
        bandwidth_gbs=draw(st.sampled_from([0] * 5 + [500])),
        clock_mhz=draw(st.sampled_from([0] * 5 + [1500])),
        container=kind == "share" or draw(st.booleans()),
    )


@st.composite
def some_requests(draw: st.DrawFn, request_id: str = "r") -> Request:
    image = draw(st.sampled_from([None, "imaging", "elsewhere"]))
    return Request(
        request_id,
        draw(st.integers(0, 2)),
        draw(st.integers(0, 2)),
        disk_gib=draw(st.integers(0, 1)),
        cards=draw(st.none() | demands()),
        numa=draw(st.sampled_from([NumaRule.NONE, NumaRule.NONE, NumaRule.PREFER, NumaRule.STRICT])),
        aggregates=draw(st.sampled_from([frozenset()] * 4 + [frozenset({"B7"}), frozenset({"B7", "B8"})])),
        image=image,
        image_required=image is not None and draw(st.integers(0, 3)) == 3,
        group=draw(st.sampled_from([None, None, "g"])),
        group_rule=draw(st.sampled_from(GroupRule)),
        not_hosts=draw(st.sampled_from([frozenset()] * 4 + [frozenset({"h0"})])),
        until=draw(st.none() | st.integers(1, 20)),
    )


@st.composite
def some_bookings(draw: st.DrawFn, number: int) -> Booking:
    start = draw(st.integers(0, 20))
    return Booking(
        f"b{number}",
        f"h{draw(st.sampled_from([0, 0, 1, 2]))}",
        start,
        start + draw(st.integers(1, 20)),
        cards=tuple(sorted(draw(st.frozensets(st.sampled_from(["c0", "c1", "c2"]), min_size=1, max_size=2)))),
        cpu_milli=draw(st.integers(0, 2)),
        memory_mib=draw(st.integers(0, 2)),
    )


@dataclass
class Oracle:
    """The slow truth: plain lists, one check after the other, every subset of cards tried."""

    facts: list[HostFacts]
    claims: list[Claim] = field(default_factory=list)
    node_use: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    bookings: list[Booking] = field(default_factory=list)

    def on(self, host: HostFacts) -> list[Claim]:
        return [claim for claim in self.claims if claim.host == host.name]

    def can(self, host: HostFacts, request: Request, now: float = 0.0) -> bool:
        """Tell whether the host can take the request."""
        named = not request.only_hosts or host.name in request.only_hosts
        if not host.enabled or host.name in request.not_hosts or not named:
            return False
        if not (host.aggregates & request.aggregates if request.aggregates else not host.dedicated):
            return False
        if request.image_required and request.image not in host.images:
            return False
        members = {claim.host for claim in self.claims if request.group is not None and claim.group == request.group}
        far = request.group_rule is GroupRule.TOGETHER and members and host.name not in members
        if far or (request.group_rule is GroupRule.APART and host.name in members):
            return False
        return self.room(host, request, now) and self.has_cards(host, request, now)

    def room(self, host: HostFacts, request: Request, now: float) -> bool:
        here = self.on(host)
        if request.disk_gib and request.disk_gib > host.disk_gib - sum(claim.disk_gib for claim in here):
            return False
        until = math.inf if request.until is None or request.until <= now else request.until
        mine = [booking for booking in self.bookings if booking.host == host.name]
        moments = {now} | {booking.start for booking in mine if now < booking.start < until}
        for moment in moments:
            there = [claim for claim in here if claim.until is None or claim.until <= now or claim.until > moment]
            promised = [one for one in mine if one.start <= moment < one.end]
            for name, total in (("cpu_milli", host.cpu_milli), ("memory_mib", host.memory_mib)):
                used = sum(getattr(one, name) for one in (*there, *promised))
                if getattr(request, name) and getattr(request, name) > total - used:
                    return False
        return True

    def card_free(self, host: HostFacts, card: Card, demand: CardDemand) -> bool:
        if card.state is not CardState.FREE or host.stale or (demand.models and card.model not in demand.models):
            return False
        for name in ("memory_mib", "cores", "bandwidth_gbs", "clock_mhz"):
            if getattr(card, name) < getattr(demand, name):
                return False
        grants = [grant for claim in self.on(host) for grant in claim.grants if grant.address == card.address]
        if demand.profile is not None:
            return card.geometry is not None and self.profile_fits(card.geometry, demand.profile, grants)
        lent = card.mode is CardMode.HOST
        if card.geometry is not None or (lent and not demand.container) or (demand.share < 1000 and not lent):
            return False
        return sum(grant.milli for grant in grants) + demand.share <= 1000

    def profile_fits(self, geometry: Geometry, name: str, grants: list[Grant]) -> bool:
        by_name = {profile.name: profile for profile in geometry.profiles}
        if name not in by_name or (not geometry.mixed and any(grant.profile != name for grant in grants)):
            return False
        taken = {slot for grant in grants for slot in range(grant.start, grant.start + by_name[grant.profile or ""].span)}
        wanted = by_name[name]
        return any(not taken & set(range(start, start + wanted.span)) for start in wanted.starts)

    def has_cards(self, host: HostFacts, request: Request, now: float) -> bool:
        until = math.inf if request.until is None or request.until <= now else request.until
        blocked = {
            address
            for one in self.bookings
            if one.host == host.name and one.start < until and now < one.end
            for address in one.cards
        }
        demand = request.cards
        if demand is None:
            return request.numa is not NumaRule.STRICT or self.on_one_node(host, request, ())
        able = [card for card in host.cards if self.card_free(host, card, demand) and card.address not in blocked]
        for some in itertools.combinations(able, demand.count):
            if request.numa is not NumaRule.STRICT or self.on_one_node(host, request, some):
                return True
        return False

    def on_one_node(self, host: HostFacts, request: Request, some: tuple[Card, ...]) -> bool:
        for number, node in enumerate(host.nodes):
            cpu, memory = self.node_use.get((host.name, number), (0, 0))
            if (
                all(card.numa == number for card in some)
                and request.cpu_milli <= node.cpu_milli - cpu
                and request.memory_mib <= node.memory_mib - memory
            ):
                return True
        return False
