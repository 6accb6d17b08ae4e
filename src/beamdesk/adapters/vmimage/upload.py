"""Puts a built disk into Glance, with its properties. What is there already is not sent again; older versions are left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from beamdesk.adapters.local.images.errors import ImageError
from beamdesk.adapters.vmimage.build import Manifest, read_manifest


def upload(disk: Path, cloud: str, *, public: bool = False, checked: bool = True) -> str:
    """Upload ``disk`` to the cloud that clouds.yaml calls ``cloud``; return the image's UUID in Glance.

    Args:
        disk: a file that :class:`DiskBuilder` wrote, with its manifest beside it.
        cloud: the name in clouds.yaml.
        public: for all projects, which needs an administrator; otherwise ``private``.
        checked: let the SDK compare checksums while it sends.

    Raises:
        ImageError: there is no manifest, or the cloud refuses; the text says why.
    """
    manifest = read_manifest(disk)
    if manifest is None or not disk.is_file():
        raise ImageError(f"{disk} has no manifest beside it: build it with `python -m beamdesk.adapters.vmimage build`")
    import openstack
    from openstack.exceptions import SDKException

    try:
        connection = openstack.connect(cloud=cloud)
        present = [image for image in connection.image.images(name=manifest.name) if _same(image, manifest)]
        if present:
            return str(present[0].id)
        image = connection.image.create_image(
            manifest.name,
            filename=str(disk),
            disk_format="qcow2",
            container_format="bare",
            visibility="public" if public else "private",
            min_disk=manifest.min_disk_gib,
            validate_checksum=checked,
            allow_duplicates=True,
            wait=True,
            meta={},
            **cast("dict[str, Any]", manifest.properties),
        )
    except SDKException as error:
        raise ImageError(f"the image could not be uploaded to {cloud}: {error}") from error
    return str(image.id)


def _same(image: object, manifest: Manifest) -> bool:
    properties = getattr(image, "properties", None) or {}
    return getattr(image, "status", "") == "active" and properties.get("beamdesk_content_hash") == manifest.content_hash
