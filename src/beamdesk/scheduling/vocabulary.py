"""The words in which flavors, images and scheduler hints ask for cards; the reference page lists them.

Three sources speak: a flavor's extra specs (``beamdesk:gpu_memory_mib``), an image's properties and a server's hints
(``beamdesk_gpu_memory_mib``). Image and hints may narrow what the flavor says, never widen it: minima take the largest value,
lists of models intersect, everything else must agree. An unknown word of ours is an error, for a misspelt minimum that is
silently ignored gives people the wrong card. Words of others (``hw:...``) are none of our business.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields

from beamdesk.scheduling.arrays import CARD
from beamdesk.scheduling.errors import InvalidRequest
from beamdesk.scheduling.request import CardDemand, NumaRule, Request

PREFIX = "beamdesk"
UNTIL, BOOKING = f"{PREFIX}_until", f"{PREFIX}_booking"
"""Hints beside the vocabulary: the end of the lease (seconds since the epoch), and the bookings that a server may spend."""
MOST_BOOKINGS = 64
"""So many bookings a server may name."""
_MINIMA = ("gpu_memory_mib", "gpu_cores", "gpu_bandwidth_gbs", "gpu_clock_mhz")


@dataclass(frozen=True, slots=True)
class Words:
    """Each word of the vocabulary, parsed; None = not said. The docstring of the module says how several sources combine."""

    gpus: int | None = None
    gpu_share: int | None = None
    gpu_profile: str | None = None
    gpu_models: frozenset[str] | None = None
    gpu_memory_mib: int | None = None
    gpu_cores: int | None = None
    gpu_bandwidth_gbs: int | None = None
    gpu_clock_mhz: int | None = None
    numa: NumaRule | None = None
    aggregates: frozenset[str] | None = None
    image_required: bool | None = None


NOTHING = Words()
"""Nothing is asked."""
NAMES = tuple(field.name for field in fields(Words))
SHOWN = frozenset(
    {
        "title_en",
        "title_zh",
        "description_en",
        "description_zh",
        "software",
        "beamlines",
        "image",
        "flavor",
        "content_hash",
        "order",
        "format",
    }
)
"""Words of the catalogue beside ours in the same namespaces: they tell people what it is and ask for nothing."""


def parse(specs: Mapping[str, str]) -> Words:
    """Parse one source. Keys are ``beamdesk:WORD`` or ``beamdesk_WORD``; others are ignored.

    Raises:
        InvalidRequest: an unknown word of ours, said twice, or a malformed value.
    """
    said: dict[str, object] = {}
    for key, text in specs.items():
        if not key.startswith((f"{PREFIX}:", f"{PREFIX}_")):
            continue
        name = key[len(PREFIX) + 1 :]
        if name in SHOWN:
            continue
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1)
            hint = f" Did you mean {PREFIX}:{near[0]}?" if near else f" Known: {', '.join(NAMES)}."
            raise InvalidRequest(f"Unknown extra spec {key}.{hint}", field=key)
        if name in said:
            raise InvalidRequest(f"{PREFIX}:{name} is said twice.", field=key)
        said[name] = _value(key, name, text)
    return Words(**said)  # type: ignore[arg-type]  # _value returns the type of each word


def _value(key: str, name: str, text: str) -> object:
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequest(f"{key} has no value.", field=key)
    text = text.strip()
    if name == "gpu_profile":
        return text
    if name in {"gpu_models", "aggregates"}:
        names = frozenset(part.strip() for part in text.split("|"))
        if "" in names:
            raise InvalidRequest(f"{key} has an empty name in {text!r}; names are parted by '|'.", field=key)
        return names
    if name == "numa":
        if text not in list(NumaRule):
            raise InvalidRequest(f"{key} must be one of {', '.join(NumaRule)}, not {text!r}.", field=key)
        return NumaRule(text)
    if name == "image_required":
        if text not in {"true", "false"}:
            raise InvalidRequest(f"{key} must be true or false, not {text!r}.", field=key)
        return text == "true"
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise InvalidRequest(f"{key} must be a whole number of at most 12 digits, not {text!r}.", field=key)
    return int(text)


def write(words: Words, separator: str = ":") -> dict[str, str]:
    """Return the texts that say it: extra specs with ``:``, image properties and hints with ``_``. `parse` reads them back."""
    said = ((name, getattr(words, name)) for name in NAMES)
    return {f"{PREFIX}{separator}{name}": _text(value) for name, value in said if value is not None}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "|".join(sorted(value)) if isinstance(value, frozenset) else str(value)


def combine(flavor: Words, *others: Words) -> Words:
    """Narrow what the flavor says by what image and hints say.

    Raises:
        InvalidRequest: two sources contradict each other.
    """
    result = {name: getattr(flavor, name) for name in NAMES}
    for other in others:
        for name in NAMES:
            value, known = getattr(other, name), result[name]
            if value is not None:
                result[name] = value if known is None else _narrow(name, known, value)
    return Words(**result)


def _narrow(name: str, known: object, value: object) -> object:
    if name in _MINIMA and isinstance(known, int) and isinstance(value, int):
        return max(known, value)
    if isinstance(known, frozenset) and isinstance(value, frozenset):
        if both := known & value:
            return both
        raise InvalidRequest(
            f"{PREFIX}:{name}: nothing is in both {'|'.join(sorted(known))} and {'|'.join(sorted(value))}.",
            field=f"{PREFIX}:{name}",
        )
    if known != value:
        raise InvalidRequest(f"{PREFIX}:{name}: {known} and {value} contradict each other.", field=f"{PREFIX}:{name}")
    return known


def demand(words: Words, *, container: bool = False) -> CardDemand | None:
    """Return the cards that the words ask for, None when they ask for none.

    Raises:
        InvalidRequest: details of cards without a card, or a contradiction between them.
    """
    detailed = any(getattr(words, name) is not None for name in ("gpu_share", "gpu_profile", "gpu_models", *_MINIMA))
    count = words.gpus if words.gpus is not None else 1 if detailed else 0
    if count == 0:
        if detailed:
            raise InvalidRequest(
                f"{PREFIX}:gpus is 0, but a share, profile, model or minimum of a card is asked for.", field=f"{PREFIX}:gpus"
            )
        return None
    return CardDemand(
        count=count,
        share=words.gpu_share if words.gpu_share is not None else CARD,
        profile=words.gpu_profile,
        models=words.gpu_models or frozenset(),
        memory_mib=words.gpu_memory_mib or 0,
        cores=words.gpu_cores or 0,
        bandwidth_gbs=words.gpu_bandwidth_gbs or 0,
        clock_mhz=words.gpu_clock_mhz or 0,
        container=container,
    )


def from_extra_specs(
    request_id: str,
    *,
    vcpus: int,
    memory_mib: int,
    disk_gib: int = 0,
    flavor: Mapping[str, str],
    image: Mapping[str, str] | None = None,
    hints: Mapping[str, str] | None = None,
    image_ref: str | None = None,
    container: bool = False,
    until: float | None = None,
) -> Request:
    """Make a request from a flavor's size and extra specs, an image's properties and a server's hints.

    Raises:
        InvalidRequest: unknown word, malformed value, contradiction; the message names it.
    """
    words = combine(parse(flavor), parse(image or {}), parse(hints or {}))
    if isinstance(vcpus, bool) or not isinstance(vcpus, int):
        raise InvalidRequest(f"vcpus must be a whole number, not {vcpus!r}.", field="vcpus")
    return request_for(
        request_id,
        words,
        vcpus=vcpus,
        memory_mib=memory_mib,
        disk_gib=disk_gib,
        image_ref=image_ref,
        container=container,
        until=until,
    )


def request_for(
    request_id: str,
    words: Words,
    *,
    vcpus: int,
    memory_mib: int,
    disk_gib: int = 0,
    image_ref: str | None = None,
    container: bool = False,
    until: float | None = None,
) -> Request:
    """Make a request of a size and of words that are parsed already.

    Raises:
        InvalidRequest: the words contradict each other.
    """
    return Request(
        id=request_id,
        cpu_milli=vcpus * 1000,
        memory_mib=memory_mib,
        disk_gib=disk_gib,
        cards=demand(words, container=container),
        numa=words.numa or NumaRule.NONE,
        aggregates=words.aggregates or frozenset(),
        image=image_ref,
        image_required=bool(words.image_required),
        until=until,
    )
