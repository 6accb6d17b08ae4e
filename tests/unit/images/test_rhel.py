"""The RHEL family: its kickstart as the installer's own parser reads it, and the archive that it unpacks."""

import re
import subprocess
import warnings
from pathlib import Path

import pytest
import yaml
from pykickstart.errors import KickstartError
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion

from beamdesk.adapters.local.images import python
from beamdesk.adapters.local.images.recipes import Recipes
from beamdesk.adapters.vmimage import archive
from beamdesk.guest import components
from beamdesk.guest.accounts import Person
from beamdesk.guest.encoder import SOFTWARE
from beamdesk.protocol.guest import Account, Identity, Stream

REPOSITORY = Path(__file__).parents[3]
IMAGES = REPOSITORY / "deploy/images"
KICKSTART = (IMAGES / "rhel/beamdesk.ks").read_text()
SETUP = (IMAGES / "rhel/setup.sh").read_text()
PERSON = Person("ada", 1000, 1000, Path("/home/ada"), Path("/run/beamdesk/ada"))
STREAM = Stream("tcp:127.0.0.1:8082", "token")
PACKAGE_OF = {
    "/usr/bin/Xvfb": "xorg-x11-server-Xvfb",
    "/usr/bin/dbus-daemon": "dbus-daemon",
    "/usr/bin/xfwm4": "xfwm4",
    "/usr/bin/xfdesktop": "xfdesktop",
    "/usr/bin/xfce4-panel": "xfce4-panel",
    "/usr/bin/xfsettingsd": "xfce4-settings",
    "/usr/bin/pulseaudio": "pulseaudio",
    "/opt/selkies/bin/python3": "python3.11",
}
DEBIAN_ONLY = ("Arc-Darker", "elementary-xfce", "DMZ-White", "Inter ", "x86_64-linux-gnu", "zathura.desktop")


def read(text):
    """Parse a kickstart as RHEL 9's installer does; what it calls deprecated is an error here."""
    handler = makeVersion("RHEL9")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        KickstartParser(handler, missingIncludeIsFatal=True).readKickstartFromString(text)
    return handler


def archive_files():
    recipes = Recipes(IMAGES, REPOSITORY / "src/beamdesk")
    layers = {layer.name: layer for layer in recipes.image("general").layers}
    return archive.files(recipes, layers["look"], layers["streaming"].venvs[0].requirements)


@pytest.fixture
def unpacked(tmp_path):
    archive.pack(archive_files(), tmp_path / "archive.tar.gz")
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["tar", "-xzf", tmp_path / "archive.tar.gz", "--no-same-owner", "-C", root], check=True)
    return root


def test_the_installer_of_rhel_9_understands_the_kickstart():
    handler = read(KICKSTART)
    assert handler.rootpw.lock
    assert not handler.rootpw.password
    assert handler.sshpw.dataList() == []
    assert handler.user.dataList() == []


@pytest.mark.parametrize(
    ("line", "instead"), [("timezone UTC --utc", "timezone UTC --utcc"), ("keyboard --vckeymap=us", "keybord us"), ("%end\n", "")]
)
def test_a_kickstart_with_a_mistake_is_refused(line, instead):
    assert line in KICKSTART
    with pytest.raises((KickstartError, Warning)):
        read(KICKSTART.replace(line, instead))


def test_the_label_of_a_file_system_is_short_enough_for_it():
    longest = {"xfs": 12, "ext4": 16}
    partitions = read(KICKSTART).partition.dataList()
    assert [part.mountpoint for part in partitions] == ["/"]
    assert all(len(part.label) <= longest[part.fstype] for part in partitions)


def test_the_installer_enables_no_unit_that_only_the_archive_has():
    own = {Path(name).name.removesuffix(".service") for name in archive_files() if name.startswith("etc/systemd/system/")}
    assert own == {"beamdesk-guest"}
    assert not own & set(read(KICKSTART).services.enabled)
    assert "systemctl enable beamdesk-guest.service" in SETUP


def test_every_program_that_the_agent_starts_is_installed():
    started = {item.command[0] for item in components.components(PERSON, STREAM, SOFTWARE)}
    packages = set(read(KICKSTART).packages.packageList)
    assert {PACKAGE_OF[program] for program in started} <= packages


def test_both_languages_of_the_desktop_have_their_locale():
    account = Account("ada", 1000, 1000, "Ada", (), "/home/ada")
    identities = [Identity("d1", "token", "t", account, (), STREAM, language) for language in ("en", "zh")]
    locales = {components.environment(PERSON, identity)["LANG"] for identity in identities}
    assert len(locales) == 2
    packages = read(KICKSTART).packages.packageList
    assert {f"glibc-langpack-{locale[:2]}" for locale in locales} <= set(packages)


