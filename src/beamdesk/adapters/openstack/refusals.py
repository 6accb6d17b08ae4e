"""Which hosts cannot take a server, by elimination: each host counts for the first thing that it lacks. Pure.

The order is that of a person who looks: is the host there at all, may it take this desktop, has it room, has it the card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from beamdesk.domain.server import Remedy

_AGGREGATE = "aggregate_instance_extra_specs:"
_OURS = "beamdesk:aggregates"
_OPERATORS = ("<in>", "<all-in>", "s==", "s!=", "s<", "s>", "==", ">=", "<=", "!=", "=")
_LIBVIRT = frozenset({"qemu", "kvm"})


@dataclass(frozen=True, slots=True)
class ComputeHost:
    """A hypervisor: ``uuid`` as in Placement; totals without overcommit; ``groups``: its aggregates, with their ``properties``."""

    uuid: str
    name: str
    up: bool = True
    enabled: bool = True
    hypervisor: str = ""
    arch: str = ""
    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    zone: str = "nova"
    groups: frozenset[str] = frozenset()
    properties: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Device:
    """Cards that a flavor asks for by a PCI alias. ``resource``: the class behind it, empty where nobody told us."""

    alias: str
    count: int
    resource: str = ""
    traits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a server asks of a host. ``others``: further resource classes and amounts; ``traits``: as Placement's ``required``."""

    vcpus: int
    memory_mib: int
    disk_gib: int
    pinned: bool = False
    others: tuple[tuple[str, int], ...] = ()
    traits: tuple[str, ...] = ()
    grouped: tuple[tuple[str, str], ...] = ()
    devices: tuple[Device, ...] = ()
    specs: Mapping[str, str] = field(default_factory=dict)
    zone: str = ""
    arch: str = ""
    hypervisor: str = ""


@dataclass(frozen=True, slots=True)
class Lack:
    """What removes a host, in words for one host and for several."""

    one: str
    many: str


@dataclass(frozen=True, slots=True)
class Refusals:
    """``why``: host name -> what it lacks, in words; ``counts``: the same for people; ``left``: hosts that lack nothing known."""

    total: int
    counts: tuple[tuple[Lack, int], ...]
    why: Mapping[str, str]
    left: tuple[str, ...]
    remedy: Remedy
    unknown_cards: tuple[str, ...] = ()

    def words(self) -> str:
        """Say of a desktop that no host took why, in one or two sentences and without the names of hosts."""
        return " ".join(part for part in (self.counted(), self._rest() if self.total else "") if part)

    def counted(self) -> str:
        """Say how many hosts lack what; empty = none lacks anything."""
        if not self.total:
            return "The cloud has no hosts."
        parts = [f"{count} {lack.one if count == 1 else lack.many}" for lack, count in self.counts]
        if len(self.counts) == 1 and not self.left:
            lack, count = self.counts[0]
            return f"The only host {lack.one}." if count == 1 else f"All {count} hosts {lack.many}."
        return f"Of {self.total} hosts {_joined(parts)}." if parts else ""

    def _rest(self) -> str:
        if not self.left:
            return "" if self.remedy is Remedy.WAIT else "None is large enough, even when it is empty."
        number = len(self.left)
        hosts = f"{number} {'host has' if number == 1 else 'hosts have'} room"
        if self.unknown_cards:
            return f"{hosts}, but perhaps no free {_joined(list(self.unknown_cards))}, which OpenStack does not tell."
        return f"{hosts} and refused it by a rule that OpenStack tells nobody but its scheduler's log."


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


DOWN = Lack("does not answer", "do not answer")
DISABLED = Lack("is disabled", "are disabled")
ZONE = Lack("is in another availability zone", "are in another availability zone")
APART = Lack("is not set aside for this size", "are not set aside for this size")
MACHINE = Lack("cannot run the image's kind of machine", "cannot run the image's kind of machine")


