"""Strict conversion between the core's dataclasses and plain JSON values. For documents that somebody else wrote.

Accepts exactly the declared fields with exactly the declared types: whole numbers from 0 to `checks.LARGEST`, finite seconds,
printable texts. It coerces nothing and ignores nothing. What the documents are called and hold is in `wire.py`.

Differs from `protocol.codec`, which serves small messages, in its amounts, sets and tuples, and in speed: a site's snapshot has
10^6 values, so that a reader is compiled once per type.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from beamdesk.scheduling.cards import Geometry
from beamdesk.scheduling.checks import LARGEST
from beamdesk.scheduling.errors import Malformed, SchedulingError

Reader = Callable[[Any], Any]
LONGEST_TEXT = 4096


def write(value: Any) -> Any:
    """Return ``value`` as what `json` can write: sets sorted, dataclasses as objects."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, tuple | list):
        return [write(one) for one in value]
    if isinstance(value, frozenset):
        return sorted(value)
    return {name: write(getattr(value, name)) for name in value.__slots__}


def parse(text: str | bytes, *, most: int) -> dict[str, Any]:
    """Parse a JSON object of at most ``most`` bytes or characters; no NaN, no infinity, no key said twice.

    Raises:
        Malformed: it is not one.
    """
    if len(text) > most:
        raise Malformed(f"The document is longer than {most} bytes.")
    try:
        data = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"This is not a JSON document: {error}") from error
    if not isinstance(data, dict):
        raise Malformed("The document must be an object.")
    return data


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object says one of its keys twice")
    return result


def read(kind: Any, data: Any, path: str) -> Any:
    """Read ``data`` as ``kind``.

    Raises:
        Malformed: it does not match; the message begins with the path of the first offence.
    """
    try:
        return reader(kind)(data)
    except _WrongError as error:
        where = path + "".join(reversed(error.path))
        raise Malformed(f"{where}: {error}", field=where) from error


class _WrongError(Exception):
    """An offence whose path grows while it travels outwards."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.path: list[str] = []

    def inside(self, step: str) -> _WrongError:
        self.path.append(step)
        return self


@lru_cache(maxsize=256)
def reader(kind: Any) -> Reader:
    """Compile the reader of a type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is not None:
        return _compound(origin, arguments)
    if is_dataclass(kind) and isinstance(kind, type):
        return _object(kind)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _word(kind)
    return {str: _text, int: _amount, float: _seconds, bool: _flag}[kind]


def _compound(origin: Any, arguments: tuple[Any, ...]) -> Reader:
    if origin in {typing.Union, types.UnionType}:
        return _optional(reader(next(one for one in arguments if one is not type(None))))
    if origin is tuple and arguments[-1] is Ellipsis:
        return _list(reader(arguments[0]))
    if origin is tuple:
        return _fixed(tuple(reader(one) for one in arguments))
    return _set(reader(arguments[0]))


def _optional(inner: Reader) -> Reader:
    return lambda data: None if data is None else inner(data)


def _list(inner: Reader) -> Reader:
    def read_list(data: Any) -> tuple[Any, ...]:
        if not isinstance(data, list):
            raise _WrongError("expected a list")
        result = []
        for number, one in enumerate(data):
            try:
                result.append(inner(one))
            except _WrongError as error:
                raise error.inside(f"[{number}]") from error
        return tuple(result)

    return read_list


def _fixed(inner: tuple[Reader, ...]) -> Reader:
    def read_fixed(data: Any) -> tuple[Any, ...]:
        if not isinstance(data, list) or len(data) != len(inner):
            raise _WrongError(f"expected a list of {len(inner)}")
        return tuple(one(value) for one, value in zip(inner, data, strict=True))

    return read_fixed


def _set(inner: Reader) -> Reader:
    read_list = _list(inner)

    def read_set(data: Any) -> frozenset[Any]:
        values = read_list(data)
        if len(set(values)) != len(values):
            raise _WrongError("names something twice")
        return frozenset(values)

    return read_set


def _object(kind: type) -> Reader:
    hints = typing.get_type_hints(kind)
    readers = {field.name: reader(hints[field.name]) for field in fields(kind)}
    needed = frozenset(field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING)

    def read_object(data: Any) -> Any:
        if kind is Geometry and isinstance(data, Geometry):
            # `wire` puts it in where the document names it by number; JSON itself cannot hold one.
            return data
        if not isinstance(data, dict):
            raise _WrongError("expected an object")
        if missing := needed - data.keys():
            raise _WrongError(f"{min(missing)} is missing")
        values = {}
        for name, value in data.items():
            one = readers.get(name)
            if one is None:
                raise _WrongError(f"unknown key {name[:40]!r}")
            try:
                values[name] = one(value)
            except _WrongError as error:
                raise error.inside(f".{name}") from error
        try:
            return kind(**values)
        except SchedulingError as error:
            raise _WrongError(error.message) from error

    return read_object


def _word(kind: type[StrEnum]) -> Reader:
    words = {str(one): one for one in kind}

    def read_word(data: Any) -> StrEnum:
        if not isinstance(data, str) or data not in words:
            raise _WrongError(f"must be one of {', '.join(words)}")
        return words[data]

    return read_word


def _text(data: Any) -> str:
    if not isinstance(data, str) or not 0 < len(data) <= LONGEST_TEXT or not data.isprintable():
        raise _WrongError(f"must be a printable text of 1 to {LONGEST_TEXT} characters")
    return data


def _amount(data: Any) -> int:
    if type(data) is not int or not 0 <= data <= LARGEST:
        raise _WrongError(f"must be a whole number from 0 to {LARGEST}")
    return data


def _seconds(data: Any) -> float:
    """Whole numbers stay whole: a table's digest tells 3 from 3.0."""
    if type(data) not in {int, float} or abs(data) > LARGEST or not math.isfinite(data):
        raise _WrongError("must be a finite number")
    return typing.cast("float", data)


def _flag(data: Any) -> bool:
    if not isinstance(data, bool):
        raise _WrongError("must be true or false")
    return data
