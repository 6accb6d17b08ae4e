"""What draws in a desktop of a real image, and who may open its cards. The machine has no card: its device file is ours."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from integration.guest.conftest import IMAGE
from integration.guest.container import Container, desktop

pytestmark = [pytest.mark.root, pytest.mark.desktop]
RENDER = 105
"""The group of the render node, as udev gives it."""
LIBRARIES = "/usr/lib/x86_64-linux-gnu"


@pytest.mark.parametrize("setting", ["env", "env -u LIBGL_ALWAYS_SOFTWARE"], ids=["told to", "not told to"])
def test_a_window_is_drawn_by_the_cpus(running: Container, setting: str) -> None:
    said = running.enter(["sh", "-c", f"{setting} glxinfo -B"])
    assert "OpenGL renderer string: llvmpipe" in said.stdout, said.stderr


def test_programs_draw_without_a_window(running: Container) -> None:
    said = running.enter(["eglinfo", "-B"]).stdout
    surfaceless = said.split("Surfaceless platform:")[1].split("platform:")[0]
    assert "EGL vendor string: Mesa Project" in surfaceless


def test_the_encoders_of_amd_and_intel_are_there(running: Container) -> None:
    wanted = [
        f"{LIBRARIES}/{name}" for name in ("libva.so.2", "libva-drm.so.2", "dri/radeonsi_drv_video.so", "dri/iHD_drv_video.so")
    ]
    assert running.enter(["ls", *wanted]).returncode == 0


@pytest.fixture
def with_node(tmp_path: Path) -> Callable[[int], AbstractContextManager[Container]]:
    """Starts a desktop that has a render node with this mode, of group ``RENDER``."""

    def start(mode: int) -> AbstractContextManager[Container]:
        node = tmp_path / "node"
        os.mknod(node, stat.S_IFCHR, os.makedev(1, 3))
        os.chown(node, 0, RENDER)
        node.chmod(mode)
        return desktop(tmp_path, IMAGE, binds=(f"--bind={node}:/dev/dri/renderD129",))

    return start


@pytest.mark.parametrize(("mode", "member"), [(0o660, True), (0o666, False)], ids=["the group's", "everybody's"])
def test_the_persons_programs_may_open_the_card(with_node: Callable, mode: int, member: bool) -> None:
    with with_node(mode) as container:
        container.api.wait_up()
        status = Path(f"/proc/{container.find('xfce4-panel')}/status").read_text()
        groups = next(line for line in status.splitlines() if line.startswith("Groups:")).split()[1:]
        assert (str(RENDER) in groups) is member
        as_they_are = ["setpriv", "--reuid=20001", "--regid=20001", f"--groups={','.join(groups)}", "--no-new-privs"]
        opened = container.enter([*as_they_are, "sh", "-c", ": <> /dev/dri/renderD129"], root=True)
        assert opened.returncode == 0, opened.stderr
