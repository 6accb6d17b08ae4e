"""Reads recipes and gives every layer and image its content hash. Pure reading: it builds and changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import RecipeError

FORMAT = "1"
"""Part of every hash: raise it when the builder makes something else of the same recipe."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}\Z")
_SKIPPED = frozenset({"__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache"})
LANGUAGES = ("en", "zh")


@dataclass(frozen=True, slots=True)
class Venv:
    """A virtual environment at ``path`` with exactly the pinned, hashed ``requirements``."""

    path: str
    requirements: Path
    system_site_packages: bool


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy the tree ``source`` of the repository to ``target`` in the root."""

    source: Path
    target: str


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer recipe with its content ``hash``; ``suite``, ``dpkg`` and ``apt`` are set in the root layer only."""

    name: str
    folder: Path
    parent: str
    suite: str
    dpkg: tuple[str, ...]
    apt: tuple[str, ...]
    packages: tuple[str, ...]
    venvs: tuple[Venv, ...]
    copies: tuple[Copy, ...]
    hash: str


@dataclass(frozen=True, slots=True)
class Software:
    """One program the catalogue shows for an image."""

    name: str
    command: str
    icon: str
    description: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Image:
    """One image recipe: its layers from the top down to the base, and what the catalogue says of it.

    ``words``: what it asks of a host and its cards, in the words of docs/reference/scheduling-vocabulary.md without their prefix.

    ``default`` false: built where it is asked for by name only, so that a first start does not wait for it.
    """

    id: str
    order: int
    layers: tuple[Layer, ...]
    title: Mapping[str, str]
    description: Mapping[str, str]
    beamlines: tuple[str, ...]
    software: tuple[Software, ...]
    default: bool = True
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Guest:
    """The guest layer: the packages of ``sources`` (guest and protocol), copied on top of every image."""

    sources: tuple[Path, ...]
    hash: str


class Recipes:
    """The recipes below one folder.

    Args:
        folder: holds ``layers/`` and one folder an image.
        package: the installed ``beamdesk`` package that the guest layer is taken from.
    """

    def __init__(self, folder: Path, package: Path) -> None:
        self.folder = folder
        self._package = package
        self._layers: dict[str, Layer] = {}

    def image_ids(self) -> tuple[str, ...]:
        """Return the ids of all images, sorted."""
        return tuple(sorted(path.parent.name for path in self.folder.glob("*/image.toml")))

    def default_ids(self) -> tuple[str, ...]:
        """Return the ids of the images that are built unless others are named, sorted."""
        return tuple(name for name in self.image_ids() if self.image(name).default)

    def image(self, image_id: str) -> Image:
        """Read one image and the layers below it.

        Raises:
            RecipeError: unknown, malformed, or its layers form a loop.
        """
        if not _NAME.match(image_id) or image_id not in self.image_ids():
            raise RecipeError(f"there is no image {image_id!r}; known are: {', '.join(self.image_ids()) or 'none'}")
        path = self.folder / image_id / "image.toml"
        data = _read(path)
        return Image(
            id=image_id,
            order=int(data.get("order", 100)),
            layers=self._chain(_text(data, "layer", path)),
            title=_texts(data, "title", path),
            description=_texts(data, "description", path),
            beamlines=tuple(str(item) for item in data.get("beamlines", [])),
            software=tuple(_software(item, path) for item in data.get("software", [])),
            default=bool(data.get("default", True)),
            words={str(name): str(text) for name, text in data.get("scheduling", {}).items()},
        )

    def guest(self) -> Guest:
        """Return the guest layer with the hash of its sources."""
        sources = (self._package / "__init__.py", self._package / "protocol", self._package / "guest")
        digest = hashlib.sha256(f"guest {FORMAT}\n".encode())
        for source in sources:
            _hash_tree(digest, source)
        return Guest(sources, digest.hexdigest())

    def on_top(self, folder: str, below: str) -> Layer:
        """Return the layer of ``<folder>/layer.toml``, which lies on any image: here on the layer with hash ``below``.

        Raises:
            RecipeError: there is none, or it is malformed.
        """
        if not _NAME.match(folder):
            raise RecipeError(f"{folder!r} is not a layer name")
        return self._layer_of(folder, self.folder / folder / "layer.toml", below)

    def _chain(self, name: str) -> tuple[Layer, ...]:
        names = [name]
        while parent := self._parent(names[-1]):
            if parent in names:
                raise RecipeError(f"the layers {' > '.join([*names, parent])} form a loop")
            names.append(parent)
        chain: list[Layer] = []
        for item in reversed(names):
            chain.insert(0, self._layer(item, chain[0].hash if chain else ""))
        return tuple(chain)

    def _parent(self, name: str) -> str:
        return str(_read(self._layer_file(name)).get("parent", ""))

    def _layer_file(self, name: str) -> Path:
        if not _NAME.match(name):
            raise RecipeError(f"{name!r} is not a layer name")
        return self.folder / "layers" / name / "layer.toml"

    def _layer(self, name: str, parent_hash: str) -> Layer:
        if name in self._layers:
            return self._layers[name]
        path = self._layer_file(name)
        layer = self._layer_of(name, path, parent_hash)
        if bool(layer.parent) == bool(layer.suite):
            raise RecipeError(f"{path}: needs either a parent layer or, in the root layer, a suite")
        self._layers[name] = layer
        return layer

    def _layer_of(self, name: str, path: Path, parent_hash: str) -> Layer:
        data = _read(path)
        venvs = tuple(_venv(item, path) for item in data.get("venvs", []))
        copies = tuple(_copy(item, path) for item in data.get("copies", []))
        digest = hashlib.sha256(f"layer {FORMAT} {parent_hash}\n".encode())
        for source in (path.parent, *(copy.source for copy in copies)):
            _hash_tree(digest, source)
        return Layer(
            name=name,
            folder=path.parent,
            parent=str(data.get("parent", "")),
            suite=str(data.get("suite", "")),
            dpkg=tuple(str(item) for item in data.get("dpkg", [])),
            apt=tuple(str(item) for item in data.get("apt", [])),
            packages=tuple(str(item) for item in data.get("packages", [])),
            venvs=venvs,
            copies=copies,
            hash=digest.hexdigest(),
        )


