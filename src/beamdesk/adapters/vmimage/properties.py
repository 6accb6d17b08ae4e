"""The properties that an image carries in Glance: what hypervisors need to start it, and what Beamdesk's catalogue shows of it."""

from __future__ import annotations

import json
from dataclasses import asdict

from beamdesk.adapters.local.images.recipes import Image

FORMAT = "1"


def glance_properties(image: Image, content_hash: str) -> dict[str, str]:
    """Return the image's custom properties; names beginning with ``beamdesk_`` are ours."""
    software = [asdict(item) for item in image.software]
    own = {
        "format": FORMAT,
        "image": image.id,
        "content_hash": content_hash,
        "order": str(image.order),
        "beamlines": ",".join(image.beamlines),
        "software": json.dumps(software, ensure_ascii=False, separators=(",", ":")),
        **{f"title_{language}": text for language, text in image.title.items()},
        **{f"description_{language}": text for language, text in image.description.items()},
        **image.words,
    }
    return {f"beamdesk_{name}": value for name, value in own.items()} | _HARDWARE


_HARDWARE = {
    "architecture": "x86_64",
    "os_type": "linux",
    "os_distro": "debian",
    "os_version": "12",
    # config drives as a SCSI disc: Debian's cloud kernel has no driver for SATA
    "hw_scsi_model": "virtio-scsi",
    "hw_cdrom_bus": "scsi",
    "hw_disk_bus": "virtio",
    "hw_vif_model": "virtio",
    "hw_rng_model": "virtio",
    "hw_qemu_guest_agent": "yes",
}
