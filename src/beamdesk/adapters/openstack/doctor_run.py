"""Runs the doctor on every place of the settings, with the driver's own connection."""

from __future__ import annotations

from dataclasses import replace

from beamdesk.adapters.openstack import doctor_access, doctor_compute, doctor_gpu, doctor_images, doctor_network, doctor_volumes
from beamdesk.adapters.openstack.config import OpenStackConfig, Place
from beamdesk.adapters.openstack.connection import Connection
from beamdesk.adapters.openstack.doctor import CloudCheck, Finding, Verdict, examine
from beamdesk.adapters.openstack.doctor_cloud import CloudProbe
from beamdesk.domain.errors import ConfigurationError
from beamdesk.ports.clock import Clock

CLOUD_CHECKS: tuple[CloudCheck, ...] = (
    *doctor_access.CHECKS,
    *doctor_compute.CHECKS,
    *doctor_gpu.CHECKS,
    *doctor_images.CHECKS,
    *doctor_network.CHECKS,
    *doctor_volumes.CHECKS,
)


async def examine_config(config: OpenStackConfig, clock: Clock, *, admin_cloud: str = "") -> list[Finding]:
    """Run all checks on all places.

    Raises:
        ConfigurationError: an entry of clouds.yaml cannot be used.
    """
    findings: list[Finding] = []
    for place in config.places:
        findings += await _examine_place(place, config, clock, admin_cloud)
    return findings


async def _examine_place(place: Place, config: OpenStackConfig, clock: Clock, admin_cloud: str) -> list[Finding]:
    connection = Connection(place, config)
    administrator = Connection(replace(place, cloud=admin_cloud), config) if admin_cloud else None
    try:
        probe = CloudProbe(place, config, connection, clock, administrator)
        return [finding async for finding in examine(CLOUD_CHECKS, probe)]
    finally:
        connection.close()
        if administrator is not None:
            administrator.close()


def settings_finding(error: ConfigurationError | None) -> Finding:
    """Return the finding about the settings themselves."""
    title = "The settings of [openstack] are complete"
    if error is None:
        return Finding("settings", "settings.openstack", title, Verdict.OK, (), "", blocks=True)
    return Finding(
        "settings",
        "settings.openstack",
        title,
        Verdict.MISSING,
        (error.message,),
        "docs/reference/settings.md, [openstack]",
        blocks=True,
    )
