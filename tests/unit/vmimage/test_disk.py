"""The disk's first sector, its sizes, and what Glance is told."""

import json
import struct
from pathlib import Path

import pytest

from beamdesk.adapters.local.images.errors import BuildError, ImageError
from beamdesk.adapters.local.images.recipes import Recipes
from beamdesk.adapters.openstack.catalog_entries import read_images
from beamdesk.adapters.vmimage import build
from beamdesk.adapters.vmimage.__main__ import main
from beamdesk.adapters.vmimage.disk import MIB, SECTOR, Partition, boot_record, root_size
from beamdesk.adapters.vmimage.properties import glance_properties
from beamdesk.adapters.vmimage.upload import upload

REPOSITORY = Path(__file__).parents[3]
ESP, ROOT = Partition(0xEF, MIB, 33 * MIB), Partition(0x83, 34 * MIB, 100 * MIB, active=True)


def test_the_first_sector_has_code_table_and_signature():
    record = boot_record(b"\xeb" * 512, (ESP, ROOT), 0x12345678)
    assert len(record) == SECTOR
    assert record[:440] == b"\xeb" * 440
    assert struct.unpack_from("<I", record, 440) == (0x12345678,)
    assert record[510:] == b"\x55\xaa"
    first, second = (struct.unpack_from("<B3xB3xII", record, 446 + 16 * number) for number in range(2))
    assert first == (0, 0xEF, MIB // SECTOR, 33 * MIB // SECTOR)
    assert second == (0x80, 0x83, 34 * MIB // SECTOR, 100 * MIB // SECTOR)
    assert record[478:510] == bytes(32)


@pytest.mark.parametrize(
    "partitions", [(ESP,) * 5, (Partition(0x83, 100, MIB),), (Partition(0x83, MIB, 100),), (Partition(0x83, 1 << 41, MIB),)]
)
def test_a_table_that_cannot_be_is_refused(partitions):
    with pytest.raises(ValueError, match="partition"):
        boot_record(b"", partitions, 0)


def test_the_root_file_system_has_room_to_boot_in():
    assert root_size(0) >= 512 * MIB
    assert root_size(1 << 30) > (1 << 30) + 512 * MIB
    assert root_size(123456789) % MIB == 0


def test_glance_is_told_what_catalogue_and_hypervisor_need():
    recipes = Recipes(REPOSITORY / "deploy/images", REPOSITORY / "src/beamdesk")
    properties = glance_properties(recipes.image("imaging"), "abc")
    assert properties["beamdesk_image"] == "imaging"
    assert properties["beamdesk_content_hash"] == "abc"
    assert properties["beamdesk_beamlines"] == "B7,B8"
    assert properties["beamdesk_title_zh"] == "成像线站"
    assert {"name", "command", "icon", "description"} == set(json.loads(properties["beamdesk_software"])[0])
    assert properties["hw_cdrom_bus"] == "scsi"
    assert all(isinstance(value, str) for value in properties.values())


def test_the_catalogue_reads_what_every_image_says():
    recipes = Recipes(REPOSITORY / "deploy/images", REPOSITORY / "src/beamdesk")
    raw = [glance_properties(recipes.image(name), "abc") | {"id": name, "status": "active"} for name in recipes.image_ids()]
    images, left_out = read_images(raw)
    assert not left_out
    assert {image.id: set(image.beamlines) for image in images} == {
        name: set(recipes.image(name).beamlines) for name in recipes.image_ids()
    }
    assert all(image.software and image.title.zh != image.title.en for image in images)


def test_the_size_of_a_disk_is_read_from_its_header(tmp_path):
    (tmp_path / "a.qcow2").write_bytes(b"QFI\xfb" + struct.pack(">I", 3) + bytes(16) + struct.pack(">Q", 5 << 30))
    assert build._virtual_size(tmp_path / "a.qcow2") == 5 << 30
    (tmp_path / "b.raw").write_bytes(bytes(64))
    with pytest.raises(BuildError, match="not a qcow2"):
        build._virtual_size(tmp_path / "b.raw")


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"name": "x"}'])
def test_a_disk_without_a_proper_manifest_is_built_anew_and_never_uploaded(tmp_path, text):
    disk = tmp_path / "a.qcow2"
    disk.write_bytes(b"QFI\xfb")
    if text is not None:
        (tmp_path / "a.qcow2.json").write_text(text)
    assert build.read_manifest(disk) is None
    with pytest.raises(ImageError, match="no manifest"):
        upload(disk, "any")


def test_an_unknown_image_is_one_line_and_code_1(tmp_path, capsys):
    assert main(["build", "none", "--out", str(tmp_path / "x.qcow2"), "--cache", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: there is no image 'none'")


def test_an_archive_whose_wheels_cannot_be_had_is_not_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert main(["archive", "--out", str(tmp_path / "el9.tar.gz")]) == 1
    assert "fetching Python packages failed" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["el9.tar.gz.log"]
