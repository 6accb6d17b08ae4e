"""The catalogue file, as the image builder writes it."""

import json

import pytest
from structlog.testing import capture_logs

from apikit import FLAVORS
from beamdesk.adapters.catalog import FileCatalog
from beamdesk.domain.errors import ConfigurationError
from beamdesk.domain.text import Text
from beamdesk.scheduling.vocabulary import Words

pytestmark = pytest.mark.anyio
ENTRY = {
    "id": "imaging",
    "hash": "a" * 64,
    "title": {"en": "Imaging", "zh": "成像"},
    "description": {"en": "d", "zh": "d"},
    "beamlines": ["B7"],
    "software": [{"name": "silx view", "command": "silx view", "icon": "silx", "description": {"en": "s", "zh": "s"}}],
    "size_bytes": 1,
}


def publish(path, *entries):
    path.with_suffix(".new").write_text(json.dumps({"format": 1, "images": entries}))
    path.with_suffix(".new").replace(path)


async def test_images_are_those_that_are_built(tmp_path):
    publish(tmp_path / "catalog.json", ENTRY)
    (image,) = await FileCatalog(tmp_path / "catalog.json", FLAVORS).images()
    assert (image.id, image.ref, image.title, image.beamlines) == ("imaging", "a" * 64, Text("Imaging", "成像"), {"B7"})
    assert [one.name for one in image.software] == ["silx view"]


async def test_a_new_catalogue_is_noticed(tmp_path):
    catalog = FileCatalog(tmp_path / "catalog.json", FLAVORS)
    assert await catalog.images() == ()
    publish(tmp_path / "catalog.json", ENTRY)
    assert len(await catalog.images()) == 1
    publish(tmp_path / "catalog.json", ENTRY, ENTRY | {"id": "general"})
    assert len(await catalog.images()) == 2
    (tmp_path / "catalog.json").unlink()
    assert await catalog.images() == ()


async def test_an_image_says_what_it_asks_of_a_card(tmp_path):
    publish(tmp_path / "catalog.json", ENTRY | {"words": {"gpu_memory_mib": "40000", "image_required": "true"}})
    (image,) = await FileCatalog(tmp_path / "catalog.json", FLAVORS).images()
    assert image.words == Words(gpu_memory_mib=40000, image_required=True)


async def test_an_image_with_a_misspelt_word_is_left_out_and_the_log_names_both(tmp_path):
    wrong = ENTRY | {"id": "wrong", "words": {"gpu_memry_mib": "40000"}}
    publish(tmp_path / "catalog.json", wrong, ENTRY)
    with capture_logs() as told:
        images = await FileCatalog(tmp_path / "catalog.json", FLAVORS).images()
    assert [one.id for one in images] == ["imaging"]
    assert [(one["name"], "Did you mean beamdesk:gpu_memory_mib" in one["reason"]) for one in told] == [("wrong", True)]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"format": 2}',
        '{"format": 1}',
        '{"format": 1, "images": [{}]}',
        '{"format": 1, "images": 5}',
        '{"format": 1, "images": ["x"]}',
    ],
)
async def test_a_damaged_catalogue_names_the_file(tmp_path, content):
    (tmp_path / "catalog.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"catalog\.json"):
        await FileCatalog(tmp_path / "catalog.json", FLAVORS).images()


async def test_flavors_come_smallest_first(tmp_path):
    flavors = await FileCatalog(tmp_path / "catalog.json", FLAVORS[::-1]).flavors()
    assert [flavor.id for flavor in flavors] == ["small", "medium", "huge", "gpu.small"]
