"""What Glance's image properties and Nova's extra specs say to the catalogue. Pure: raw JSON in, catalogue and reasons out.

An image takes part with the property ``beamdesk_image`` (its name in Beamdesk), a flavor with the extra spec ``beamdesk:title_en``.
Anybody who may write to the project can misspell a property, so nothing here raises for a whole list: what cannot be read is left
out, with the reason. docs/reference/openstack-catalogue.md lists the words.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from beamdesk.domain.catalog import Flavor, Image, Resources, Software, sized
from beamdesk.domain.ids import FlavorId, ImageId
from beamdesk.domain.text import Text
from beamdesk.scheduling.errors import SchedulingError
from beamdesk.scheduling.vocabulary import Words, parse

Raw = Mapping[str, Any]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_GPU_CLASS = re.compile(r"resources\d*:(VGPU|PGPU|CUSTOM_[A-Z0-9_]*(GPU|MIG|PCI_10DE|PCI_1002)[A-Z0-9_]*)")
_RECORD_CLASS = "resources:CUSTOM_BEAMDESK_GPU"
"""Our own providers of cards in Placement: it books a card that an alias brings, so the two are one."""
_TITLE_LENGTH = 80
_TEXT_LENGTH = 1000
_JSON_LENGTH = 64 * 1024
_MOST_SOFTWARE = 100
_MOST_BEAMLINES = 100
_MOST_GPUS = 64


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that wants to be in the catalogue and is not. ``kind``: image or flavor; ``ref``: the cloud's id.

    ``replaced``: nothing is wrong with it, a newer one took its place.
    """

    kind: str
    name: str
    ref: str
    reason: str
    replaced: bool = False


def read_images(entries: Iterable[Raw]) -> tuple[tuple[Image, ...], tuple[LeftOut, ...]]:
    """Return the images on offer in display order, and those left out. ``entries`` as in Glance's ``GET /v2/images``.

    Of several images of one name the newest active one is on offer: uploading another replaces it, hiding it takes that back.
    """
    read: dict[str, tuple[str, int, Image]] = {}
    left: list[LeftOut] = []
    for entry in sorted(entries, key=lambda one: str(one.get("created_at", "")), reverse=True):
        if not _takes_part(entry):
            continue
        try:
            order, image = _order(entry), read_image(entry)
        except ValueError as error:
            left.append(_left("image", entry, str(error)))
            continue
        if image.id in read:
            newer = read[image.id][0]
            reason = f"a newer image of the name {image.id} is on offer ({newer})"
            left.append(replace(_left("image", entry, reason), replaced=True))
        else:
            read[image.id] = (str(entry.get("id", "")), order, image)
    shown = sorted(read.values(), key=lambda one: (one[1], one[2].id))
    return tuple(image for _, _, image in shown), tuple(left)


def _takes_part(entry: Raw) -> bool:
    # Nova hands an image's properties down to the snapshots of its servers: those are somebody's desktop, not an offer.
    return "beamdesk_image" in entry and entry.get("image_type") != "snapshot"


def _left(kind: str, entry: Raw, reason: str) -> LeftOut:
    return LeftOut(kind, str(entry.get("name") or ""), str(entry.get("id") or ""), reason)


def read_image(entry: Raw) -> Image:
    """Return one image.

    Raises:
        ValueError: it cannot be offered; the text says why.
    """
    if (status := entry.get("status")) != "active":
        raise ValueError(f"its status is {status}, not active")
    return Image(
        id=ImageId(_name("beamdesk_image", entry["beamdesk_image"])),
        ref=str(entry.get("id") or ""),
        title=_words(entry, "beamdesk_title", _TITLE_LENGTH, needed=True),
        description=_words(entry, "beamdesk_description", _TEXT_LENGTH),
        software=_software(entry.get("beamdesk_software")),
        beamlines=_beamlines(entry.get("beamdesk_beamlines")),
        words=_asks({key: str(value) for key, value in entry.items() if key.startswith("beamdesk_")}),
    )


