"""Checks of Neutron: the desktops' network, its addresses, who may reach a desktop, agents; and how user-data arrives."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from beamdesk.adapters.openstack.doctor import Check, CloudCheck, Outcome, missing, ok, unknown, warning, wrong
from beamdesk.adapters.openstack.doctor_probe import Denied, Probe, Raw
from beamdesk.adapters.openstack.errors import Service

_FEW = 20
_OVN_AGENT = "OVN Neutron agent"
"""May serve metadata instead of an agent of that name."""


async def _network(probe: Probe) -> list[Raw]:
    """Return the network of the settings by name or id: none, one, or several of one name."""
    wanted = probe.place.network
    named = await probe.listing(Service.NETWORK, "/networks", "networks", query={"name": wanted})
    return named or await probe.listing(Service.NETWORK, "/networks", "networks", query={"id": wanted})


async def _subnets(probe: Probe) -> list[Raw]:
    found = await _network(probe)
    query = {"network_id": str(found[0].get("id"))} if found else {"network_id": "none"}
    return await probe.listing(Service.NETWORK, "/subnets", "subnets", query=query)


async def network(probe: Probe) -> Outcome:
    """Examine whether the network of the settings is there once, up, and has a subnet."""
    found, name = await _network(probe), probe.place.network
    if not found:
        there = [str(one.get("name")) for one in await probe.listing(Service.NETWORK, "/networks", "networks")]
        return missing(
            f"Set openstack.network to one of these, or make it: openstack network create {name}; openstack subnet create ...",
            f"there is no network {name}; the account sees: {', '.join(sorted(there)[:20]) or 'none'}",
        )
    if len(found) > 1:
        return wrong("Set openstack.network to the id of one.", f"{len(found)} networks are named {name}")
    one = found[0]
    if not one.get("admin_state_up") or one.get("status") not in ("ACTIVE", None):
        return wrong(
            f"openstack network set --enable {name}, and look at Neutron's agents.", f"{name} is {one.get('status')}, down"
        )
    subnets = await _subnets(probe)
    if not subnets:
        return missing(f"openstack subnet create --network {name} --subnet-range 10.60.0.0/16 {name}-v4", f"{name} has no subnet")
    return ok(f"{name} ({one.get('id')}): {', '.join(str(sub.get('cidr')) for sub in subnets)}")


async def addresses(probe: Probe) -> Outcome:
    """Examine whether the subnets have addresses left: exactly with an administrator's eyes, else by the account's own ports."""
    facts, least = [], None
    for sub in await _subnets(probe):
        try:
            answer = await probe.get(Service.NETWORK, f"/network-ip-availabilities/{sub.get('network_id')}", admin=True)
        except Denied:
            answer = {}
        told = (answer.get("network_ip_availability") or {}).get("subnet_ip_availability") or []
        for one in told:
            if one.get("subnet_id") == sub.get("id"):
                left = int(one.get("total_ips") or 0) - int(one.get("used_ips") or 0)
                facts.append(f"{sub.get('cidr')}: {left} addresses left")
                least = left if least is None else max(least, left)
        if not told:
            facts.append(f"{sub.get('cidr')}: {_pool(sub)} addresses in its pools, some in use")
    remedy = "Widen the allocation pool, add a subnet, or delete ports that nobody uses: openstack port list --network NETWORK"
    if least is not None and least <= 0:
        return wrong(remedy, *facts)
    return warning(remedy, *facts) if least is not None and least < _FEW else ok(*facts)


def _pool(subnet: Raw) -> int:
    return sum(
        int(ip_address(str(one["end"]))) - int(ip_address(str(one["start"]))) + 1 for one in subnet.get("allocation_pools") or []
    )


async def firewall(probe: Probe) -> Outcome:
    """Examine who may reach desktops: groups of ours need the gateway's addresses, groups of the site must be there."""
    rules = probe.config.firewall
    there = await probe.listing(Service.NETWORK, "/security-groups", "security_groups")
    if lacking := sorted(set(rules.groups) - {str(one.get("name")) for one in there}):
        return missing("Correct openstack.security_groups, or make them.", f"there is no security group {', '.join(lacking)}")
    if not rules.managed:
        return warning(
            "Make sure that only the gateway reaches the stream's port of a desktop, or set manage_security_groups = true.",
            "manage_security_groups = false: the site cares for it itself",
        )
    if not rules.gateways:
        return missing("Set openstack.gateway_addresses to the gateway's addresses.", "nobody may reach a desktop's stream")
    everything = [one for one in rules.gateways if ip_network(one).prefixlen == 0]
    if everything:
        return wrong("Set openstack.gateway_addresses to the gateway's own addresses.", f"{', '.join(everything)} is everybody")
    fact = f"port {probe.config.stream_port} for {', '.join(rules.gateways)} only"
    closed = [one for one in await _network(probe) if one.get("port_security_enabled") is False]
    if closed:
        return wrong(
            f"openstack network set --enable-port-security {probe.place.network}: without it security groups do nothing.", fact
        )
    return ok(fact)


