"""Makes a bootable disk of a folder: partition table, boot loader for BIOS and UEFI, one ext4 file system. Needs no loop device.

Layout, in sectors of 512 bytes: 0 master boot record, 1..2047 GRUB's core image, 2048.. EFI system partition (FAT), then the root
partition to the end, so that it can grow with the disk. A table of the old kind (MBR): GRUB's core image follows its first
sector without any patching, and UEFI firmware takes it as well (UEFI specification 2.10, 5.2.3).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from beamdesk.adapters.local.images.chroot import Log, run
from beamdesk.adapters.local.images.errors import BuildError

SECTOR = 512
MIB = 1 << 20
ROOT_LABEL = "beamdesk-root"
_CORE_AT = SECTOR
_ESP_AT, _ESP_SIZE = MIB, 33 * MIB
"""A FAT32 file system needs 65525 clusters; mkfs.fat makes a FAT16 of this one, which every firmware reads."""
_ROOT_AT = _ESP_AT + _ESP_SIZE
_BOOT_CODE = 440
_ACTIVE, _TYPE_ESP, _TYPE_LINUX = 0x80, 0xEF, 0x83
_BIG_CHS = b"\xfe\xff\xff"
_ROOM = 1.15
_SPARE = 512 * MIB


@dataclass(frozen=True, slots=True)
class Partition:
    """One entry of the partition table, in bytes."""

    kind: int
    start: int
    size: int
    active: bool = False


def boot_record(boot_code: bytes, partitions: tuple[Partition, ...], serial: int) -> bytes:
    """Return the first sector of a disk.

    Raises:
        ValueError: too many partitions, or one that is not made of whole sectors or lies beyond 2 TiB.
    """
    if len(partitions) > 4 or any(part.start % SECTOR or part.size % SECTOR for part in partitions):
        raise ValueError("at most four partitions of whole sectors")
    entries = b""
    for part in partitions:
        first, count = part.start // SECTOR, part.size // SECTOR
        if first + count >= 1 << 32:
            raise ValueError("a partition lies beyond 2 TiB")
        entries += (
            bytes([_ACTIVE if part.active else 0]) + _BIG_CHS + bytes([part.kind]) + _BIG_CHS + struct.pack("<II", first, count)
        )
    return boot_code[:_BOOT_CODE].ljust(_BOOT_CODE, b"\0") + struct.pack("<IH", serial, 0) + entries.ljust(64, b"\0") + b"\x55\xaa"


def root_size(content: int) -> int:
    """Return the size in bytes of a root file system for ``content`` bytes of files, in whole MiB."""
    return (int(content * _ROOM) + _SPARE + MIB - 1) // MIB * MIB


def make_disk(log: Log, root: Path, content: int, disk: Path, serial: int) -> None:
    """Write ``disk`` (raw, sparse) with the files below ``root``, of which there are ``content`` bytes.

    Raises:
        BuildError: a program is missing or failed, or the boot loader does not fit.
    """
    grub = root / "boot/grub/i386-pc"
    core = (grub / "core.img").read_bytes()
    if len(core) > _ESP_AT - _CORE_AT:
        raise BuildError("the boot loader is too large for its place before the first partition")
    size = root_size(content)
    partitions = (Partition(_TYPE_ESP, _ESP_AT, _ESP_SIZE), Partition(_TYPE_LINUX, _ROOT_AT, size, active=True))
    with disk.open("wb") as file:
        file.truncate(_ROOT_AT + size)
        file.write(boot_record((grub / "boot.img").read_bytes(), partitions, serial))
        file.write(core)
        file.seek(_ESP_AT)
        file.write(_efi_partition(log, root / "boot/grub/bootx64.efi", disk.with_suffix(".esp")))
    options = f"lazy_itable_init=1,offset={_ROOT_AT}"
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", ROOT_LABEL, "-m", "1", "-O", "^metadata_csum_seed,^orphan_file"]
    run(log, "making the root file system", [*command, "-E", options, "-d", str(root), str(disk), f"{size // 1024}k"])


def _efi_partition(log: Log, loader: Path, draft: Path) -> bytes:
    try:
        with draft.open("wb") as file:
            file.truncate(_ESP_SIZE)
        run(log, "making the EFI partition", ["mkfs.fat", "-n", "EFI", str(draft)])
        run(log, "filling the EFI partition", ["mmd", "-i", str(draft), "::/EFI", "::/EFI/BOOT"])
        run(log, "filling the EFI partition", ["mcopy", "-i", str(draft), str(loader), "::/EFI/BOOT/BOOTX64.EFI"])
        return draft.read_bytes()
    finally:
        draft.unlink(missing_ok=True)


def convert(log: Log, disk: Path, target: Path) -> None:
    """Turn a raw disk into a compressed qcow2, which appears under its name when complete."""
    draft = target.with_name(f".{target.name}.new")
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd", "-m", "2", "-W"]
    run(log, "making the qcow2 file", [*command, str(disk), str(draft)])
    draft.rename(target)
