"""Strict JSON <-> frozen dataclass conversion for messages that come from an untrusted peer.

Accepts exactly the declared fields with exactly the declared types. It must not coerce, ignore or guess: a message that does not
match is refused with the path of the first offence.
"""

from __future__ import annotations

import json
import math
import types
import typing
from dataclasses import MISSING, asdict, fields, is_dataclass
from enum import StrEnum
from typing import Any, TypeVar

T = TypeVar("T")

MAX_MESSAGE_BYTES = 256 * 1024


class MalformedMessage(ValueError):
    """A message does not match its declared shape; ``str()`` names the path and the offence, never the value."""


def encode(message: object) -> bytes:
    """Serialise a protocol dataclass to compact UTF-8 JSON."""
    if not is_dataclass(message) or isinstance(message, type):
        raise TypeError(f"not a protocol message: {type(message).__name__}")
    return json.dumps(asdict(message), separators=(",", ":"), ensure_ascii=False).encode()


def decode(kind: type[T], payload: bytes | str, *, limit: int = MAX_MESSAGE_BYTES) -> T:
    """Parse and validate ``payload`` as ``kind``.

    Raises:
        MalformedMessage: too long (over ``limit`` bytes), not JSON, an unknown or missing field, or a wrong type.
    """
    if len(payload) > limit:
        raise MalformedMessage(f"message longer than {limit} bytes")
    try:
        data = json.loads(payload, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage("message is not valid JSON") from error
    return typing.cast(T, _build(kind, data, "$"))


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


def _build(kind: Any, data: Any, path: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _build_union(kind, data, path)
    if origin is tuple:
        return _build_tuple(kind, data, path)
    if origin is dict:
        return _build_dict(kind, data, path)
    if is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, data, path)
    return _build_scalar(kind, data, path)


def _build_union(kind: Any, data: Any, path: str) -> Any:
    options = typing.get_args(kind)
    if data is None and type(None) in options:
        return None
    (other,) = [option for option in options if option is not type(None)]
    return _build(other, data, path)


def _build_tuple(kind: Any, data: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise MalformedMessage(f"{path}: expected a list")
    (item, _ellipsis) = typing.get_args(kind)
    return tuple(_build(item, value, f"{path}[{index}]") for index, value in enumerate(data))


def _build_dict(kind: Any, data: Any, path: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise MalformedMessage(f"{path}: expected an object")
    (_key, value) = typing.get_args(kind)
    return {key: _build(value, item, f"{path}.{key}") for key, item in data.items()}


def _build_dataclass(kind: Any, data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise MalformedMessage(f"{path}: expected an object")
    hints = typing.get_type_hints(kind)
    unknown = data.keys() - hints.keys()
    if unknown:
        raise MalformedMessage(f"{path}: unknown field {min(unknown)[:40]!r}")
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name in data:
            values[field.name] = _build(hints[field.name], data[field.name], f"{path}.{field.name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise MalformedMessage(f"{path}: missing field {field.name!r}")
    try:
        return kind(**values)
    except ValueError as error:
        raise MalformedMessage(f"{path}: {error}") from error


def _build_scalar(kind: Any, data: Any, path: str) -> Any:
    supertype = getattr(kind, "__supertype__", kind)
    if isinstance(supertype, type) and issubclass(supertype, StrEnum):
        try:
            return supertype(data)
        except ValueError as error:
            raise MalformedMessage(f"{path}: not one of {[str(member) for member in supertype]}") from error
    if supertype is float and type(data) in (int, float):
        return _finite(data, path)
    if type(data) is not supertype:
        raise MalformedMessage(f"{path}: expected {getattr(supertype, '__name__', supertype)}")
    if supertype is str and not _is_unicode(data):
        raise MalformedMessage(f"{path}: not valid Unicode")
    return data


def _finite(data: float, path: str) -> float:
    """Refuse what JSON can write and a float cannot hold: 1e999, or an integer of 400 digits."""
    try:
        number = float(data)
    except OverflowError as error:
        raise MalformedMessage(f"{path}: number too large") from error
    if not math.isfinite(number):
        raise MalformedMessage(f"{path}: number too large")
    return number


def _is_unicode(text: str) -> bool:
    r"""Tell whether the text can be encoded: JSON can write lone surrogates (``"\ud800"``), no database can keep them."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