def _asks(said: Mapping[str, str]) -> Words:
    try:
        return parse(said)
    except SchedulingError as error:
        raise ValueError(error.message) from error


def _name(key: str, value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{key} must be 1 to 64 letters, digits, '.', '_' or '-', not {_short(value)}")
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _words(entry: Raw, key: str, limit: int, *, needed: bool = False) -> Text:
    english = _line(f"{key}_en", entry.get(f"{key}_en", ""), limit)
    if needed and not english:
        raise ValueError(f"{key}_en is missing")
    return Text(english, _line(f"{key}_zh", entry.get(f"{key}_zh", ""), limit) or english)


def _line(key: str, value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key} must be text, not {_short(value)}")  # noqa: TRY004 - the input is wrong, not the program
    text = value.strip()
    if len(text) > limit:
        raise ValueError(f"{key} is longer than {limit} characters")
    if any(unicodedata.category(one) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} for one in text):
        raise ValueError(f"{key} has control characters or line breaks")
    return text


def _order(entry: Raw) -> int:
    value = str(entry.get("beamdesk_order", "100"))
    if not re.fullmatch(r"[0-9]{1,6}", value):
        raise ValueError(f"beamdesk_order must be a whole number, not {_short(value)}")
    return int(value)


def _software(value: object) -> tuple[Software, ...]:
    if value in (None, ""):
        return ()
    parsed = _json_list("beamdesk_software", value, _MOST_SOFTWARE)
    return tuple(_program(number, one) for number, one in enumerate(parsed, 1))


def _program(number: int, entry: object) -> Software:
    where = f"beamdesk_software, entry {number}"
    if not isinstance(entry, dict) or not isinstance(entry.get("description", {}), dict):
        raise ValueError(f"{where}: must be an object with name and description")  # noqa: TRY004 - as above
    name = _line(f"{where}, name", entry.get("name", ""), _TITLE_LENGTH)
    if not name:
        raise ValueError(f"{where}: has no name")
    description = entry.get("description", {})
    english = _line(f"{where}, description", description.get("en", ""), _TEXT_LENGTH)
    return Software(name, Text(english, _line(f"{where}, description", description.get("zh", ""), _TEXT_LENGTH) or english))


def _json_list(key: str, value: object, most: int) -> list[object]:
    if not isinstance(value, str) or len(value) > _JSON_LENGTH:
        raise ValueError(f"{key} must be a JSON list of at most {_JSON_LENGTH} characters")
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{key} is not valid JSON") from error
    if not isinstance(parsed, list) or len(parsed) > most:
        raise ValueError(f"{key} must be a JSON list of at most {most} entries")
    return parsed


def _beamlines(value: object) -> frozenset[str]:
    if value in (None, ""):
        return frozenset()
    if isinstance(value, str) and value.lstrip().startswith("["):
        names = _json_list("beamdesk_beamlines", value, _MOST_BEAMLINES)
    else:
        names = [part.strip() for part in str(value).split(",")]
    return frozenset(_name("beamdesk_beamlines", one) for one in names)


def read_flavors(entries: Iterable[Raw], names: Mapping[str, str] | None = None) -> tuple[tuple[Flavor, ...], tuple[LeftOut, ...]]:
    """Return the flavors on offer, smallest first, and those left out. ``entries`` as in Nova's ``GET /flavors/detail``, 2.61.

    ``names``: our id of a flavor -> Nova's name of it, where the settings say so.
    """
    ours = {theirs: own for own, theirs in (names or {}).items()}
    read: dict[str, Flavor] = {}
    left: list[LeftOut] = []
    for entry in entries:
        if "beamdesk:title_en" not in specs_of(entry):
            continue
        try:
            flavor = read_flavor(entry, ours.get(str(entry.get("name"))))
        except ValueError as error:
            left.append(_left("flavor", entry, str(error)))
            continue
        if read.setdefault(flavor.id, flavor) is not flavor:
            left.append(_left("flavor", entry, f"another flavor has the name {flavor.id} too"))
    return tuple(sorted(read.values(), key=_size)), tuple(left)


