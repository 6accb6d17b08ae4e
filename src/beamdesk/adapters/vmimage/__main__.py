"""Command line of the disk builder; see the package's docstring.

Exit codes: 0 done, 1 it failed (the cause is on stderr), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from beamdesk.adapters.local.images import chroot
from beamdesk.adapters.local.images.cache import Cache
from beamdesk.adapters.local.images.errors import ImageError
from beamdesk.adapters.local.images.progress import Progress
from beamdesk.adapters.local.images.recipes import Recipes
from beamdesk.adapters.vmimage import archive
from beamdesk.adapters.vmimage.build import DiskBuilder
from beamdesk.adapters.vmimage.upload import upload

_PACKAGE = Path(__file__).resolve().parents[2]
_RECIPES = _PACKAGE.parents[1] / "deploy" / "images"
_CACHE = Path("/var/cache/beamdesk/images")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "upload":
            print(upload(options.file, options.cloud, public=options.public))  # noqa: T201
        elif options.command == "archive":
            print(_archive(options))  # noqa: T201
        else:
            _build(options)
    except (ImageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _build(options: argparse.Namespace) -> None:
    recipes = Recipes(options.recipes, _PACKAGE)
    builder = DiskBuilder(recipes, Cache(options.cache), Progress(as_json=options.json))
    builder.build(options.image, options.out.absolute(), extra=tuple(options.extra), boot_files=options.kernel)


def _archive(options: argparse.Namespace) -> str:
    log = chroot.Log(options.out.with_name(f"{options.out.name}.log"))
    try:
        return archive.write(Recipes(options.recipes, _PACKAGE), options.out.absolute(), log)
    finally:
        log.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="beamdesk-vm-images", description="Build virtual machine images and upload them.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build the disk of an image")
    build.add_argument("image", help="an image of the recipes, such as general")
    build.add_argument("--out", type=Path, required=True, help="the qcow2 file to write")
    build.add_argument("--with", dest="extra", action="append", default=[], metavar="LAYER", help="a further layer, such as nvidia")
    build.add_argument("--kernel", action="store_true", help="write kernel and initramfs beside it, too")
    build.add_argument("--cache", type=Path, default=_CACHE, help=f"where layers are kept (default: {_CACHE})")
    build.add_argument("--recipes", type=Path, default=_RECIPES, help="folder of the recipes")
    build.add_argument("--json", action="store_true", help="report progress as one JSON object a line")
    pack = commands.add_parser("archive", help="pack what the kickstart of the RHEL family needs, and say its SHA-256")
    pack.add_argument("--out", type=Path, required=True, help="the tar.gz file to write; its log gets the suffix .log")
    pack.add_argument("--recipes", type=Path, default=_RECIPES, help="folder of the recipes")
    send = commands.add_parser("upload", help="upload a built disk to Glance")
    send.add_argument("file", type=Path, help="the qcow2 file")
    send.add_argument("--cloud", required=True, help="the cloud's name in clouds.yaml")
    send.add_argument("--public", action="store_true", help="for all projects (administrators only)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
