import dataclasses
import json
import threading

import pytest

from beamdesk.adapters.local.images.cache import Cache, drop_set_id, tree_size
from beamdesk.adapters.local.images.recipes import Image, Software

IMAGE = Image(
    "one", 5, (), {"en": "T", "zh": "题"}, {"en": "D", "zh": "述"}, ("B7",), (Software("n", "c", "i", {"en": "a", "zh": "b"}),)
)


@pytest.fixture
def cache(tmp_path):
    cache = Cache(tmp_path / "cache")
    cache.prepare()
    return cache


def publish(cache, name, content="x"):
    root = cache.begin_layer(name) / "upper"
    root.mkdir()
    (root / "file").write_text(content)
    return cache.publish_layer(name, root)


def test_a_layer_is_there_only_when_published(cache):
    folder = cache.begin_layer("aa")
    assert not cache.has_layer("aa")
    (folder / "upper").mkdir()
    cache.publish_layer("aa", folder / "upper")
    assert cache.has_layer("aa")
    assert cache.layer_size("aa") == tree_size(cache.layers / "aa")


def test_an_image_lists_its_layers_topmost_first_with_absolute_paths(cache):
    publish(cache, "aa")
    publish(cache, "bb")
    cache.publish_image("ff", ("bb", "aa"))
    index = json.loads((cache.index / "ff.json").read_text())
    assert index == {"layers": [str(cache.layers / "bb"), str(cache.layers / "aa")]}
    assert cache.has_image("ff", ("bb", "aa"))


def test_an_image_whose_layer_is_gone_is_not_there(cache):
    publish(cache, "aa")
    cache.publish_image("ff", ("aa",))
    (cache.layers / "aa").rename(cache.layers / "zz")
    assert not cache.has_image("ff", ("aa",))


def test_nobody_but_root_may_look_into_layers(cache):
    assert cache.layers.stat().st_mode & 0o777 == 0o700
    assert cache.index.stat().st_mode & 0o777 == 0o755


def test_the_catalogue_is_written_once_and_in_order(cache):
    publish(cache, "aa")
    later = dataclasses.replace(IMAGE, id="two", order=9)
    entries = [(later, "ee", ("aa",)), (IMAGE, "ff", ("aa",))]
    assert cache.publish_catalog(entries)
    assert not cache.publish_catalog(entries)
    catalog = json.loads((cache.folder / "catalog.json").read_text())
    assert [image["id"] for image in catalog["images"]] == ["one", "two"]
    first = catalog["images"][0]
    assert first["title"] == {"en": "T", "zh": "题"}
    assert first["software"] == [{"name": "n", "command": "c", "icon": "i", "description": {"en": "a", "zh": "b"}}]
    assert first["size_bytes"] > 0


def test_set_id_bits_do_not_survive(tmp_path):
    (tmp_path / "su").write_text("")
    (tmp_path / "su").chmod(0o6755)
    (tmp_path / "link").symlink_to("su")
    assert drop_set_id(tmp_path) == 1
    assert (tmp_path / "su").stat().st_mode & 0o7777 == 0o755


def test_pruning_keeps_what_is_used(cache):
    for name in ("aa", "bb"):
        publish(cache, name)
    cache.publish_image("ff", ("aa",))
    cache.publish_image("ee", ("bb", "aa"))
    assert cache.prune(frozenset({"aa"})) == ("bb",)
    assert cache.has_image("ff", ("aa",))
    assert not (cache.index / "ee.json").exists()
    assert {path.name for path in cache.layers.iterdir()} == {"aa", "aa.size"}
    assert not list(cache.work.glob("pruned*"))


def test_a_second_builder_waits_and_says_so(cache):
    said = []
    first_has_it, first_may_go = threading.Event(), threading.Event()

    def first():
        with cache.locked(lambda: None):
            first_has_it.set()
            first_may_go.wait(5)

    thread = threading.Thread(target=first)
    thread.start()
    first_has_it.wait(5)

    def waiting():
        said.append("waiting")
        first_may_go.set()

    with cache.locked(waiting):
        assert said == ["waiting"]
    thread.join()


def test_leftovers_of_a_killed_build_are_removed(cache):
    (cache.begin_layer("aa") / "half").write_text("x")
    cache.clear_work()
    assert not list(cache.work.iterdir())
