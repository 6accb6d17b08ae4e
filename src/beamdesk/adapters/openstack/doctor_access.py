"""Checks of access: sign-in, catalogue of services, rights, versions, clock."""

from __future__ import annotations

from beamdesk.adapters.openstack.doctor import Check, CloudCheck, Outcome, missing, ok, unknown, warning, wrong
from beamdesk.adapters.openstack.doctor_probe import Probe
from beamdesk.adapters.openstack.errors import NAMES, Service
from beamdesk.domain.errors import CloudError

NEEDED_MICROVERSION = (2, 61)
"""Extra specs in the list of flavors: the catalogue reads them there."""
_WARN_S, _WRONG_S = 5.0, 60.0


async def sign_in(probe: Probe) -> Outcome:
    """Examine whether the account can sign in, and into a project."""
    remedy = "Compare the entry of clouds.yaml with: openstack --os-cloud NAME token issue"
    try:
        access = await probe.access()
    except CloudError as error:
        return wrong(remedy, error.message)
    if not access.project_id:
        return wrong("Name a project in clouds.yaml (project_name and project_domain_name).", f"{access.user} is in no project")
    return ok(f"{access.user} in project {access.project} ({access.project_id}), by {access.method}")


async def services(probe: Probe) -> Outcome:
    """Examine whether the catalogue has the services that desktops need."""
    there = (await probe.access()).services
    needed = [Service.COMPUTE, Service.IMAGE, Service.NETWORK]
    if probe.config.needs_cinder:
        needed.append(Service.VOLUME)
    lacking = [f"{NAMES[one]} ({one})" for one in needed if one not in there]
    if lacking:
        return missing(
            "Register the service's endpoint in Keystone for this region and interface, or correct region_name and interface.",
            f"not in the catalogue: {', '.join(lacking)}",
        )
    if Service.PLACEMENT not in there:
        return warning("Register Placement's endpoint: without it the GPUs cannot be examined.", "no Placement in the catalogue")
    return ok(", ".join(sorted(there)))


async def rights(probe: Probe) -> Outcome:
    """Examine whether the account has as little as it needs: member of its project, preferably by an application credential."""
    access = await probe.access()
    facts = [f"roles: {', '.join(access.roles) or 'none'}"]
    if "admin" in access.roles:
        return warning(
            "Give Beamdesk an account of its own with the role member in its project. Only `doctor --admin-cloud` needs more.",
            *facts,
        )
    if not {"member", "_member_", "manager"} & set(access.roles):
        return wrong(f"openstack role add --user {access.user} --project {access.project_id} member", *facts)
    if "applicationcredential" not in access.method.replace("_", ""):
        return ok(*facts, "an application credential would keep the password out of clouds.yaml")
    return ok(*facts)


async def versions(probe: Probe) -> Outcome:
    """Examine whether Nova is new enough for the driver and the catalogue."""
    version = await probe.microversions()
    if tuple(int(part) for part in version.split(".")) < NEEDED_MICROVERSION:
        return wrong("Upgrade Nova to Rocky or newer.", f"Nova's newest microversion for Beamdesk is {version}, 2.61 is needed")
    return ok(f"Nova {version}")


async def clock(probe: Probe) -> Outcome:
    """Examine whether all clocks agree: tokens, leases and logs need it. A token tells Keystone's, their answers the others'."""
    told: dict[str, float | None] = {NAMES[Service.IDENTITY]: (await probe.access()).ahead_s}
    told |= {NAMES[service]: ahead for service, ahead in (await probe.clocks()).items()}
    facts = [_said(name, ahead) for name, ahead in told.items()]
    known = [abs(ahead) for ahead in told.values() if ahead is not None]
    if not known:
        return unknown("Compare `date -u` here and on the controllers.", *facts)
    remedy = "Let chrony or systemd-timesyncd keep the time on all of these machines (chronyc tracking)."
    if max(known) >= _WRONG_S:
        return wrong(remedy, *facts)
    return warning(remedy, *facts) if max(known) >= _WARN_S else ok(*facts)


def _said(name: str, ahead: float | None) -> str:
    if ahead is None:
        return f"{name} does not tell its time"
    return f"{name} is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"


CHECKS: tuple[CloudCheck, ...] = (
    Check("identity.sign-in", "Beamdesk's account can sign in", sign_in, blocks=True, first=True),
    Check("identity.services", "The catalogue has the services that desktops need", services, blocks=True, first=True),
    Check("identity.rights", "The account may do what it must, and no more", rights, blocks=True),
    Check("compute.version", "Nova is new enough", versions, blocks=True),
    Check("clock.difference", "The clocks agree", clock),
)
