import re
import shutil
import time
from pathlib import Path

import pytest

from beamdesk.adapters.local.images.errors import RecipeError
from beamdesk.adapters.local.images.recipes import Recipes

REPOSITORY = Path(__file__).parents[3]
IMAGE = """
layer = "top"
[title]
en = "T"
zh = "题"
[description]
en = "D"
zh = "述"
[[software]]
name = "Terminal"
command = "term"
icon = "terminal"
description = {en = "a", zh = "b"}
"""


@pytest.fixture
def folder(tmp_path):
    recipes = tmp_path / "images"
    for layer, text in {
        "base": 'suite = "bookworm"\npackages = ["python3"]',
        "top": 'parent = "base"\npackages = ["xvfb"]',
    }.items():
        (recipes / "layers" / layer / "files").mkdir(parents=True)
        (recipes / "layers" / layer / "layer.toml").write_text(text)
        (recipes / "layers" / layer / "files" / "motd").write_text(layer)
    (recipes / "one").mkdir()
    (recipes / "one" / "image.toml").write_text(IMAGE)
    package = tmp_path / "beamdesk"
    for name in ("guest", "protocol"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    return recipes


def recipes(folder):
    return Recipes(folder, folder.parent / "beamdesk")


def hashes(folder):
    return [layer.hash for layer in recipes(folder).image("one").layers]


def test_layers_run_from_the_top_to_the_base(folder):
    image = recipes(folder).image("one")
    assert [layer.name for layer in image.layers] == ["top", "base"]
    assert image.title == {"en": "T", "zh": "题"}
    assert image.software[0].command == "term"


def test_the_same_recipe_has_the_same_hash(folder):
    assert hashes(folder) == hashes(folder)


def test_a_copy_elsewhere_has_the_same_hash(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other" / "images")
    shutil.copytree(tmp_path / "beamdesk", tmp_path / "other" / "beamdesk")
    assert hashes(folder) == hashes(tmp_path / "other" / "images")


@pytest.mark.parametrize("change", ["content", "mode", "new", "name"])
def test_any_change_of_a_file_changes_the_hash(folder, change):
    before = hashes(folder)
    file = folder / "layers" / "top" / "files" / "motd"
    if change == "content":
        file.write_text("other")
    elif change == "mode":
        file.chmod(0o755)
    elif change == "new":
        (file.parent / "more").write_text("")
    else:
        file.rename(file.with_name("motd2"))
    after = hashes(folder)
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_a_change_below_changes_all_above(folder):
    before = hashes(folder)
    (folder / "layers" / "base" / "setup.sh").write_text("true")
    assert all(old != new for old, new in zip(before, hashes(folder), strict=True))


def test_caches_of_python_are_not_part_of_a_recipe(folder):
    before = recipes(folder).guest().hash
    cache = folder.parent / "beamdesk" / "guest" / "__pycache__"
    cache.mkdir()
    (cache / "x.cpython-311.pyc").write_bytes(b"x")
    assert recipes(folder).guest().hash == before


def test_the_guest_layer_follows_its_sources(folder):
    before = recipes(folder).guest().hash
    (folder.parent / "beamdesk" / "protocol" / "__init__.py").write_text("x = 1")
    assert recipes(folder).guest().hash != before


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("layers/top/layer.toml", 'parent = "top"', "loop"),
        ("layers/top/layer.toml", "packages = []", "either a parent layer or"),
        ("layers/top/layer.toml", "parent = ", "layer.toml"),
        ("layers/top/layer.toml", 'parent = "../../etc"', "not a layer name"),
        ("layers/top/layer.toml", 'parent = "base"\ncopies = [{source = "none", target = "/x"}]', "does not exist"),
        ("layers/top/layer.toml", 'parent = "base"\ncopies = [{source = ".", target = "/../x"}]', "without '..'"),
        ("one/image.toml", 'layer = "top"', "title"),
        ("one/image.toml", 'layer = "none"', "does not exist"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(folder, file, text, message):
    (folder / file).write_text(text)
    with pytest.raises(RecipeError, match=message):
        recipes(folder).image("one")


@pytest.mark.parametrize("name", ["none", "../one", "layers", ""])
def test_an_unknown_image_is_named_with_the_known_ones(folder, name):
    with pytest.raises(RecipeError, match="known are: one"):
        recipes(folder).image(name)


def test_the_recipes_of_this_repository_are_complete():
    real = Recipes(REPOSITORY / "deploy" / "images", REPOSITORY / "src" / "beamdesk")
    assert {"general", "imaging"} <= set(real.image_ids())
    for image_id in real.image_ids():
        image = real.image(image_id)
        assert image.layers[-1].suite == "bookworm"
        for software in image.software:
            assert (real.folder / "icons" / f"{software.icon}.svg").is_file()
        for layer in image.layers:
            for venv in layer.venvs:
                assert all(
                    line.startswith(("    --hash=", "#")) or "==" in line for line in venv.requirements.read_text().splitlines()
                )


def test_no_host_name_is_in_a_recipe():
    for path in (REPOSITORY / "deploy" / "images").rglob("*"):
        if path.is_file() and path.suffix not in {".svg", ".lock", ".run"}:
            text = re.sub(r"""xmlns(:\w+)?="[^"]*\"""", "", path.read_text())  # names, not addresses
            assert not re.search(r"(https?|ftp)://", text), path


def test_reading_is_quick_enough_for_every_start():
    began = time.process_time()
    real = Recipes(REPOSITORY / "deploy" / "images", REPOSITORY / "src" / "beamdesk")
    for image_id in real.image_ids():
        real.image(image_id)
    assert time.process_time() - began < 0.5


def test_links_are_hashed_as_links(folder):
    link = folder / "layers" / "top" / "files" / "link"
    link.symlink_to("motd")
    before = hashes(folder)
    link.unlink()
    link.symlink_to("/etc/passwd")
    assert hashes(folder)[0] != before[0]
