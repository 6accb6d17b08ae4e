"""Disks in a real Glance: sent once, with what catalogue and hypervisor need to know."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from pathlib import Path

import pytest

from beamdesk.adapters.local.images.recipes import Recipes
from beamdesk.adapters.openstack.catalog_entries import read_images
from beamdesk.adapters.vmimage.build import Manifest
from beamdesk.adapters.vmimage.properties import glance_properties
from beamdesk.adapters.vmimage.upload import upload
from controlplane.clouds import BEAMDESK

pytestmark = pytest.mark.openstack
REPOSITORY = Path(__file__).parents[2]
CLUSTER = 1 << 16


def empty_qcow2(size):
    """Return the smallest file that is a qcow2 (version 2) of an empty disk: header, L1 table, reference counts."""
    head = b"QFI\xfb" + struct.pack(">IQIIQIIQQIIQ", 2, 0, 0, 16, size, 0, 1, CLUSTER, 2 * CLUSTER, 1, 0, 0)
    counts = struct.pack(">4H", 1, 1, 1, 1)
    return b"".join(part.ljust(CLUSTER, b"\0") for part in (head, b"", struct.pack(">Q", 3 * CLUSTER), counts))


@pytest.fixture
def disk(tmp_path):
    image = Recipes(REPOSITORY / "deploy/images", REPOSITORY / "src/beamdesk").image("diffraction")
    path = tmp_path / "diffraction.qcow2"
    path.write_bytes(empty_qcow2(1 << 30))
    manifest = Manifest("beamdesk-diffraction-test", "c0ffee", "", path.stat().st_size, 1, glance_properties(image, "c0ffee"))
    path.with_name("diffraction.qcow2.json").write_text(json.dumps(asdict(manifest)))
    return path


def test_a_disk_is_sent_once_and_is_then_in_the_catalogue(openstack, disk, monkeypatch):
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(openstack.clouds_yaml))
    with openstack.connect(BEAMDESK) as cloud:
        uploaded = upload(disk, BEAMDESK)
        try:
            assert upload(disk, BEAMDESK) == uploaded
            raw = cloud.image.get_image(uploaded)
            assert (raw.status, raw.disk_format, raw.min_disk) == ("active", "qcow2", 1)
            assert raw.hw_scsi_model == "virtio-scsi"
            images, left_out = read_images([cloud.image.get(f"/images/{uploaded}").json()])
            assert not left_out
            assert (images[0].id, images[0].title.zh) == ("diffraction", "衍射线站")
            assert images[0].software[0].name == "pyFAI integration"
        finally:
            cloud.image.delete_image(uploaded)
