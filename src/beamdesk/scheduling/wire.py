"""JSON documents of the core, versioned and read strictly: a snapshot of a site, a stored decision, a request.

A published snapshot is all that another process needs to decide as we do: hosts, cards, what is lent and booked, the policy and the
typical requests. It carries the state's digest, so that a reader knows that it opened what was sent. Decisions are kept with their
desktop and can be replayed. `plain.py` does the conversion; transport, signatures and storage are the business of others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from beamdesk.scheduling import plain
from beamdesk.scheduling.arrays import CARD
from beamdesk.scheduling.bookings import Booking
from beamdesk.scheduling.cards import Geometry
from beamdesk.scheduling.checks import moment, word
from beamdesk.scheduling.claims import Claim
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.decision import Decision
from beamdesk.scheduling.errors import Malformed
from beamdesk.scheduling.fragment import Mix
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.policy import DEFAULT, make
from beamdesk.scheduling.request import Request
from beamdesk.scheduling.snapshot import Charges, Snapshot, open_table, take
from beamdesk.scheduling.state import HostTable

SNAPSHOT, DECISION, REQUEST = "beamdesk-scheduling-snapshot", "beamdesk-scheduling-decision", "beamdesk-scheduling-request"
VERSION = 1
LONGEST = 256 * 1024 * 1024
"""Bytes of a document: 10,000 hosts of eight cards need about a tenth of it."""
_HIGHEST_SLOT = 62


@dataclass(frozen=True, slots=True)
class Published:
    """A snapshot as it is handed on: taken ``at`` (seconds since the epoch), with the policy and the typical requests of the site.

    ``digest`` is that of the table; None = not said, and then not checked.
    """

    snapshot: Snapshot
    at: float
    policy: str = DEFAULT
    mix: Mix = ()
    digest: int | None = None

    def __post_init__(self) -> None:
        moment(Malformed, "at", self.at)
        word(Malformed, "policy", self.policy)


def publish(table: HostTable, at: float, policy: str = DEFAULT, mix: Mix = ()) -> Published:
    """Take a snapshot of a table for others."""
    with table.lock:
        return Published(take(table), at, policy, mix, table.digest())


def open_scheduler(published: Published, *, keep: int = 5) -> Scheduler:
    """Return a scheduler over a published snapshot: it decides as the one that published it does.

    Raises:
        Malformed: the table that comes out has another digest than the document says.
        SchedulingError: there is no such policy here.
    """
    table = open_table(published.snapshot)
    if published.digest is not None and table.digest() != published.digest:
        raise Malformed("The snapshot does not have the digest that it states.", field="digest")
    return Scheduler(table, make(published.policy, table, published.mix), keep=keep)


def write_snapshot(published: Published) -> str:
    """Write a published snapshot. Geometries are written once and named by number."""
    geometries: dict[Geometry, int] = {}
    hosts = [_host(host, geometries) for host in published.snapshot.hosts]
    claims = [plain.write(claim) | {"charges": plain.write(charges)} for claim, charges in published.snapshot.claims]
    return _document(
        SNAPSHOT,
        at=published.at,
        policy=published.policy,
        digest=None if published.digest is None else _hex(published.digest),
        mix=plain.write(published.mix),
        geometries=plain.write(tuple(geometries)),
        hosts=hosts,
        claims=claims,
        bookings=plain.write(published.snapshot.bookings),
    )


def _host(host: HostFacts, geometries: dict[Geometry, int]) -> dict[str, Any]:
    written: dict[str, Any] = plain.write(host)
    for card, data in zip(host.cards, written["cards"], strict=True):
        if card.geometry is not None:
            data["geometry"] = geometries.setdefault(card.geometry, len(geometries))
    return written


def read_snapshot(text: str | bytes, *, most: int = LONGEST) -> Published:
    """Read a document that `write_snapshot` wrote.

    Raises:
        Malformed: another format or version, an unknown key, a value that is no amount, or parts that contradict each other.
    """
    data = _open(text, SNAPSHOT, {"at", "policy", "digest", "mix", "geometries", "hosts", "claims", "bookings"}, most)
    geometries: tuple[Geometry, ...] = plain.read(tuple[Geometry, ...], data["geometries"], "geometries")
    hosts: tuple[HostFacts, ...] = plain.read(tuple[HostFacts, ...], _with_geometries(data["hosts"], geometries), "hosts")
    snapshot = Snapshot(hosts, _claims(data["claims"]), plain.read(tuple[Booking, ...], data["bookings"], "bookings"))
    _check(snapshot)
    digest = None if data["digest"] is None else _number(data["digest"], "digest")
    at, policy = plain.read(float, data["at"], "at"), plain.read(str, data["policy"], "policy")
    return Published(snapshot, at, policy, plain.read(Mix, data["mix"], "mix"), digest)


def _with_geometries(hosts: Any, known: tuple[Geometry, ...]) -> Any:
    """Put geometries in where cards name them by number; what has another shape is left for the reader to refuse."""
    for host in hosts if isinstance(hosts, list) else ():
        cards = host.get("cards") if isinstance(host, dict) else None
        for card in cards if isinstance(cards, list) else ():
            number = card.get("geometry") if isinstance(card, dict) else None
            if number is None:
                continue
            if type(number) is not int or not 0 <= number < len(known):
                raise Malformed("hosts: a card has a geometry that the document does not hold.", field="hosts")
            card["geometry"] = known[number]
    return hosts


def _claims(data: Any) -> tuple[tuple[Claim, Charges], ...]:
    if not isinstance(data, list):
        raise Malformed("claims: expected a list", field="claims")
    result = []
    for number, one in enumerate(data):
        path = f"claims[{number}]"
        if not isinstance(one, dict) or "charges" not in one:
            raise Malformed(f"{path}: expected an object with charges", field=path)
        charges = plain.read(Charges, one.pop("charges"), f"{path}.charges")
        result.append((plain.read(Claim, one, path), charges))
    return tuple(result)


def _check(snapshot: Snapshot) -> None:
    """Refuse what no table could hold: it would fail half-way when it is opened, or be lent twice."""
    _no_name_twice("hosts", (host.name for host in snapshot.hosts))
    _no_name_twice("claims", (claim.id for claim, _ in snapshot.claims))
    _no_name_twice("bookings", (booking.id for booking in snapshot.bookings))
    hosts = {host.name: host for host in snapshot.hosts}
    for claim, charges in snapshot.claims:
        host = hosts.get(claim.host)
        if host is None:
            raise Malformed(f"claims: {claim.id} is on a host {claim.host} that is not there.", field="claims")
        if any(node >= len(host.nodes) for node, _, _ in charges):
            raise Malformed(f"claims: {claim.id} is charged to a NUMA node that {host.name} does not have.", field="claims")
        if sum(cpu for _, cpu, _ in charges) != claim.cpu_milli or sum(memory for *_, memory in charges) != claim.memory_mib:
            raise Malformed(f"claims: the charges of {claim.id} do not add up to what it holds.", field="claims")
        _check_grants(host, claim)


def _check_grants(host: HostFacts, claim: Claim) -> None:
    _no_name_twice("claims", (grant.address for grant in claim.grants))
    cards = {card.address: card for card in host.cards}
    for grant in claim.grants:
        card = cards.get(grant.address)
        geometry = None if card is None else card.geometry
        number = -1 if geometry is None or grant.profile is None else geometry.index(grant.profile)
        span = geometry.profiles[number].span if geometry is not None and number >= 0 else 0
        if not 0 < grant.milli <= CARD or grant.start + span > _HIGHEST_SLOT:
            raise Malformed(f"claims: {claim.id} holds more of {grant.address} than a card has.", field="claims")


def _no_name_twice(field: str, names: Iterable[str]) -> None:
    known: set[str] = set()
    for name in names:
        if name in known:
            raise Malformed(f"{field}: {name} is there twice.", field=field)
        known.add(name)


def write_decision(decision: Decision) -> str:
    """Write a decision, to be stored."""
    return _document(DECISION, **(plain.write(decision) | {"state": _hex(decision.state)}))


_DECISION = frozenset(
    {"policy", "request", "now", "state", "host", "grants", "node", "possible", "ranking", "refusals", "impossible"},
)


def read_decision(text: str | bytes, *, most: int = LONGEST) -> Decision:
    """Read a document that `write_decision` wrote.

    Raises:
        Malformed: it is not one.
    """
    data = _open(text, DECISION, _DECISION, most)
    state = _number(data.pop("state"), "state")
    decision: Decision = plain.read(Decision, data | {"state": 0}, "decision")
    return Decision(**{name: getattr(decision, name) for name in _DECISION - {"state"}}, state=state)


def write_request(request: Request) -> str:
    """Write a request."""
    return _document(REQUEST, request=plain.write(request))


def read_request(text: str | bytes, *, most: int = LONGEST) -> Request:
    """Read a document that `write_request` wrote.

    Raises:
        Malformed: it is not one.
    """
    request: Request = plain.read(Request, _open(text, REQUEST, {"request"}, most)["request"], "request")
    return request


def _document(name: str, **content: Any) -> str:
    return json.dumps({"format": name, "version": VERSION, **content}, separators=(",", ":"), allow_nan=False)


def _open(text: str | bytes, name: str, keys: Iterable[str], most: int) -> dict[str, Any]:
    """Return the content of a document, checked for its name, its version and its outer keys: all of them, no others."""
    data = plain.parse(text, most=most)
    if data.pop("format", None) != name:
        raise Malformed(f"This is not a {name} document.", field="format")
    version = data.pop("version", None)
    if type(version) is not int or version != VERSION:
        raise Malformed(f"This is version {str(version)[:20]} of the document; {VERSION} is understood here.", field="version")
    if wrong := set(keys) ^ data.keys():
        kind = "unknown key" if min(wrong) in data else "missing key"
        raise Malformed(f"{kind} {min(wrong)[:40]!r}", field=min(wrong)[:40])
    return data


def _hex(number: int) -> str:
    """Sixty-four bits do not fit into the numbers of every JSON reader."""
    return f"{number:016x}"


def _number(text: Any, field: str) -> int:
    if not isinstance(text, str) or len(text) != 16 or not set(text) <= set("0123456789abcdef"):
        raise Malformed(f"{field} must be 16 hexadecimal digits.", field=field)
    return int(text, 16)
