"""Text in the languages that Beamdesk speaks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """The same words in English and Simplified Chinese."""

    en: str
    zh: str

    def get(self, language: str) -> str:
        """Return the text in ``language`` (a BCP 47 tag); English where it is not Chinese."""
        return self.zh if language.lower().startswith("zh") else self.en