def test_the_script_finds_archive_and_checksum_on_the_installers_command_line(tmp_path):
    command_line = tmp_path / "cmdline"
    command_line.write_text(
        "inst.ks=file:/beamdesk.ks beamdesk.archive=http://host/a.tar.gz beamdesk.sha256=0123abc console=ttyS0\n"
    )
    (function,) = re.findall(r"^option\(\) .*$", KICKSTART, re.MULTILINE)
    calls = "\n".join(f"option 'beamdesk\\.{name}'" for name in ("archive", "sha256", "x"))
    script = f"{function.replace('/proc/cmdline', str(command_line))}\n{calls}\n"
    said = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == "http://host/a.tar.gz\n0123abc\n"


def test_the_archive_has_agent_look_streaming_servers_lock_and_scripts(unpacked):
    names = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert names >= {
        "opt/beamdesk/lib/beamdesk/__init__.py",
        "opt/beamdesk/lib/beamdesk/guest/__main__.py",
        "opt/beamdesk/lib/beamdesk/protocol/guest.py",
        "etc/systemd/system/beamdesk-guest.service",
        "etc/pulse/beamdesk.pa",
        "etc/xdg/xfce4/xfconf/xfce-perchannel-xml/xfwm4.xml",
        "usr/share/icons/hicolor/scalable/apps/beamdesk.svg",
        "var/tmp/beamdesk/look.sh",
        "var/tmp/beamdesk/setup.sh",
        "var/tmp/beamdesk/requirements.lock",
    }
    assert not [name for name in names if name.endswith(".pyc")]
    assert (unpacked / "usr/local/lib/beamdesk/launchers").stat().st_mode & 0o111
    assert not (unpacked / "etc/pulse/beamdesk.pa").stat().st_mode & 0o111


def test_both_families_start_the_agent_the_same_way_but_for_the_python(unpacked):
    service = "etc/systemd/system/beamdesk-guest.service"
    ours = (IMAGES / "vm/files" / service).read_text()
    assert "ExecStart=/usr/bin/python3 " in ours
    assert (unpacked / service).read_text() == ours.replace("/usr/bin/python3 ", "/usr/bin/python3.11 ")


def test_cloud_init_has_the_same_to_do_on_both_families():
    ours = yaml.safe_load((IMAGES / "vm/files/etc/cloud/cloud.cfg.d/90_beamdesk.cfg").read_text())
    (text,) = re.findall(r"90_beamdesk\.cfg <<'CLOUD'\n(.*?)^CLOUD$", SETUP, re.MULTILINE | re.DOTALL)
    assert ours.pop("system_info") == {"network": {"renderers": ["networkd"]}}  # here NetworkManager has the network
    assert yaml.safe_load(text) == ours


def test_the_same_content_gives_the_same_archive(tmp_path):
    first = archive.pack(archive_files(), tmp_path / "one.tar.gz")
    assert archive.pack(archive_files(), tmp_path / "two.tar.gz") == first
    assert archive.pack(archive_files() | {"new": b""}, tmp_path / "three.tar.gz") != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.tar.gz", "three.tar.gz", "two.tar.gz"]


def test_nothing_that_only_debian_has_is_left_in_the_settings(unpacked):
    """Runs the part of the script that adapts the look, with every absolute path below the unpacked archive."""
    begin, end = SETUP.index("channels="), SETUP.index('bash -eu "$here/look.sh"')
    script = re.sub(r"(^channels=| )(/(?:etc|usr/local)/)", rf"\1{unpacked}\2", SETUP[begin:end], flags=re.MULTILINE)
    before = [name for name in DEBIAN_ONLY if any(name in text for text in settings(unpacked))]
    assert before == list(DEBIAN_ONLY)
    subprocess.run(["bash", "-eu", "-c", script], check=True)
    assert not [name for name in DEBIAN_ONLY if any(name in text for text in settings(unpacked))]


def settings(root):
    tops = (root / "etc", root / "usr/local")
    return [path.read_text() for top in tops for path in top.rglob("*") if path.is_file()]


def test_wheels_for_a_newer_c_library_than_the_systems_are_not_taken():
    assert python.platform_tags("x86_64", 34)[0] == "manylinux_2_34_x86_64"
    assert "manylinux_2_35_x86_64" not in python.platform_tags("x86_64", 34)
    assert {"manylinux_2_17_x86_64", "manylinux1_x86_64", "linux_x86_64"} <= set(python.platform_tags("x86_64", 34))
    assert "manylinux1_aarch64" not in python.platform_tags("aarch64", 34)
