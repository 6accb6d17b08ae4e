"""The index of images: which layer folders make the root file system of a content hash.

``<images dir>/<hash>.json`` is ``{"layers": [top, ..., base]}``, written by the image builder as root. Read strictly: whoever could
write here would decide what runs as a container's root.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from beamdesk.adapters.local.helper.errors import HelperError
from beamdesk.protocol.codec import MalformedMessage, decode

_MAX_INDEX_BYTES = 64 * 1024
_MAX_LAYERS = 32


@dataclass(frozen=True, slots=True)
class _Index:
    layers: tuple[str, ...]


def find(images_dir: Path, image: str) -> tuple[Path, ...]:
    """Return the layer folders of ``image``, topmost first.

    Raises:
        HelperError: ``unknown_image`` when it is not installed, its index is not root's alone, or a layer is missing.
    """
    content = _read_root_file(images_dir / f"{image}.json")
    try:
        layers = tuple(Path(item) for item in decode(_Index, content, limit=_MAX_INDEX_BYTES).layers)
    except MalformedMessage as error:
        raise HelperError("unknown_image", f"The index of this image is damaged ({error}); build the image again.") from error
    if not 1 <= len(layers) <= _MAX_LAYERS or len(set(layers)) != len(layers):
        raise HelperError("unknown_image", "The index of this image is damaged; build the image again.")
    for layer in layers:
        _check_layer(layer)
    return layers


def installed(images_dir: Path) -> tuple[str, ...]:
    """Return the hashes of the images that a container could start from now, sorted."""
    return tuple(sorted(path.stem for path in images_dir.glob("*.json") if _is_whole(images_dir, path.stem)))


def _is_whole(images_dir: Path, image: str) -> bool:
    try:
        return bool(find(images_dir, image))
    except HelperError:
        return False


def _read_root_file(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise HelperError("unknown_image", "This image is not installed on this machine; build it first.") from error
    with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
            raise HelperError("unknown_image", "The index of this image can be written by others than root; build the image again.")
        return file.read(_MAX_INDEX_BYTES + 1)


def _check_layer(layer: Path) -> None:
    if not layer.is_absolute() or ".." in layer.parts:
        raise HelperError("unknown_image", "The index of this image is damaged; build the image again.")
    try:
        status = layer.lstat()
    except OSError as error:
        raise HelperError("unknown_image", "A layer of this image is missing; build the image again.") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
        raise HelperError("unknown_image", "A layer of this image is not a folder of root alone; build the image again.")
