"""Errors of the image builder: few, and each says the cause in one sentence that an operator can act on."""

from __future__ import annotations


class ImageError(Exception):
    """Base of all that goes wrong on purpose here."""


class RecipeError(ImageError):
    """A recipe is missing or malformed."""


class BuildError(ImageError):
    """A step of a build failed; ``str()`` carries the last lines of its log and the log's path."""
