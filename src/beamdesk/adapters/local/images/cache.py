"""The image cache on disk: what is there, publishing by rename, the lock, and taking away what no image uses.

It must not build anything; see the package's docstring for the format.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from .recipes import Image

CATALOG_FORMAT = 1
_META = ".size"


class Cache:
    """One cache folder, by default ``/var/cache/beamdesk/images``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        folder = self.folder
        self.layers = folder / "layers"
        self.index = folder / "index"
        self.icons = folder / "icons"
        self.logs = folder / "log"
        self.work = folder / "work"

    def prepare(self) -> None:
        """Make the folders. Layers hold root's files of another system: nobody but root may look inside."""
        for path in (self.folder, self.index, self.icons, self.logs):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o755)
        for path in (self.layers, self.work):
            path.mkdir(exist_ok=True)
            path.chmod(0o700)

    @contextlib.contextmanager
    def locked(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the cache for writing; call ``waiting`` once when somebody else holds it. Freed by the kernel if we die."""
        with (self.folder / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def has_layer(self, layer_hash: str) -> bool:
        """Tell whether a complete layer is published."""
        return (self.layers / layer_hash).is_dir()

    def has_image(self, image_hash: str, hashes: tuple[str, ...]) -> bool:
        """Tell whether an image is published with all its layers."""
        return (self.index / f"{image_hash}.json").is_file() and all(self.has_layer(item) for item in hashes)

    def begin_layer(self, layer_hash: str) -> Path:
        """Return a fresh working folder for a layer (hold the lock)."""
        folder = self.work / layer_hash
        folder.mkdir(mode=0o755)
        return folder

    def clear_work(self) -> None:
        """Remove unfinished work (hold the lock)."""
        for leftover in self.work.iterdir():
            shutil.rmtree(leftover)

    def publish_layer(self, layer_hash: str, root: Path) -> int:
        """Move a finished root into its place and return its size in bytes."""
        size = tree_size(root)
        _write(self.layers / f"{layer_hash}{_META}", str(size))
        root.rename(self.layers / layer_hash)
        return size

    def layer_size(self, layer_hash: str) -> int:
        """Return the size of a published layer in bytes."""
        return int((self.layers / f"{layer_hash}{_META}").read_text(encoding="ascii"))

    def publish_image(self, image_hash: str, hashes: tuple[str, ...]) -> None:
        """Make an image known by its hash."""
        _write(self.index / f"{image_hash}.json", json.dumps({"layers": [str(self.layers / item) for item in hashes]}) + "\n")

    def publish_icons(self, folder: Path) -> None:
        """Copy the catalogue's pictures."""
        for icon in sorted(folder.glob("*.svg")):
            _write(self.icons / icon.name, icon.read_text(encoding="utf-8"))

    def publish_catalog(self, entries: list[tuple[Image, str, tuple[str, ...]]]) -> bool:
        """Write the catalogue of ``(image, hash, layers)``; tell whether it changed."""
        images = [
            self._entry(image, image_hash, hashes) for image, image_hash, hashes in sorted(entries, key=lambda item: item[0].order)
        ]
        text = json.dumps({"format": CATALOG_FORMAT, "images": images}, ensure_ascii=False, indent=1) + "\n"
        path = self.folder / "catalog.json"
        with contextlib.suppress(FileNotFoundError):
            if path.read_text(encoding="utf-8") == text:
                return False
        _write(path, text)
        return True

    def prune(self, used: frozenset[str]) -> tuple[str, ...]:
        """Remove the layers whose hash is not in ``used`` and the index files that name one; return the removed layers' hashes.

        Only for a machine without running desktops of older images: a mounted layer loses its files.
        """
        for index in self.index.glob("*.json"):
            if not {Path(layer).name for layer in json.loads(index.read_text(encoding="utf-8"))["layers"]} <= used:
                index.unlink()
        gone = tuple(sorted(path.name for path in self.layers.iterdir() if path.is_dir() and path.name not in used))
        for name in gone:
            doomed = self.work / f"pruned-{name}"
            (self.layers / name).rename(doomed)
            shutil.rmtree(doomed)
            (self.layers / f"{name}{_META}").unlink(missing_ok=True)
        return gone

    def _entry(self, image: Image, image_hash: str, hashes: tuple[str, ...]) -> dict[str, object]:
        return {
            "id": image.id,
            "hash": image_hash,
            "title": dict(image.title),
            "description": dict(image.description),
            "beamlines": list(image.beamlines),
            "software": [asdict(software) for software in image.software],
            "words": dict(image.words),
            "size_bytes": sum(self.layer_size(item) for item in hashes),
        }


def tree_size(top: Path) -> int:
    """Return the disk space of a tree in bytes, hard links counted once."""
    seen: set[int] = set()
    total = 0
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            info = os.lstat(os.path.join(folder, name))  # noqa: PTH118 a million joins: Path costs seconds here
            if info.st_ino not in seen:
                seen.add(info.st_ino)
                total += info.st_blocks * 512
    return total


def drop_set_id(top: Path) -> int:
    """Clear set-uid and set-gid bits of all files below ``top``; return how many had one.

    Nobody in a desktop may gain rights by a program, and a copy of ``su`` must not wait in a cache of the host.
    """
    count = 0
    for folder, _folders, files in os.walk(top):
        for name in files:
            path = os.path.join(folder, name)  # noqa: PTH118 see tree_size
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
                os.chmod(path, stat.S_IMODE(mode) & 0o1777)  # noqa: PTH101
                count += 1
    return count


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(text, encoding="utf-8")
    draft.chmod(0o644)
    draft.rename(path)
