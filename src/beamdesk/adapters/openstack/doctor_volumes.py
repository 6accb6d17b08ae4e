"""Checks of Cinder, where desktops have volumes: types, room in quotas, and volumes that only an operator can move on."""

from __future__ import annotations

from datetime import timedelta

from beamdesk.adapters.openstack.doctor import Check, CloudCheck, Outcome, missing, ok, warning, wrong
from beamdesk.adapters.openstack.doctor_compute import on_offer, room_in
from beamdesk.adapters.openstack.doctor_probe import Probe, Raw
from beamdesk.adapters.openstack.errors import Service
from beamdesk.adapters.openstack.names import DEPLOYMENT_KEY
from beamdesk.adapters.openstack.records import date_of, mapping

_FEW = 10
_STUCK_AFTER = timedelta(minutes=10)
_PASSING = frozenset({"creating", "downloading", "attaching", "detaching", "deleting"})
_NONE = "no desktop has a volume by these settings"


async def types(probe: Probe) -> Outcome:
    """Examine whether the volume types of the settings are there."""
    config = probe.config
    named = {config.homes.volume_type} if config.homes.enabled else set()
    named |= {config.boot_volume_type} if config.roots_are_volumes else set()
    if not (wanted := sorted(named - {""})):
        return ok("Cinder's default type" if config.needs_cinder else _NONE)
    there = {str(one.get("name")) for one in await probe.listing(Service.VOLUME, "/types", "volume_types")}
    if lacking := [one for one in wanted if one not in there]:
        return missing(
            "Set home.volume_type and boot_volume_type to one of these, or make it: openstack volume type create NAME",
            f"there is no volume type {', '.join(lacking)}; the account sees: {', '.join(sorted(there)[:20]) or 'none'}",
        )
    return ok(", ".join(wanted))


async def quota(probe: Probe) -> Outcome:
    """Examine whether the project's quota has room for the volumes of the smallest desktop on offer."""
    config = probe.config
    if not config.needs_cinder:
        return ok(_NONE)
    sizes = [config.homes.gib] if config.homes.enabled else []
    smallest = next(iter((await on_offer(probe))[0]), None)
    sizes += [smallest.resources.disk_gib if smallest else 0] if config.roots_are_volumes else []
    each = (len(sizes), sum(sizes))
    limits = (await probe.get(Service.VOLUME, "/limits")).get("limits", {}).get("absolute", {})
    rooms = (
        room_in(limits, "maxTotalVolumes", "totalVolumesUsed"),
        room_in(limits, "maxTotalVolumeGigabytes", "totalGigabytesUsed"),
    )
    facts = [
        f"room for {'any number of' if room is None else room} {name}" for name, room in zip(("volumes", "GiB"), rooms, strict=True)
    ]
    facts.append(f"the smallest desktop needs {each[0]}, {each[1]} GiB in all")
    project = (await probe.access()).project_id
    remedy = f"openstack quota set --volumes N --gigabytes GiB {project}    (an administrator)"
    if any(room is not None and room < need for room, need in zip(rooms, each, strict=True)):
        return wrong(remedy, *facts)
    if any(room is not None and room < _FEW * need for room, need in zip(rooms, each, strict=True)):
        return warning(remedy, *facts, "fewer than ten of the smallest desktop")
    return ok(*facts)


async def stuck(probe: Probe) -> Outcome:
    """Name volumes of desktops that Cinder does not move on by itself: no project may delete them as they are."""
    if not probe.config.needs_cinder:
        return ok(_NONE)
    listed = await probe.listing(Service.VOLUME, "/volumes/detail", "volumes")
    bad = [one for one in listed if DEPLOYMENT_KEY in mapping(one, "metadata") and _is_stuck(one, probe)]
    if not bad:
        return ok()
    return warning(
        "Look at cinder-volume's log; restarting it finishes what is deleting. Then end what is left: openstack volume set "
        "--state error ID    (an administrator; available, if it holds a person's work)",
        *(f"{one.get('id')} ({one.get('name')}) is {one.get('status')} since {one.get('updated_at')}" for one in bad[:20]),
    )


def _is_stuck(volume: Raw, probe: Probe) -> bool:
    status = str(volume.get("status"))
    since = date_of(volume, "updated_at") or date_of(volume, "created_at")
    long = since is None or probe.clock.now() - since > _STUCK_AFTER
    return status.startswith("error") or (status in _PASSING and long)


CHECKS: tuple[CloudCheck, ...] = (
    Check("volumes.types", "The volume types of the settings are there", types, blocks=True),
    Check("volumes.quota", "The project's quota has room for volumes", quota),
    Check("volumes.stuck", "No volume of a desktop waits for an operator", stuck),
)
