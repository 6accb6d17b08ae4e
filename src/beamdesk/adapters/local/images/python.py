"""Python packages for images: wheels are fetched by the host's pip as the host configures it, and installed inside without network.

Requirements are pinned with hashes, so it does not matter which mirror the host uses, and nothing of the host's configuration
reaches the image.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from . import chroot
from .errors import BuildError
from .recipes import Venv

_GLIBC_DEBIAN = 36
"""Debian 12 has glibc 2.36; wheels for that or any older one run, down to the first with this name:"""
_GLIBC_FIRST = 5
_WHEELS = "var/tmp/wheels"


def host_pip() -> list[str]:
    """Return the command of a pip on this host.

    Raises:
        BuildError: there is none.
    """
    said = ""
    for interpreter in filter(os.path.exists, (sys.executable, "/usr/bin/python3")):
        command = [interpreter, "-m", "pip"]
        tried = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            return command
        said = (tried.stderr.strip().splitlines() or [f"it ended with status {tried.returncode}"])[-1]
    raise BuildError(f"images with Python packages need pip on this host; install the package python3-pip ({said})")


def fetch(log: chroot.Log, requirements: Path, python_version: str, target: Path, *, newest_glibc: int = _GLIBC_DEBIAN) -> None:
    """Download exactly the wheels of ``requirements`` into ``target``.

    Args:
        log: gets pip's output.
        requirements: lock file with checksums.
        python_version: the image's, such as ``"3.11"``.
        target: an empty folder.
        newest_glibc: the image's C library is 2.``newest_glibc``.

    Raises:
        BuildError: a wheel is nowhere to be had, or there is no pip.
    """
    short = python_version.replace(".", "")
    command = [
        *host_pip(),
        "download",
        "--quiet",
        "--no-input",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
        "--implementation=cp",
    ]
    command += [
        f"--python-version={python_version}",
        f"--abi=cp{short}",
        "--abi=abi3",
        "--abi=none",
        *(f"--platform={tag}" for tag in platform_tags(platform.machine(), newest_glibc)),
    ]
    # pip's own settings (index, proxy, certificates) come from the host's configuration and environment
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    chroot.run(log, "fetching Python packages", [*command, "--dest", str(target), "--requirement", str(requirements)], env=env)


def platform_tags(machine: str, newest_glibc: int) -> list[str]:
    """Return the platforms whose wheels run on ``machine`` with glibc 2.``newest_glibc``, the best first."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(newest_glibc, _GLIBC_FIRST - 1, -1)]
    tags += [f"manylinux2014_{machine}", f"linux_{machine}"]
    return [*tags, "manylinux2010_x86_64", "manylinux1_x86_64"] if machine == "x86_64" else tags


def install(log: chroot.Log, root: Path, venv: Venv, wheels: Path) -> None:
    """Make ``venv`` inside ``root`` from the fetched ``wheels``; modules are compiled, pip itself stays out."""
    inside = f"/{_WHEELS}"
    chroot.bind(wheels, root / _WHEELS)
    try:
        shutil.copyfile(venv.requirements, wheels / "requirements.lock")
        options = ["--system-site-packages"] if venv.system_site_packages else []
        chroot.run_inside(log, f"making {venv.path}", root, ["python3", "-m", "venv", "--without-pip", *options, venv.path])
        (pip,) = (root / "usr/share/python-wheels").glob("pip-*.whl")
        command = [
            f"{venv.path}/bin/python3",
            f"/{pip.relative_to(root)}/pip",
            "--isolated",
            "install",
            "--no-index",
            "--no-deps",
            "--require-hashes",
        ]
        command += ["--quiet", "--no-compile", "--no-warn-script-location", "--root-user-action=ignore", "--find-links", inside]
        chroot.run_inside(log, f"installing into {venv.path}", root, [*command, "--requirement", f"{inside}/requirements.lock"])
        compile_tree(log, root, f"{venv.path}/lib")
    finally:
        chroot.unmount(root / _WHEELS)
        (root / _WHEELS).rmdir()


def compile_tree(log: chroot.Log, root: Path, path: str) -> None:
    """Byte-compile the modules below ``path`` with the root's Python; they are never checked again, which saves start-up time."""
    command = ["python3", "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", path]
    # packages may carry templates or code for other Pythons that do not compile: they stay as source
    chroot.run_inside(log, f"compiling {path}", root, ["sh", "-c", '"$@" || true', "sh", *command])


def version_inside(root: Path) -> str:
    """Return the Python version of ``root`` as ``"3.11"``."""
    return (root / "usr/bin/python3").readlink().name.removeprefix("python")