def fewer(amount: int, what: str) -> Lack:
    """Return the words for a countable thing: no free X, fewer than n X free."""
    if amount == 1:
        return Lack(f"has no free {what}", f"have no free {what}")
    return Lack(f"has fewer than {amount} {what} free", f"have fewer than {amount} {what} free")


def less(what: str) -> Lack:
    """Return the words for an amount, such as "4 GiB of memory"."""
    return Lack(f"has less than {what} free", f"have less than {what} free")


def by_rules(host: ComputeHost, wanted: Wanted) -> Lack | None:
    """Return what keeps a host from taking it whatever is free there; None = nothing that we know."""
    if not host.up:
        return DOWN
    if not host.enabled:
        return DISABLED
    if wanted.zone and host.zone != wanted.zone:
        return ZONE
    if not _set_aside(host, wanted.specs):
        return APART
    kinds = _LIBVIRT if host.hypervisor.lower() in _LIBVIRT else {host.hypervisor.lower()}
    wrong_kind = wanted.hypervisor and host.hypervisor and wanted.hypervisor.lower() not in kinds
    wrong_arch = wanted.arch and host.arch and wanted.arch.lower() != host.arch.lower()
    return MACHINE if wrong_kind or wrong_arch else None


def _set_aside(host: ComputeHost, specs: Mapping[str, str]) -> bool:
    """Tell whether the host is in the aggregates that the flavor asks for. What we cannot read counts as fine."""
    if named := specs.get(_OURS):
        return bool(host.groups & {name.strip() for name in named.split("|")})
    for key, value in specs.items():
        if not key.startswith(_AGGREGATE) or value.startswith(_OPERATORS):
            continue
        wanted = {part.strip() for part in value.split("<or>") if part.strip()}
        if not wanted & host.properties.get(key.removeprefix(_AGGREGATE), frozenset()):
            return False
    return True


def eliminate(
    hosts: Sequence[ComputeHost],
    wanted: Wanted,
    rooms: Sequence[tuple[Lack, frozenset[str]]],
    cards: Mapping[str, Mapping[str, int]],
) -> Refusals:
    """Eliminate hosts one by one.

    ``rooms``: in turn what must be free, and the uuids of the hosts that have it together with all before. ``cards``: alias -> uuid
    -> how many such cards the host has at all, for whether it could be had when others go.
    """
    lacks: dict[str, Lack] = {}
    for host in hosts:
        lack = by_rules(host, wanted) or next((lack for lack, has in rooms if host.uuid not in has), None)
        if lack is not None:
            lacks[host.name] = lack
    counted: dict[Lack, int] = {}
    for lack in lacks.values():
        counted[lack] = counted.get(lack, 0) + 1
    left = tuple(sorted(host.name for host in hosts if host.name not in lacks))
    could = any(by_rules(host, wanted) is None and _large_enough(host, wanted, cards) for host in hosts)
    order = [DOWN, DISABLED, ZONE, APART, MACHINE, *(lack for lack, _ in rooms)]
    return Refusals(
        len(hosts),
        tuple((lack, counted[lack]) for lack in dict.fromkeys(order) if lack in counted),
        {name: lack.one for name, lack in sorted(lacks.items())},
        left,
        Remedy.AGAIN if left else Remedy.WAIT if could else Remedy.PERSON,
        tuple(device.alias for device in wanted.devices if not device.resource),
    )


def _large_enough(host: ComputeHost, wanted: Wanted, cards: Mapping[str, Mapping[str, int]]) -> bool:
    sizes = ((host.vcpus, wanted.vcpus), (host.memory_mib, wanted.memory_mib), (host.disk_gib, wanted.disk_gib))
    fits = all(has >= asked for has, asked in sizes)  # Placement lends one server no more than a host really has
    return fits and all(cards[one.alias].get(host.uuid, 0) >= one.count for one in wanted.devices if one.alias in cards)
