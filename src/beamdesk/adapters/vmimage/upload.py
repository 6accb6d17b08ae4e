"""Puts a built disk into Glance, with its properties. What is there already is not sent again; older versions are left alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

from beamdesk.adapters.local.images.errors import ImageError
from beamdesk.adapters.vmimage.build import Manifest, read_manifest


def upload(disk: Path, cloud: str, *, public: bool = False) -> str:
    """Upload ``disk`` to the cloud that clouds.yaml calls ``cloud``; return the image's UUID in Glance.

    Args:
        disk: a file that :class:`DiskBuilder` wrote, with its manifest beside it.
        cloud: the name in clouds.yaml.
        public: for all projects, which needs an administrator; otherwise ``private``.

    Raises:
        ImageError: there is no manifest, or the cloud refuses; the text says why.
    """
    manifest = read_manifest(disk)
    if manifest is None or not disk.is_file():
        raise ImageError(f"{disk} has no manifest beside it: build it with `python -m beamdesk.adapters.vmimage build`")
    import openstack
    from openstack.exceptions import SDKException

    connection = None
    try:
        connection = openstack.connect(cloud=cloud)
        present = [image for image in connection.image.images(name=manifest.name) if _same(image, manifest)]
        if present:
            return str(present[0].id)
        # a file object of ours: the SDK would leave its own one open
        with disk.open("rb") as data:
            image = connection.image.create_image(
                manifest.name,
                data=cast("Any", data),  # its types know bytes only, its text files too
                disk_format="qcow2",
                container_format="bare",
                visibility="public" if public else "private",
                min_disk=manifest.min_disk_gib,
                allow_duplicates=True,
                wait=True,
                **cast("dict[str, Any]", manifest.properties),
            )
        image = connection.image.get_image(image.id)
        if not _arrived(image, disk):
            connection.image.delete_image(image.id)
            raise ImageError(f"{cloud} received something else than {disk}: the image was removed again")
    except SDKException as error:
        raise ImageError(f"the image could not be uploaded to {cloud}: {error}") from error
    finally:
        if connection is not None:
            connection.close()
    return str(image.id)


def _same(image: object, manifest: Manifest) -> bool:
    properties = getattr(image, "properties", None) or {}
    return getattr(image, "status", "") == "active" and properties.get("beamdesk_content_hash") == manifest.content_hash


def _arrived(image: Any, disk: Path) -> bool:
    """Compare with the digest that Glance made of what it received, where it made one."""
    if not image.hash_algo:
        return bool(image.size == disk.stat().st_size)
    with disk.open("rb") as file:
        return bool(hashlib.file_digest(file, image.hash_algo).hexdigest() == image.hash_value)
