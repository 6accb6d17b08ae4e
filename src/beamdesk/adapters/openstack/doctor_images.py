"""Checks of images: what is on offer, in what form, and with which hints for the hypervisor."""

from __future__ import annotations

from beamdesk.adapters.openstack.catalog_entries import read_flavors, read_images
from beamdesk.adapters.openstack.doctor import Check, CloudCheck, Outcome, missing, ok, warning, wrong
from beamdesk.adapters.openstack.doctor_probe import Probe, Raw
from beamdesk.adapters.openstack.errors import Service

_FORMATS = frozenset({"qcow2", "raw"})
_DISK_BUSES = frozenset({"virtio", "scsi"})


async def _images(probe: Probe) -> list[Raw]:
    return await probe.listing(Service.IMAGE, "/images", "images")


async def offered(probe: Probe) -> Outcome:
    """Examine whether there are images for the catalogue."""
    images, _ = read_images(await _images(probe))
    if not images:
        return missing(
            "Build and upload one (docs/howto/make-an-image.md), or mark one: openstack image set IMAGE --property "
            "beamdesk_image=NAME --property beamdesk_title_en=TITLE",
            "no active image with the property beamdesk_image is on offer",
        )
    return ok(*(f"{one.id}: {one.title.en} ({one.ref})" for one in images))


async def left_out(probe: Probe) -> Outcome:
    """Examine whether an image that wants to be on offer is left out for a mistake; one that was replaced is none."""
    _, left = read_images(await _images(probe))
    replaced = [one for one in left if one.replaced]
    mistakes = [one for one in left if not one.replaced]
    facts = [f"{one.name} ({one.ref}): {one.reason}" for one in (*mistakes, *replaced)]
    if mistakes:
        return wrong("Correct the properties that the reasons name, or take beamdesk_image away.", *facts)
    return ok(*facts)


async def form(probe: Probe) -> Outcome:
    """Examine formats, sizes and hw_* properties of the images on offer."""
    listed = {str(one.get("id")): one for one in await _images(probe)}
    flavors, _ = read_flavors(await probe.listing(Service.COMPUTE, "/flavors/detail", "flavors"), probe.config.flavors)
    disk = max((flavor.resources.disk_gib for flavor in flavors), default=0)
    gpus = any(flavor.resources.gpus for flavor in flavors)
    bad: list[str] = []
    weak: list[str] = []
    facts = []
    for image in read_images(listed.values())[0]:
        one = listed[image.ref]
        facts.append(f"{image.id}: {one.get('disk_format')}, {int(one.get('size') or 0) >> 20} MiB, min_disk {one.get('min_disk')}")
        bad += [f"{image.id}: {said}" for said in _wrong(one, disk)]
        weak += [f"{image.id}: {said}" for said in _weak(one, gpus=gpus)]
    remedy = "openstack image set IMAGE --property NAME=VALUE, or build it again (docs/howto/make-an-image.md)."
    if bad:
        return wrong(remedy, *bad, *weak, *facts)
    return warning(remedy, *weak, *facts) if weak else ok(*(facts or ["no image is on offer"]))


def _wrong(image: Raw, disk_gib: int) -> list[str]:
    said = []
    if image.get("disk_format") not in _FORMATS:
        said.append(f"disk format {image.get('disk_format')}; qcow2 or raw is needed")
    if image.get("container_format") != "bare":
        said.append(f"container format {image.get('container_format')}; bare is needed")
    if not image.get("size"):
        said.append("it is empty")
    largest = max(int(image.get("min_disk") or 0), -(-int(image.get("virtual_size") or 0) // (1 << 30)))
    if 0 < disk_gib < largest:
        said.append(f"it needs a disk of {largest} GiB, the largest flavor has {disk_gib} GiB")
    return said


def _weak(image: Raw, *, gpus: bool) -> list[str]:
    said = []
    bus = image.get("hw_disk_bus")
    if bus is not None and bus not in _DISK_BUSES:
        said.append(f"hw_disk_bus={bus} is slow or unknown to cloud kernels; virtio or scsi")
    if bus == "scsi" and image.get("hw_scsi_model") != "virtio-scsi":
        said.append("hw_disk_bus=scsi without hw_scsi_model=virtio-scsi")
    if image.get("os_distro") in {"debian", "ubuntu"} and image.get("hw_cdrom_bus") not in {"scsi", "virtio"}:
        said.append("hw_cdrom_bus=scsi and hw_scsi_model=virtio-scsi are missing: a cloud kernel without AHCI sees no config drive")
    if gpus and (image.get("hw_machine_type") or "") == "pc":
        said.append("hw_machine_type=pc: GPUs with large memory need q35 and hw_firmware_type=uefi")
    return said


CHECKS: tuple[CloudCheck, ...] = (
    Check("images.offered", "Images are on offer", offered, blocks=True),
    Check("images.left-out", "No image is left out for a mistake", left_out),
    Check("images.form", "The images have a form that starts", form),
)
