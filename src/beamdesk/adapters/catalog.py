"""The catalogue of a one-machine deployment: images as the image builder published them, flavors from the settings.

The builder replaces ``catalog.json`` by rename, so a reader needs no lock; it is read again when it is another file. A catalogue
that is not there yet is an empty one: the builder may still be at work.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import structlog

from beamdesk.domain.catalog import Flavor, Image, Software
from beamdesk.domain.errors import ConfigurationError
from beamdesk.domain.ids import ImageId
from beamdesk.domain.text import Text
from beamdesk.scheduling.errors import SchedulingError
from beamdesk.scheduling.vocabulary import PREFIX, parse

log = structlog.get_logger()
_FORMAT = 1
_Stamp = tuple[int, int, int]


class FileCatalog:
    """A `Catalog` over one file and a fixed list of flavors."""

    def __init__(self, path: Path, flavors: tuple[Flavor, ...]) -> None:
        self._path = path
        self._flavors = tuple(sorted(flavors, key=_size))
        self._stamp: _Stamp | None = None
        self._images: tuple[Image, ...] = ()

    async def images(self) -> tuple[Image, ...]:
        """Return the images that are built. One `stat` unless the file changed.

        Raises:
            ConfigurationError: the file cannot be read or is not a catalogue.
        """
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._images = parse_catalog(self._path.read_bytes())
                self._stamp = stamp
        except FileNotFoundError:
            self._stamp, self._images = None, ()
        except OSError as error:
            raise ConfigurationError(f"Cannot read the catalogue {self._path}: {error.strerror}.") from error
        except ValueError as error:
            raise ConfigurationError(f"The catalogue {self._path} is damaged ({error}). Build the images again.") from error
        return self._images

    async def flavors(self) -> tuple[Flavor, ...]:
        """Return the flavors, smallest first."""
        return self._flavors


def _size(flavor: Flavor) -> tuple[int, int, int]:
    amount = flavor.resources
    return amount.gpus, amount.vcpus, amount.memory_mib


def parse_catalog(content: bytes) -> tuple[Image, ...]:
    """Return the images of a catalogue document (its shape: `beamdesk.adapters.local.images`).

    Raises:
        ValueError: it is not one; the text names the offence.
    """
    document = json.loads(content)
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError("unknown format")
    try:
        return tuple(image for entry in document["images"] if (image := _image(entry)) is not None)
    except KeyError as error:
        raise ValueError(f"missing {error}") from error
    except (TypeError, AttributeError) as error:
        raise ValueError("wrong shape") from error


def _image(entry: dict[str, Any]) -> Image | None:
    """Return an image; None for one that misuses the scheduler's words, which is told in the log and takes no other with it."""
    try:
        words = parse({f"{PREFIX}_{name}": str(text) for name, text in entry.get("words", {}).items()})
    except SchedulingError as error:
        log.warning("catalog.left_out", kind="image", name=entry["id"], reason=error.message)
        return None
    software = (Software(str(one["name"]), _text(one["description"])) for one in entry["software"])
    return Image(
        id=ImageId(str(entry["id"])),
        ref=str(entry["hash"]),
        title=_text(entry["title"]),
        description=_text(entry["description"]),
        software=tuple(software),
        beamlines=frozenset(str(beamline) for beamline in entry["beamlines"]),
        words=words,
    )


def _text(words: dict[str, Any]) -> Text:
    return Text(str(words["en"]), str(words["zh"]))
