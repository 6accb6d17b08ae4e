"""Recipes that are not run here (RHEL family, Windows, NVIDIA's driver): at least they are well formed and say nothing secret."""

import configparser
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from beamdesk.adapters.local.images.errors import RecipeError
from beamdesk.adapters.local.images.recipes import Recipes

REPOSITORY = Path(__file__).parents[3]
IMAGES = REPOSITORY / "deploy/images"
UNATTEND = "{urn:schemas-microsoft-com:unattend}"


def sections(kickstart):
    return re.findall(r"^%(?:packages|post|pre|end|addon)\b.*$", kickstart, re.MULTILINE)


def heredocs(text):
    return {path: body for path, _, body in re.findall(r"cat > (\S+) <<'(\w+)'\n(.*?)\n\2$", text, re.MULTILINE | re.DOTALL)}


@pytest.mark.parametrize("script", sorted(IMAGES.rglob("setup.sh")), ids=lambda path: path.parent.name)
def test_shells_understand_the_scripts(script):
    subprocess.run(["bash", "-n", script], check=True)


def test_every_section_of_the_kickstart_ends():
    found = sections((IMAGES / "rhel/beamdesk.ks").read_text())
    assert found
    assert all(end == "%end" and begin != "%end" for begin, end in zip(found[::2], found[1::2], strict=True))


def test_the_script_of_the_kickstart_is_a_script():
    body = re.search(r"^%post.*?\n(.*?)^%end", (IMAGES / "rhel/beamdesk.ks").read_text(), re.MULTILINE | re.DOTALL)
    subprocess.run(["bash", "-n"], input=body[1], text=True, check=True)


def test_both_linux_families_start_the_agent_the_same_way():
    ours = (IMAGES / "vm/files/etc/systemd/system/beamdesk-guest.service").read_text()
    theirs = heredocs((IMAGES / "rhel/beamdesk.ks").read_text())["/etc/systemd/system/beamdesk-guest.service"]
    plain = "\n".join(line for line in ours.splitlines() if not line.startswith("#"))
    assert plain.strip() == theirs.replace("python3.11 ", "python3 ").strip()


def test_the_answer_file_of_windows_is_well_formed_and_has_no_password_or_key():
    root = ET.parse(IMAGES / "windows/Autounattend.xml").getroot()
    assert root.tag == f"{UNATTEND}unattend"
    assert [part.get("pass") for part in root] == ["windowsPE", "specialize", "oobeSystem"]
    tags = {element.tag.removeprefix(UNATTEND) for element in root.iter()}
    assert not tags & {"Password", "AdministratorPassword", "ProductKey", "AutoLogon", "PlainText"}


def test_cloudbase_init_takes_no_commands_and_sets_no_password():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(IMAGES / "windows/cloudbase-init.conf")
    settings = parser.defaults()
    assert settings["inject_user_password"] == "false"
    assert settings["cloud_config_plugins"] == "write_files"
    plugins = {name.rsplit(".", 1)[1] for name in settings["plugins"].split(",")}
    assert plugins == {"NetworkConfigPlugin", "ExtendVolumesPlugin", "UserDataPlugin"}


def test_braces_and_quotes_of_the_windows_script_are_balanced():
    code = "\n".join(re.sub(r"(^|\s)#.*", "", line) for line in (IMAGES / "windows/setup.ps1").read_text().splitlines())
    outside = re.sub(r"'[^']*'|\"(?:`.|[^\"`])*\"", "", code)
    assert not set("'\"") & set(outside)
    for opening, closing in ("{}", "()"):
        assert outside.count(opening) == outside.count(closing)


def test_without_the_sites_driver_the_layer_says_what_is_missing():
    recipes = Recipes(IMAGES, REPOSITORY / "src/beamdesk")
    if (IMAGES / "nvidia/driver").exists():
        assert recipes.on_top("nvidia", "below").packages
    else:
        with pytest.raises(RecipeError, match="driver does not exist"):
            recipes.on_top("nvidia", "below")


def test_a_layer_on_top_follows_what_is_below_it():
    recipes = Recipes(IMAGES, REPOSITORY / "src/beamdesk")
    assert recipes.on_top("vm", "one").hash != recipes.on_top("vm", "other").hash
    assert recipes.on_top("vm", "one").hash == recipes.on_top("vm", "one").hash


@pytest.mark.parametrize("name", ["../vm", "", "none"])
def test_there_is_no_layer_on_top_by_a_strange_name(name):
    with pytest.raises(RecipeError):
        Recipes(IMAGES, REPOSITORY / "src/beamdesk").on_top(name, "below")


def test_a_first_start_builds_the_images_it_needs_only():
    recipes = Recipes(IMAGES, REPOSITORY / "src/beamdesk")
    assert recipes.default_ids() == ("general", "imaging")
    assert {"diffraction", "spectroscopy"} <= set(recipes.image_ids())
