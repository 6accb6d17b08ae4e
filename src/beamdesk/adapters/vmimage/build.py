"""From recipes to a qcow2: builds the layers that are missing, joins them, makes the disk and writes down what it is."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from beamdesk.adapters.local.images import chroot
from beamdesk.adapters.local.images.build import Builder, Built
from beamdesk.adapters.local.images.cache import Cache
from beamdesk.adapters.local.images.errors import BuildError
from beamdesk.adapters.local.images.progress import Progress
from beamdesk.adapters.local.images.recipes import Recipes
from beamdesk.adapters.vmimage.disk import convert, make_disk
from beamdesk.adapters.vmimage.properties import glance_properties

VM_LAYER = "vm"
_FORMAT = "1"
"""Part of the content hash: raise it when the same layers give another disk."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of a disk file: beside it as ``FILE.json``."""

    name: str
    content_hash: str
    sha256: str
    size_bytes: int
    min_disk_gib: int
    properties: dict[str, str]


class DiskBuilder:
    """Builds disks of the images of ``recipes``, with the layers of ``cache``; says so to ``progress``."""

    def __init__(self, recipes: Recipes, cache: Cache, progress: Progress) -> None:
        self._builder = Builder(recipes, cache, progress)
        self._cache = cache
        self._progress = progress

    def build(self, image_id: str, target: Path, *, extra: tuple[str, ...] = (), boot_files: bool = False) -> Manifest:
        """Write the disk of ``image_id`` to ``target``, unless that is it already.

        Args:
            image_id: an image of the recipes.
            target: the qcow2 file; its manifest gets the suffix ``.json``. Its folder is made if it is not there.
            extra: folders of further layers between the VM layer and the guest agent, such as ``nvidia``.
            boot_files: write kernel and initramfs beside it, too.

        Raises:
            ImageError: the cause in plain words; an older file stays as it was.
        """
        built = self._builder.build_on_top(image_id, (VM_LAYER, *extra))
        content_hash = hashlib.sha256(f"vm {_FORMAT} {built.hash}".encode()).hexdigest()
        present = read_manifest(target)
        wanted = [target, *(_boot_files(target) if boot_files else ())]
        if present and present.content_hash == content_hash and all(path.is_file() for path in wanted):
            self._progress.image(image_id, "ready", f"{target} is up to date ({content_hash[:12]})")
            return present
        self._progress.begin(image_id, "disk")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._cache.logs.mkdir(parents=True, exist_ok=True)
        log = chroot.Log(self._cache.logs / f"{image_id}-disk.log")
        try:
            self._write(log, built, target, content_hash, boot_files=boot_files)
        finally:
            log.close()
        manifest = _manifest(built, content_hash, target)
        _manifest_path(target).write_text(json.dumps(_plain(manifest), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        self._progress.image(image_id, "ready", f"{target}, {manifest.size_bytes // 1_000_000} MB ({content_hash[:12]})")
        return manifest

    def _write(self, log: chroot.Log, built: Built, target: Path, content_hash: str, *, boot_files: bool) -> None:
        content = sum(self._cache.layer_size(layer) for layer in built.layers)
        # beside the target: there must be room for both
        with (
            tempfile.TemporaryDirectory(prefix=".beamdesk-disk-", dir=target.parent) as folder,
            self._joined(built, Path(folder)) as root,
        ):
            self._progress.step("making the disk")
            disk = Path(folder) / "disk.raw"
            make_disk(log, root, content, disk, int(content_hash[:8], 16))
            if boot_files:
                for source, copy in zip(("vmlinuz", "initrd.img"), _boot_files(target), strict=True):
                    shutil.copyfile((root / "boot" / source).resolve(), copy)
            self._progress.step("making the qcow2 file")
            convert(log, disk, target)

    @contextmanager
    def _joined(self, built: Built, folder: Path) -> Iterator[Path]:
        root, upper, work = folder / "root", folder / "upper", folder / "work"
        for path in (root, upper, work):
            path.mkdir()
        self._builder.isolate()
        chroot.mount_overlay([self._cache.layers / layer for layer in built.layers], upper, work, root)
        try:
            yield root
        finally:
            chroot.unmount(root)


def _boot_files(target: Path) -> tuple[Path, Path]:
    return target.with_name(f"{target.name}.vmlinuz"), target.with_name(f"{target.name}.initrd")


def _manifest_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _manifest(built: Built, content_hash: str, target: Path) -> Manifest:
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Manifest(
        name=f"beamdesk-{built.image.id}-{content_hash[:12]}",
        content_hash=content_hash,
        sha256=digest,
        size_bytes=target.stat().st_size,
        min_disk_gib=-(-_virtual_size(target) // (1 << 30)),
        properties=glance_properties(built.image, content_hash),
    )


def _virtual_size(target: Path) -> int:
    """Return the size in bytes of the disk in a qcow2 file (bytes 24..31 of its header, big endian)."""
    with target.open("rb") as file:
        head = file.read(32)
    if head[:4] != b"QFI\xfb":
        raise BuildError(f"{target} is not a qcow2 file")
    return int.from_bytes(head[24:32], "big")


def _plain(manifest: Manifest) -> dict[str, object]:
    return {name: getattr(manifest, name) for name in Manifest.__slots__}


def read_manifest(target: Path) -> Manifest | None:
    """Return what is written of the disk file ``target``, None if there is nothing or it is of another format."""
    try:
        return Manifest(**json.loads(_manifest_path(target).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
