"""Which hosts could take a desktop of a size now, and what the others lack: for operators, before or after somebody asks."""

from __future__ import annotations

from dataclasses import replace

from beamdesk.adapters.openstack.config import Boot, OpenStackConfig, Place
from beamdesk.adapters.openstack.connection import Connection, Json
from beamdesk.adapters.openstack.errors import Service
from beamdesk.adapters.openstack.lookups import Lookups
from beamdesk.adapters.openstack.records import mapping, number
from beamdesk.adapters.openstack.refusals import Refusals
from beamdesk.adapters.openstack.why import Why
from beamdesk.adapters.openstack.why_ask import read_wanted
from beamdesk.domain.errors import CloudRefused


async def examine_size(config: OpenStackConfig, place: Place, size: str, image: str = "", admin_cloud: str = "") -> Refusals:
    """Eliminate the hosts of a place for an offered size, and an image's id where its kind of machine matters.

    Raises:
        CloudError: there is no such size, or the account may not look.
    """
    connection = Connection(replace(place, cloud=admin_cloud or place.cloud), config)
    try:
        uuid = await Lookups(connection, config.flavors).flavor(size)
        shown = await connection.call(Service.COMPUTE, "GET", f"/flavors/{uuid}", "show the flavor")
        flavor, properties = mapping(shown.data, "flavor"), await _image(connection, image)
        wanted = read_wanted(
            (number(flavor, "vcpus"), number(flavor, "ram"), number(flavor, "disk")),
            {key: str(value) for key, value in mapping(flavor, "extra_specs").items()},
            properties,
            config.pci_aliases,
            place.availability_zone,
            local_disk=config.boot is Boot.IMAGE,
        )
        found = await Why(connection, config).refusals(wanted)
    finally:
        connection.close()
    if found is None:
        raise CloudRefused("This account may not list the hosts. Name one that may: --admin-cloud ENTRY of clouds.yaml.")
    return found


async def _image(connection: Connection, image: str) -> Json:
    return (await connection.call(Service.IMAGE, "GET", f"/images/{image}", "show the image")).data if image else {}
