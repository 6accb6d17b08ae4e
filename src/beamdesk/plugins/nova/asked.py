"""A RequestSpec of Nova as a request of the core, in the words of `scheduling.vocabulary`.

Words steer the choice of a host only: the server gets devices through the flavor's PCI aliases or VGPU resources. Where the two
do not say the same, people would get a desktop without its card, or a card that nobody counted: such requests are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamdesk.scheduling.errors import InvalidRequest
from beamdesk.scheduling.request import Request
from beamdesk.scheduling.vocabulary import BOOKING, MOST_BOOKINGS, PREFIX, UNTIL, combine, from_extra_specs, parse

_BOOKING_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESOURCE = re.compile(r"resources[A-Za-z0-9_-]*:(VGPU|CUSTOM_[A-Z0-9_]+)")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, how many whole cards Nova's PCI aliases give, and the bookings that it may spend."""

    request: Request
    devices: int = 0
    bookings: tuple[str, ...] = ()


def read(spec: Any, gpu_aliases: frozenset[str] = frozenset()) -> Asked:
    """Read a RequestSpec.

    Raises:
        InvalidRequest: unknown word, malformed value, contradiction; the message names it.
    """
    extra = {str(key): str(value) for key, value in (_get(spec.flavor, "extra_specs") or {}).items()}
    hints = _hints(spec)
    devices = _devices(spec, gpu_aliases)
    until, booking = hints.pop(UNTIL, None), hints.pop(BOOKING, None)
    # Nova passes other parties' hints too (group, same_host); the vocabulary ignores them.
    if devices and combine(parse(extra), parse(hints)).gpus is None:
        extra[f"{PREFIX}:gpus"] = str(devices)
    request = from_extra_specs(
        str(spec.instance_uuid),
        vcpus=int(spec.flavor.vcpus),
        memory_mib=int(spec.flavor.memory_mb),
        flavor=extra,
        hints=hints,
        image_ref=_image_id(spec),
        until=None if until is None else _moment(until),
    )
    _agree(request, devices, extra)
    return Asked(request, devices, () if booking is None else _bookings(booking))


def _hints(spec: Any) -> dict[str, str]:
    """Return the hints of ours. Nova keeps each as a list of texts."""
    result = {}
    for name, value in (_get(spec, "scheduler_hints") or {}).items():
        if not str(name).startswith((f"{PREFIX}:", f"{PREFIX}_")):
            continue
        values = list(value) if isinstance(value, list | tuple) else [value]
        if len(values) != 1:
            raise InvalidRequest(f"The hint {name} must be given once, not {len(values)} times.", field=str(name))
        result[str(name)] = str(values[0])
    return result


def _get(thing: Any, name: str) -> Any:
    """Return an attribute, None where it is not set: Nova's objects raise errors of their own then."""
    is_set = getattr(thing, "obj_attr_is_set", None)
    if is_set is not None and not is_set(name):
        return None
    return getattr(thing, name, None)


def _image_id(spec: Any) -> str | None:
    known = _get(_get(spec, "image"), "id")
    return str(known) if known else None


def _devices(spec: Any, gpu_aliases: frozenset[str]) -> int:
    """Return how many cards the flavor's PCI aliases give. Requests of ports have no alias."""
    requests = _get(_get(spec, "pci_requests"), "requests") or ()
    named = [(_get(one, "alias_name"), int(one.count)) for one in requests]
    return sum(count for alias, count in named if alias is not None and (not gpu_aliases or alias in gpu_aliases))


def _moment(text: str) -> float:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise InvalidRequest(f"{UNTIL} must be whole seconds since the epoch, not {text!r}.", field=UNTIL)
    return float(text)


def _bookings(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split("|"))
    if len(names) > MOST_BOOKINGS or not all(_BOOKING_NAME.fullmatch(name) for name in names):
        raise InvalidRequest(f"{BOOKING} must be names of bookings parted by '|', not {text[:60]!r}.", field=BOOKING)
    return names


def _agree(request: Request, devices: int, extra: Mapping[str, str]) -> None:
    """Refuse what would give another number of devices than the words ask for."""
    parts = _parts(extra)
    cards = request.cards
    if cards is None:
        if devices:
            raise InvalidRequest(f"{PREFIX}:gpus is 0, but the flavor's PCI aliases give {devices}.", field=f"{PREFIX}:gpus")
        if parts:
            raise InvalidRequest(
                f"The flavor asks Placement for {', '.join(sorted(parts))} but does not say {PREFIX}:gpu_profile.",
                field=f"{PREFIX}:gpu_profile",
            )
        return
    if cards.profile is None:
        if devices != cards.count:
            raise InvalidRequest(
                f"{PREFIX}:gpus asks for {cards.count} cards, but the flavor's PCI aliases give {devices}: "
                f"set pci_passthrough:alias to as many.",
                field=f"{PREFIX}:gpus",
            )
    elif devices:
        raise InvalidRequest(
            f"{PREFIX}:gpu_profile asks for part of a card, but the flavor's PCI aliases give {devices} whole ones.",
            field=f"{PREFIX}:gpu_profile",
        )
    elif sum(parts.values()) != cards.count:
        raise InvalidRequest(
            f"{PREFIX}:gpu_profile asks for {cards.count}, but the flavor asks Placement for {sum(parts.values())}: "
            f"set resources:VGPU to as many.",
            field=f"{PREFIX}:gpu_profile",
        )


def _parts(extra: Mapping[str, str]) -> dict[str, int]:
    """Return the VGPU resources that the flavor asks Placement for. Custom classes count only if they name a GPU."""
    result: dict[str, int] = {}
    for key, value in extra.items():
        found = _RESOURCE.fullmatch(key)
        if found and (found[1] == "VGPU" or "GPU" in found[1] or "MIG" in found[1]) and value.isascii() and value.isdigit():
            result[found[1]] = result.get(found[1], 0) + int(value)
    return {name: number for name, number in result.items() if number}
