"""Packs what the kickstart of the RHEL family unpacks over a new system.

That is the guest agent, the streaming server's wheels, the look, and the script that sets them up. All of it comes from the recipes
that Debian's images are made of, so that both families get the same desktop. Nothing is run: any machine with pip can make it.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from beamdesk.adapters.local.images import chroot, python
from beamdesk.adapters.local.images.errors import RecipeError
from beamdesk.adapters.local.images.recipes import Layer, Recipes, tree_files
from beamdesk.adapters.vmimage.build import VM_LAYER

PYTHON = "3.11"
"""The Python that RHEL 9 has beside its own 3.9; the streaming server's wheels are locked for it."""
GLIBC = 34
"""RHEL 9's C library is 2.34."""
_SCRIPTS = "var/tmp/beamdesk"
_SERVICES = ("etc/systemd/system/beamdesk-guest.service", "etc/systemd/journald.conf.d/beamdesk.conf")


def write(recipes: Recipes, target: Path, log: chroot.Log) -> str:
    """Write the archive to ``target`` and return its SHA-256.

    Raises:
        ImageError: a recipe is not as expected, or the wheels cannot be fetched; the log has more.
    """
    layers = {layer.name: layer for layer in recipes.image("general").layers}
    streaming, look = layers.get("streaming"), layers.get("look")
    if streaming is None or look is None or len(streaming.venvs) != 1:
        raise RecipeError("the image general has no layer streaming with one environment, or no layer look")
    with tempfile.TemporaryDirectory(prefix="beamdesk-wheels-") as folder:
        wheels = Path(folder)
        python.fetch(log, streaming.venvs[0].requirements, PYTHON, wheels, newest_glibc=GLIBC)
        entries = files(recipes, look, streaming.venvs[0].requirements)
        entries |= {f"{_SCRIPTS}/wheels/{wheel.name}": wheel for wheel in sorted(wheels.iterdir())}
        return pack(entries, target)


def files(recipes: Recipes, look: Layer, requirements: Path) -> dict[str, Path | bytes]:
    """Return all but the wheels: content, or the file that has it, by its path in the new system."""
    entries: dict[str, Path | bytes] = {}
    for source in recipes.guest().sources:
        entries |= _tree(source, f"opt/beamdesk/lib/beamdesk/{source.name}")
    for copy in look.copies:
        entries |= _tree(copy.source, copy.target.lstrip("/"))
    entries |= _tree(look.folder / "files", "")
    for name in _SERVICES:
        text = (recipes.folder / VM_LAYER / "files" / name).read_text(encoding="utf-8")
        entries[name] = text.replace("/usr/bin/python3 ", f"/usr/bin/python{PYTHON} ").encode()
    entries[f"{_SCRIPTS}/requirements.lock"] = requirements
    entries[f"{_SCRIPTS}/look.sh"] = look.folder / "setup.sh"
    entries[f"{_SCRIPTS}/setup.sh"] = recipes.folder / "rhel" / "setup.sh"
    return entries


def _tree(source: Path, target: str) -> Iterator[tuple[str, Path]]:
    for path in tree_files(source):
        yield (target if path == source else f"{target}/{path.relative_to(source)}").lstrip("/"), path


def pack(entries: dict[str, Path | bytes], target: Path) -> str:
    """Write the archive and return its SHA-256, which is the same for the same content."""
    unfinished = target.with_name(f".{target.name}.part")
    with (
        unfinished.open("wb") as raw,
        gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for name, source in sorted(entries.items(), key=lambda entry: entry[0]):
            content = source if isinstance(source, bytes) else source.read_bytes()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o755 if isinstance(source, Path) and source.stat().st_mode & 0o111 else 0o644
            archive.addfile(info, BytesIO(content))
    with unfinished.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    unfinished.replace(target)
    return digest
