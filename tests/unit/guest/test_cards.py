import stat
from pathlib import Path

import pytest

from beamdesk.guest import cards


class Host:
    """Device files and sysfs in folders."""

    def __init__(self, folder):
        self.dev, self.sys = folder / "dev", folder / "sys"
        (self.dev / "dri").mkdir(parents=True)

    def node(self, name):
        (self.dev / name).touch()

    def card(self, render, driver, *, ours=True):
        device = self.sys / f"devices/pci/{render}"
        device.mkdir(parents=True)
        (self.sys / "drivers" / driver).mkdir(parents=True, exist_ok=True)
        (device / "driver").symlink_to(self.sys / "drivers" / driver)
        (self.sys / "class/drm" / render).mkdir(parents=True)
        (self.sys / "class/drm" / render / "device").symlink_to(device)
        if ours:
            self.node(f"dri/{render}")
        return device


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_nvidias_cards_are_numbered_by_their_files(host):
    for name in ("nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
        host.node(name)
    assert cards.nvidia_cards(host.dev) == (2, 10)


def test_a_card_of_mesa_is_found_with_its_driver(host):
    device = host.card("renderD128", "amdgpu")
    assert cards.render_nodes(host.dev, host.sys) == (cards.RenderNode(host.dev / "dri/renderD128", "amdgpu", device),)


def test_a_card_of_the_host_without_a_file_here_is_not_ours(host):
    host.card("renderD128", "amdgpu", ours=False)
    host.card("renderD129", "i915")
    assert [node.path.name for node in cards.render_nodes(host.dev, host.sys)] == ["renderD129"]


@pytest.mark.parametrize("driver", ["nvidia", "virtio_gpu", "vgem"])
def test_what_is_not_mesas_or_no_hardware_is_left_out(host, driver):
    host.card("renderD128", driver)
    assert cards.render_nodes(host.dev, host.sys) == ()


def test_a_desktop_without_devices_has_no_card(tmp_path):
    assert cards.nvidia_cards(tmp_path) == ()
    assert cards.render_nodes(tmp_path, tmp_path) == ()


class Device:
    """What stat(2) tells of a device file."""

    def __init__(self, mode, gid):
        self.st_mode, self.st_gid = mode, gid


@pytest.fixture
def modes(host, monkeypatch):
    """Makes device files with these modes and groups, which only the superuser could."""
    known = {}
    real = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **options: known.get(path.name) or real(path, **options))

    def make(name, mode, gid, kind=stat.S_IFCHR):
        host.node(name)
        known[name.rsplit("/", 1)[-1]] = Device(kind | mode, gid)

    return make


def test_the_groups_of_cards_are_the_persons(host, modes):
    modes("dri/renderD128", 0o660, 105)
    modes("kfd", 0o660, 105)
    modes("nvidia0", 0o660, 44)
    assert cards.groups(host.dev) == {44, 105}


@pytest.mark.parametrize(
    ("mode", "gid", "kind"),
    [
        (0o666, 105, stat.S_IFCHR),
        (0o600, 105, stat.S_IFCHR),
        (0o640, 105, stat.S_IFCHR),
        (0o660, 0, stat.S_IFCHR),
        (0o660, 105, stat.S_IFREG),
    ],
    ids=["open to all", "closed", "read only", "the superuser's", "no device"],
)
def test_no_group_is_given_away_that_opens_no_card(host, modes, mode, gid, kind):
    modes("dri/renderD128", mode, gid, kind)
    modes("dri/card0", 0o660, 44)
    modes("sda", 0o660, 6)
    assert cards.groups(host.dev) == frozenset()
