"""The layer with NVIDIA's driver: its script runs here with an installer of ours, and everything that it touches below a folder."""

import os
import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = (Path(__file__).parents[3] / "deploy/images/nvidia/setup.sh").read_text()
KERNEL = "6.1.0-40-amd64"
INSTALLER = """#!/bin/sh
printf '%s\\n' "$@" > {root}/installer
{more}
"""


class Image:
    """A root with two kernels; ``site`` is what the site has put into driver/."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("boot", "etc/modprobe.d", "etc/modules-load.d", "etc/udev/rules.d", "usr/bin", "var/tmp/nvidia", "stubs"):
            (root / folder).mkdir(parents=True)
        for name in (f"vmlinuz-{KERNEL}", f"initrd.img-{KERNEL}", "vmlinuz-6.1.0-40-cloud-amd64", "vmlinuz"):
            (root / "boot" / name).touch()
        for name in ("apt-get", "depmod", "update-initramfs", "systemctl"):
            self._program(root / "stubs" / name, f'#!/bin/sh\necho "{name} $*" >> {root}/calls\n')
        self.site = root / "var/tmp/nvidia"

    def driver(self, version: str = "550.163.01", more: str = "") -> None:
        (self.site / f"NVIDIA-Linux-x86_64-{version}.run").write_text(INSTALLER.format(root=self.root, more=more))

    def guest_driver(self) -> None:
        self.driver(more=f"touch {self.root}/usr/bin/nvidia-gridd; chmod +x {self.root}/usr/bin/nvidia-gridd")

    def set_up(self) -> subprocess.CompletedProcess[str]:
        script = re.sub(r"(?<![\w/.])/(boot|etc|usr/bin/nvidia-gridd|var/tmp)\b", rf"{self.root}/\1", SCRIPT)
        environment = {**os.environ, "PATH": f"{self.root}/stubs:{os.environ['PATH']}"}
        return subprocess.run(["bash", "-eu", "-c", script], capture_output=True, text=True, check=False, env=environment)

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def _program(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path)


def test_the_driver_is_made_for_the_kernel_with_graphics_which_is_the_one_that_boots(image):
    image.driver()
    assert image.set_up().returncode == 0
    assert f"--kernel-name={KERNEL}" in image.read("installer").splitlines()
    assert (image.root / "boot/vmlinuz").readlink() == Path(f"vmlinuz-{KERNEL}")
    assert (image.root / "boot/initrd.img").readlink() == Path(f"initrd.img-{KERNEL}")
    assert f"update-initramfs -u -k {KERNEL}" in image.read("calls")
    assert not image.site.exists()


def test_the_cards_files_are_made_without_a_set_uid_helper(image):
    image.driver()
    image.set_up()
    assert 'DRIVER=="nvidia"' in image.read("etc/udev/rules.d/70-nvidia.rules")
    assert "/usr/bin/nvidia-modprobe -c 0 -u" in image.read("etc/udev/rules.d/70-nvidia.rules")
    assert image.read("etc/modules-load.d/nvidia.conf").split() == ["nvidia", "nvidia-uvm"]


@pytest.mark.parametrize("versions", [(), ("550.163.01", "570.1")])
def test_without_exactly_one_driver_the_layer_is_not_made(image, versions):
    for version in versions:
        image.driver(version)
    result = image.set_up()
    assert result.returncode == 1
    assert "must have one NVIDIA-Linux-x86_64-*.run" in result.stderr
    assert not (image.root / "installer").exists()


@pytest.mark.parametrize("kind", ["open", "proprietary"])
def test_the_site_says_which_kind_of_modules(image, kind):
    image.driver()
    (image.site / "kernel-module-type").write_text(f"{kind}\n")
    assert image.set_up().returncode == 0
    assert f"--kernel-module-type={kind}" in image.read("installer").splitlines()


def test_a_driver_that_does_not_know_kinds_is_not_asked_for_one(image):
    image.driver()
    image.set_up()
    assert "kernel-module-type" not in image.read("installer")


def test_a_virtual_card_gets_its_licence(image):
    image.guest_driver()
    (image.site / "client_configuration_token_01.tok").write_text("token")
    (image.site / "gridd.conf").write_text("FeatureType=2\n")
    assert image.set_up().returncode == 0
    token = image.root / "etc/nvidia/ClientConfigToken/client_configuration_token_01.tok"
    assert (token.read_text(), oct(token.stat().st_mode & 0o777)) == ("token", "0o744")
    assert image.read("etc/nvidia/gridd.conf") == "FeatureType=2\n"
    assert "systemctl -q enable nvidia-gridd.service" in image.read("calls")


def test_a_whole_card_has_no_licence_to_get(image):
    image.driver()
    (image.site / "client_configuration_token_01.tok").write_text("token")
    image.set_up()
    assert not (image.root / "etc/nvidia").exists()
    assert "nvidia-gridd" not in image.read("calls")
