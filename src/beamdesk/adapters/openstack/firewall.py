"""Security groups by policy: only the gateway reaches a desktop, and beamline networks are open only in the experiment's slot.

One group for all desktops of a place and one for each beamline with networks of its own. What a group allows is compared with the
settings whenever it was not looked at for a while: what is missing is added, what somebody added is removed. Neutron's groups only
allow; what no group allows is closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_network

import structlog

from beamdesk.adapters.openstack.config import Firewall
from beamdesk.adapters.openstack.connection import Connection, Json
from beamdesk.adapters.openstack.errors import Service
from beamdesk.adapters.openstack.names import Names
from beamdesk.adapters.openstack.records import mapping, sequence, text
from beamdesk.domain.errors import CloudRefused

log = structlog.get_logger("beamdesk.openstack")

METADATA_SERVICE = "169.254.169.254/32"
FRESH_S = 600.0
_GONE_OR_DOUBLE = frozenset({404, 409})
_IN_USE = frozenset({404, 409})


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """A rule of a group. Ports 0 = all; ``remote`` empty = everywhere."""

    direction: str
    version: int
    protocol: str = ""
    first: int = 0
    last: int = 0
    remote: str = ""

    @classmethod
    def read(cls, record: Json) -> Rule:
        """Read one of Neutron's rule records."""
        first, last = record.get("port_range_min"), record.get("port_range_max")
        remote = text(record, "remote_ip_prefix")
        version = 6 if text(record, "ethertype") == "IPv6" else 4
        if text(record, "remote_group_id") or text(record, "remote_address_group_id"):
            remote = "group"
        if remote in ("0.0.0.0/0", "::/0"):
            remote = ""
        protocol = text(record, "protocol")
        first_port, last_port = first if isinstance(first, int) else 0, last if isinstance(last, int) else 0
        return cls(text(record, "direction"), version, protocol, first_port, last_port, remote)

    def body(self, group: str) -> Json:
        """Return it as Neutron wants it."""
        return {
            "security_group_id": group,
            "direction": self.direction,
            "ethertype": f"IPv{self.version}",
            "protocol": self.protocol or None,
            "port_range_min": self.first or None,
            "port_range_max": self.last or None,
            "remote_ip_prefix": self.remote or None,
        }


def base_rules(firewall: Firewall, stream_port: int) -> frozenset[Rule]:
    """Return what every desktop's group allows."""
    ingress = {_rule("ingress", network, "tcp", stream_port) for network in firewall.gateways}
    if not firewall.egress:
        return frozenset(ingress | {Rule("egress", 4), Rule("egress", 6)})
    egress = {_rule("egress", network) for network in firewall.egress}
    return frozenset(ingress | egress | {_rule("egress", METADATA_SERVICE, "tcp", 80)})


def beamline_rules(networks: Iterable[str]) -> frozenset[Rule]:
    """Return what the group of a beamline allows."""
    return frozenset(_rule("egress", network) for network in networks)


def _rule(direction: str, network: str, protocol: str = "", port: int = 0) -> Rule:
    read = ip_network(network)
    return Rule(direction, read.version, protocol, port, port, "" if read.prefixlen == 0 else str(read))


class Groups:
    """The security groups of one deployment in one place."""

    def __init__(
        self,
        connection: Connection,
        names: Names,
        firewall: Firewall,
        stream_port: int,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._names = names
        self._firewall = firewall
        self._stream_port = stream_port
        self._monotonic = monotonic
        self._known: dict[str, tuple[float, str]] = {}
        self._looking = asyncio.Lock()

    async def wanted(self, beamline: str) -> frozenset[str] | None:
        """Return the groups of a desktop that may reach ``beamline`` now (empty = none); None = the project's default group.

        Raises:
            CloudRefused: a group in the settings does not exist.
        """
        async with self._looking:  # who comes meanwhile takes what is found
            return await self._wanted(beamline)

    async def _wanted(self, beamline: str) -> frozenset[str] | None:
        firewall = self._firewall
        groups = {await self._site_group(name) for name in firewall.groups}
        if firewall.managed:
            groups.add(await self._ours(self.base_name, base_rules(firewall, self._stream_port)))
            if beamline in firewall.beamlines:
                groups.add(await self._ours(self.beamline_name(beamline), beamline_rules(firewall.beamlines[beamline])))
        return frozenset(groups) or None

    @property
    def base_name(self) -> str:
        """The name of the group of all desktops."""
        return "beamdesk-desktops"

    @staticmethod
    def beamline_name(beamline: str) -> str:
        """Return the name of a beamline's group."""
        return f"beamdesk-beamline-{beamline}"

    def forget(self) -> None:
        """Look at every group again before it is used."""
        self._known.clear()

    async def _site_group(self, name: str) -> str:
        if (known := self._fresh(f"site {name}")) is not None:
            return known
        found = await self._listed({"name": name})
        if not found:
            raise CloudRefused(f"OpenStack has no security group {name}. An operator must correct openstack.security_groups.")
        return self._remember(f"site {name}", text(found[0], "id"))

    async def _ours(self, name: str, rules: frozenset[Rule]) -> str:
        if (known := self._fresh(name)) is not None:
            return known
        mark = {"name": name, "description": self._names.description}
        found = await self._listed(mark)
        if not found:
            made = await self._call("POST", "/security-groups", "make a security group", {"security_group": mark})
            found = await self._listed(mark)
            await self._drop_later_ones(found, text(mapping(made, "security_group"), "id"))
        group = _oldest(found)
        await self._correct(group, rules)
        return self._remember(name, text(group, "id"))

    async def _listed(self, query: dict[str, str]) -> list[Json]:
        reply = await self._connection.call(Service.NETWORK, "GET", "/security-groups", "list the security groups", query=query)
        return list(sequence(reply.data, "security_groups"))

    async def _drop_later_ones(self, found: list[Json], mine: str) -> None:
        if mine != text(_oldest(found), "id"):
            await self._call("DELETE", f"/security-groups/{mine}", "delete a surplus security group", accept=_IN_USE)

    async def _correct(self, group: Json, wanted: frozenset[Rule]) -> None:
        """Make the group allow exactly what it should."""
        present: dict[Rule, str] = {}
        for record in sequence(group, "security_group_rules"):
            rule = Rule.read(record)
            if rule in wanted and rule not in present:
                present[rule] = text(record, "id")
                continue
            path = f"/security-group-rules/{text(record, 'id')}"
            await self._call("DELETE", path, "close what no setting opens", accept=_GONE_OR_DOUBLE)
            log.info("firewall.rule_removed", group=text(group, "name"), direction=rule.direction, remote=rule.remote)
        for rule in sorted(wanted - present.keys()):
            body = {"security_group_rule": rule.body(text(group, "id"))}
            await self._call("POST", "/security-group-rules", "open what the settings allow", body, accept=frozenset({409}))

    async def _call(
        self, method: str, path: str, doing: str, body: Json | None = None, accept: frozenset[int] = frozenset()
    ) -> Json:
        return (await self._connection.call(Service.NETWORK, method, path, doing, body=body, accept=accept)).data

    def _fresh(self, key: str) -> str | None:
        until, group = self._known.get(key, (0.0, ""))
        return group if self._monotonic() < until else None

    def _remember(self, key: str, group: str) -> str:
        self._known[key] = (self._monotonic() + FRESH_S, group)
        return group


def _oldest(groups: list[Json]) -> Json:
    return min(groups, key=lambda group: (text(group, "created_at"), text(group, "id")))