def image_hash(hashes: tuple[str, ...]) -> str:
    """Return the content hash of an image that consists of these layers (topmost first)."""
    return hashlib.sha256(json.dumps([FORMAT, *hashes]).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{path} does not exist") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: {error}") from error


def _text(data: Mapping[str, Any], key: str, path: Path) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise RecipeError(f"{path}: {key} must be a text")
    return value


def _texts(data: Mapping[str, Any], key: str, path: Path) -> dict[str, str]:
    value = data.get(key)
    if not isinstance(value, dict) or not all(isinstance(value.get(language), str) for language in LANGUAGES):
        raise RecipeError(f"{path}: {key} must have the texts {' and '.join(LANGUAGES)}")
    return {language: value[language] for language in LANGUAGES}


def _software(data: Mapping[str, Any], path: Path) -> Software:
    return Software(
        _text(data, "name", path), _text(data, "command", path), _text(data, "icon", path), _texts(data, "description", path)
    )


def _venv(data: Mapping[str, Any], path: Path) -> Venv:
    requirements = path.parent / _text(data, "requirements", path)
    return Venv(_target(data, "path", path), requirements, bool(data.get("system_site_packages", False)))


def _copy(data: Mapping[str, Any], path: Path) -> Copy:
    source = (path.parent / _text(data, "source", path)).resolve()
    if not source.exists():
        raise RecipeError(f"{path}: {data['source']} does not exist")
    return Copy(source, _target(data, "target", path))


def _target(data: Mapping[str, Any], key: str, path: Path) -> str:
    value = _text(data, key, path)
    if not value.startswith("/") or ".." in value.split("/"):
        raise RecipeError(f"{path}: {key} must be an absolute path without '..'")
    return value


def _hash_tree(digest: Any, top: Path) -> None:
    for path in tree_files(top):
        info = path.lstat()
        kind = "link" if stat.S_ISLNK(info.st_mode) else ("x" if info.st_mode & 0o111 else "-")
        content = str(path.readlink()).encode() if kind == "link" else path.read_bytes()
        digest.update(f"{path.relative_to(top)} {kind} {len(content)}\n".encode())
        digest.update(content)


def tree_files(top: Path) -> Iterator[Path]:
    """Return the files of a tree in order, without byte code and what tools leave behind; ``top`` itself if it is a file."""
    if not top.is_dir():
        yield top
        return
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(set(folders) - _SKIPPED)
        yield from (Path(folder, name) for name in sorted(files) if not name.endswith(".pyc"))
