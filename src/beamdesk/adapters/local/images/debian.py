"""Debian packages: the base by mmdebstrap, further packages by the root's own apt.

Mirrors are the host's, where its apt is configured for the suite; no mirror is named here.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from . import chroot
from .recipes import Layer

_APT = ('APT::Install-Recommends "false"', 'Acquire::Languages "none"')
_LISTS = Path("var/lib/apt/lists")
_ARCHIVES = Path("var/cache/apt/archives")


def host_sources(suite: str) -> list[str]:
    """Return apt lines for ``suite`` as this host is configured, or none where it knows no such Debian suite."""
    try:
        listing = subprocess.run(
            [
                "apt-get",
                "indextargets",
                "--format",
                "$(ORIGIN)|$(CODENAME)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)",
                "Created-By: Packages",
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return sources_from(listing, suite)


def sources_from(listing: str, suite: str) -> list[str]:
    """Turn the output of ``apt-get indextargets`` into apt lines for the suite, its updates and security."""
    wanted = {suite, f"{suite}-updates", f"{suite}-security"}
    lines: dict[str, None] = {}
    names = set()
    for line in listing.splitlines():
        origin, codename, uri, release, component, signed_by = (*line.split("|"), "", "", "", "", "")[:6]
        if origin == "Debian" and codename in wanted and component == "main" and uri.startswith(("http:", "https:")):
            options = f"[signed-by={signed_by}] " if signed_by.startswith("/") else ""
            lines[f"deb {options}{uri} {release} main"] = None
            names.add(codename)
    return list(lines) if suite in names else []


def bootstrap(log: chroot.Log, layer: Layer, target: Path) -> None:
    """Make the root file system of the root layer in ``target``."""
    packages = ",".join(layer.packages)
    options = [f"--dpkgopt={item}" for item in layer.dpkg] + [f"--aptopt={item}" for item in (*_APT, *layer.apt)]
    # an old signature on an otherwise valid snapshot mirror is the host administrator's decision, so it is taken over
    options += [f"--aptopt={item}" for item in _host_validity()]
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", f"--include={packages}", *options]
    # keep the folder itself as Debian's own root has it: mmdebstrap refuses a target that is not empty
    chroot.run(log, "mmdebstrap", [*command, layer.suite, str(target), *host_sources(layer.suite)])


def _host_validity() -> list[str]:
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    return [
        line.rstrip(";") for line in dump.splitlines() if line.startswith(("Acquire::Check-Valid-Until ", "Acquire::Check-Date "))
    ]


def install(
    log: chroot.Log, layer: Layer, root: Path, shared: Path, say: Callable[[str], None], tick: Callable[[str], None]
) -> None:
    """Install the layer's packages with the apt inside ``root``; ``shared`` keeps package lists and archives for one build."""
    for name in (_LISTS, _ARCHIVES):
        (shared / name / "partial").mkdir(parents=True, exist_ok=True)
        chroot.bind(shared / name, root / name)
    resolver = root / "etc/resolv.conf"
    had_resolver = resolver.exists() or resolver.is_symlink()
    if not had_resolver:
        shutil.copyfile("/etc/resolv.conf", resolver)
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    policy.chmod(0o755)
    apt = ["apt-get", "-o", "APT::Sandbox::User=root", "-o", "Dpkg::Use-Pty=0", "-y", "--no-install-recommends"]
    try:
        if not any((shared / _LISTS).glob("*Packages*")):
            say("reading package lists")
            chroot.run_inside(log, "apt-get update", root, [*apt, "-o", "APT::Update::Error-Mode=any", "update"], network=True)
        counter = _Counter(tick)
        plan = [*apt, "-s", "install", *layer.packages]
        chroot.run_inside(log, "apt-get", root, plan, network=True, on_line=counter.plan)
        say(f"installing {counter.total} packages")
        chroot.run_inside(log, "apt-get install", root, [*apt, "install", *layer.packages], network=True, on_line=counter.advance)
    finally:
        policy.unlink()
        if not had_resolver:
            resolver.unlink()
        for name in (_ARCHIVES, _LISTS):
            chroot.unmount(root / name)


class _Counter:
    """Counts packages in apt's output."""

    def __init__(self, tick: Callable[[str], None]) -> None:
        self.total = 0
        self._done = 0
        self._tick = tick

    def plan(self, line: str) -> None:
        self.total += line.startswith("Inst ")

    def advance(self, line: str) -> None:
        if line.startswith("Get:"):
            self._tick(f"downloading {self.total} packages")
        elif line.startswith(("Unpacking ", "Setting up ")):
            self._done += 1
            self._tick(f"installing {self.total} packages, {50 * self._done // max(self.total, 1)} %")