async def agents(probe: Probe) -> Outcome:
    """Examine whether Neutron's agents are alive; a network without agents has none."""
    listed = await probe.listing(Service.NETWORK, "/agents", "agents", admin=True)
    dead = [f"{one.get('agent_type')} on {one.get('host')} is dead" for one in listed if not one.get("alive")]
    if dead:
        return warning("Start it on its host and look at its log: openstack network agent list", *dead[:20])
    return ok(f"{len(listed)} agents alive" if listed else "no agents are listed")


async def user_data(probe: Probe) -> Outcome:
    """Examine how a desktop gets its enrolment: by config drive, or by the metadata service, which needs DHCP or a route."""
    if probe.config.config_drive:
        return ok("by config drive")
    subnets = await _subnets(probe)
    if not any(sub.get("enable_dhcp") for sub in subnets):
        return wrong(
            "Set openstack.config_drive = true, or switch DHCP on: openstack subnet set --dhcp SUBNET",
            "no config drive, and no DHCP that tells the way to the metadata service",
        )
    return unknown(
        "In any server of this network: curl -s http://169.254.169.254/openstack/latest/meta_data.json",
        "by the metadata service, which can be seen from inside only",
    )


async def metadata(probe: Probe) -> Outcome:
    """Examine whether a metadata service is there: a stopped desktop finds the nonce of its next start nowhere else."""
    listed = await probe.listing(Service.NETWORK, "/agents", "agents", admin=True)
    serving = [one for one in listed if "metadata" in str(one.get("agent_type")).lower() or one.get("agent_type") == _OVN_AGENT]
    if not serving:
        return unknown(
            "In any server of this network: curl -s http://169.254.169.254/openstack/latest/meta_data.json",
            "no agent of Neutron's is known to serve metadata; without them a stopped desktop cannot start again",
        )
    if alive := [str(one.get("host")) for one in serving if one.get("alive")]:
        return ok(f"served on {', '.join(sorted(alive)[:_FEW])}")
    hosts = ", ".join(sorted(str(one.get("host")) for one in serving)[:_FEW])
    return wrong(
        "Start neutron-metadata-agent (with OVN: neutron-ovn-metadata-agent) and look at its log.",
        f"no agent that serves metadata is alive ({hosts}): a stopped desktop cannot start again",
    )


async def ports(probe: Probe) -> Outcome:
    """Examine whether the project may have more ports: each desktop has one."""
    project = (await probe.access()).project_id
    detail = (await probe.get(Service.NETWORK, f"/quotas/{project}/details")).get("quota", {}).get("port", {})
    limit = detail.get("limit")
    if not isinstance(limit, int) or limit < 0:
        return ok("room for any number of ports")
    left = limit - int(detail.get("used") or 0) - int(detail.get("reserved") or 0)
    remedy = f"openstack quota set --ports N {project}    (an administrator)"
    if left < 1:
        return wrong(remedy, f"all {limit} ports are used")
    return warning(remedy, f"room for {left} ports") if left < _FEW else ok(f"room for {left} ports")


CHECKS: tuple[CloudCheck, ...] = (
    Check("network.network", "The desktops' network is there", network, blocks=True),
    Check("network.addresses", "It has addresses left", addresses),
    Check("network.ports", "The project may have more ports", ports),
    Check("network.firewall", "Only the gateway reaches a desktop's stream", firewall),
    Check("network.agents", "Neutron's agents are alive", agents),
    Check("network.user-data", "A new desktop gets its user-data", user_data, blocks=True),
    Check("network.metadata", "A stopped desktop can start again", metadata),
)