def _size(flavor: Flavor) -> tuple[int, int, int, str]:
    amount = flavor.resources
    return amount.gpus, amount.vcpus, amount.memory_mib, flavor.id


def specs_of(entry: Raw) -> Mapping[str, str]:
    """Return a flavor's extra specs."""
    specs = entry.get("extra_specs")
    return {str(key): str(value) for key, value in specs.items()} if isinstance(specs, Mapping) else {}


def read_flavor(entry: Raw, name: str | None = None) -> Flavor:
    """Return one flavor. Its id is ``name``, else the extra spec ``beamdesk:flavor``, else Nova's name.

    Raises:
        ValueError: it cannot be offered; the text says why.
    """
    if entry.get("OS-FLV-DISABLED:disabled") is True:
        raise ValueError("it is disabled")
    specs = specs_of(entry)
    sizes = [entry.get(key) or 0 for key in ("vcpus", "ram", "disk", "OS-FLV-EXT-DATA:ephemeral")]
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 0 for size in sizes):
        raise ValueError("vcpus, ram or disk is not a number")
    vcpus, ram, disk, ephemeral = sizes
    amount, words = Resources(vcpus, ram, disk + ephemeral, gpus_of(specs)), _asks(specs)
    try:
        sized(words, amount)
    except SchedulingError as error:
        raise ValueError(error.message) from error
    return Flavor(
        id=FlavorId(_name("its name", name or specs.get("beamdesk:flavor") or entry.get("name"))),
        title=_words(specs, "beamdesk:title", _TITLE_LENGTH, needed=True),
        resources=amount,
        words=words,
    )


def gpus_of(specs: Mapping[str, str]) -> int:
    """Return how many GPU cards (or parts of cards) a flavor's servers get: by PCI alias, or by a resource class of Placement.

    ``beamdesk:gpus`` guides the scheduler and brings no card; where it disagrees with what brings one the flavor is wrong.

    Raises:
        ValueError: a number is malformed, or the two disagree.
    """
    brought = sum(aliases_of(specs).values())
    booked = 0
    for key, value in specs.items():
        if key == _RECORD_CLASS:
            booked = _count(key, value)
        elif _GPU_CLASS.fullmatch(key):
            brought += _count(key, value)
    brought = max(brought, booked)
    said = specs.get("beamdesk:gpus")
    if said is not None and _count("beamdesk:gpus", said) != brought:
        raise ValueError(f"beamdesk:gpus says {said}, but pci_passthrough:alias and resources bring {brought}")
    return brought


def brings_cards(specs: Mapping[str, str]) -> bool:
    """Tell whether a flavor's servers get cards or parts of them; one that nobody can read is taken to."""
    try:
        return gpus_of(specs) > 0
    except ValueError:
        return True


def aliases_of(specs: Mapping[str, str]) -> dict[str, int]:
    """Return the PCI aliases that a flavor asks for, with their numbers.

    Raises:
        ValueError: the extra spec is malformed.
    """
    found: dict[str, int] = {}
    for part in filter(None, (one.strip() for one in specs.get("pci_passthrough:alias", "").split(","))):
        name, colon, count = part.partition(":")
        if not name.strip():
            raise ValueError("pci_passthrough:alias has an empty name")
        found[name.strip()] = found.get(name.strip(), 0) + (_count("pci_passthrough:alias", count) if colon else 1)
    return found


def _count(key: str, value: str) -> int:
    text = value.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text) <= _MOST_GPUS):
        raise ValueError(f"{key} must be a number from 0 to {_MOST_GPUS}, not {_short(value)}")
    return int(text)
