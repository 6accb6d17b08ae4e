"""Errors of the helper: what it refuses, with a stable code and one plain sentence.

``code`` values (never changed once released): ``malformed``, ``not_allowed``, ``not_supported``, ``unknown_image``,
``out_of_range``, ``unknown_data``, ``no_capacity``, ``foreign``, ``in_use``, ``not_found``, ``denied``, ``busy``, ``failed``.
"""

from __future__ import annotations


class HelperError(Exception):
    """A request that is answered with ``code`` and ``detail`` instead of being done."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class BadConfig(Exception):
    """The configuration file is missing, malformed or not safe; the text names the key or path and what to do."""
