"""Command line of the image builder; see the package's docstring for what it leaves behind.

Exit codes: 0 all images are ready, 1 a build failed (the cause is on stderr), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .build import Builder
from .cache import Cache
from .errors import ImageError
from .progress import Progress
from .recipes import Recipes

_PACKAGE = Path(__file__).resolve().parents[3]
_RECIPES = _PACKAGE.parents[1] / "deploy" / "images"
_CACHE = Path("/var/cache/beamdesk/images")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    progress = Progress(as_json=options.json)
    recipes = Recipes(options.recipes, _PACKAGE)
    cache = Cache(options.cache)
    builder = Builder(recipes, cache, progress)
    images = tuple(options.images) or recipes.default_ids()
    try:
        return _COMMANDS[options.command](builder, cache, images)
    except ImageError as error:
        for image in images[:1]:
            progress.image(image, "failed", str(error).splitlines()[0])
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1


def _build(builder: Builder, _cache: Cache, images: tuple[str, ...]) -> int:
    builder.build(images)
    return 0


def _hash(builder: Builder, _cache: Cache, images: tuple[str, ...]) -> int:
    for image in images:
        print(image, builder.plan(image).hash)  # noqa: T201
    return 0


def _prune(builder: Builder, cache: Cache, _images: tuple[str, ...]) -> int:
    cache.prepare()
    with cache.locked(lambda: None):
        for layer in cache.prune(builder.used_layers()):
            print(f"removed layer {layer[:12]}")  # noqa: T201
    return 0


_COMMANDS = {"build": _build, "hash": _hash, "prune": _prune}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="beamdesk-images", description="Build the root file systems of desktops.")
    parser.add_argument(
        "command", choices=sorted(_COMMANDS), help="build what is missing, print content hashes, or remove unused layers"
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="images by name (default: those that a deployment starts with)")
    parser.add_argument("--cache", type=Path, default=_CACHE, help=f"where layers are kept (default: {_CACHE})")
    parser.add_argument("--recipes", type=Path, default=_RECIPES, help="folder of the recipes")
    parser.add_argument("--json", action="store_true", help="report progress as one JSON object a line")
    return parser


if __name__ == "__main__":
    sys.exit(main())
