"""Languages of the portal: catalogues in TOML, one file per language, and the choice of one for a request.

A catalogue maps dotted keys to sentences with `{name}` placeholders. A key with the children `one` and `other` is chosen by count.
English is complete by definition; a test holds Chinese to the same keys and placeholders. Nothing here knows a noun of the domain.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

LANGUAGES: Mapping[str, str] = MappingProxyType({"en": "English", "zh": "简体中文"})
"""Language codes and what their speakers call them."""
TAGS: Mapping[str, str] = MappingProxyType({"en": "en", "zh": "zh-CN"})
"""BCP 47 tags for `lang` attributes and the browser's Intl."""
DEFAULT = "en"
_FOLDER = Path(__file__).parent / "locale"


@dataclass(frozen=True, slots=True)
class Words:
    """One language: `words("key", name=value)` gives the sentence."""

    language: str
    entries: Mapping[str, str]

    def __call__(self, key: str, /, **values: object) -> str:
        """Return the sentence of ``key``.

        Raises:
            KeyError: no such key; a missing sentence is a bug that tests find, not something to paper over.
        """
        sentence = self.entries[key]
        return sentence.format(**values) if values else sentence

    def count(self, key: str, number: int, /, **values: object) -> str:
        """Return the form of ``key`` for a number, which is also the placeholder `{n}`."""
        form = "one" if number == 1 else "other"
        return self.entries[f"{key}.{form}"].format(n=number, **values)

    def has(self, key: str) -> bool:
        """Tell whether there is such a key."""
        return key in self.entries

    @property
    def tag(self) -> str:
        """Return the BCP 47 tag."""
        return TAGS[self.language]


def flatten(table: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Return nested tables as one table with dotted keys."""
    flat: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = str(value)
    return flat


@cache
def words_for(language: str) -> Words:
    """Return the catalogue of a known language."""
    text = (_FOLDER / f"{language}.toml").read_text(encoding="utf-8")
    return Words(language, MappingProxyType(flatten(tomllib.loads(text))))


def known(tag: str | None) -> str | None:
    """Return the language code of a tag (`zh-Hans-CN` -> `zh`), None when the portal does not speak it."""
    code = (tag or "").strip().lower().replace("_", "-").split("-")[0]
    return code if code in LANGUAGES else None


def negotiate(accept_language: str) -> str | None:
    """Return the best known language of an `Accept-Language` header (RFC 9110, 12.5.4), None when there is none."""
    ranked: list[tuple[float, int, str]] = []
    for position, item in enumerate(accept_language[:500].split(",")):
        tag, _, parameter = item.partition(";")
        code = known(tag)
        if code is None:
            continue
        name, _, number = parameter.partition("=")
        try:
            quality = float(number) if name.strip() == "q" else 1.0
        except ValueError:
            quality = 0.0
        if quality > 0:
            ranked.append((-quality, position, code))
    return min(ranked)[2] if ranked else None
