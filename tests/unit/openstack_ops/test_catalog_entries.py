"""Image properties and extra specs: what is offered, and that nothing malformed takes the rest with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamdesk.adapters.local.images.recipes import Recipes
from beamdesk.adapters.openstack.catalog_entries import aliases_of, gpus_of, read_flavors, read_images
from beamdesk.adapters.vmimage.properties import glance_properties
from beamdesk.domain.catalog import Image, Resources, Software
from beamdesk.domain.text import Text
from beamdesk.scheduling.vocabulary import Words

SOFTWARE = json.dumps([{"name": "silx view", "description": {"en": "Looks into files", "zh": "查看文件"}}])


def image(**more: Any) -> dict[str, Any]:
    return {
        "id": "6b2f",
        "name": "beamdesk-imaging-1",
        "status": "active",
        "created_at": "2026-01-01T00:00:00Z",
        "beamdesk_image": "imaging",
        "beamdesk_title_en": "Imaging beamline",
        "beamdesk_title_zh": "成像线站",
        **more,
    }


def flavor(**more: Any) -> dict[str, Any]:
    specs = {"beamdesk:title_en": "Medium", "beamdesk:title_zh": "中型", **more.pop("extra_specs", {})}
    return {"id": "f1", "name": "medium", "vcpus": 4, "ram": 8192, "disk": 20, "extra_specs": specs, **more}


def reasons(entry: dict[str, Any]) -> list[str]:
    read = read_flavors if "vcpus" in entry else read_images
    offered, left = read([entry])
    assert not offered
    return [one.reason for one in left]


def test_image_and_flavor_say_what_they_ask_of_a_host() -> None:
    (offered,), _ = read_images([image(beamdesk_gpu_memory_mib="40000")])
    assert offered.words == Words(gpu_memory_mib=40000)
    specs = {"pci_passthrough:alias": "gpu:2", "beamdesk:gpus": "2", "beamdesk:aggregates": "B7"}
    (size,), _ = read_flavors([flavor(extra_specs=specs)])
    assert size.words == Words(gpus=2, aggregates=frozenset({"B7"}))


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (image(beamdesk_gpu_memry_mib="40000"), "Did you mean"),
        (flavor(extra_specs={"beamdesk:gpu_memory_mib": "a lot"}), "whole number"),
        (flavor(extra_specs={"beamdesk:gpu_models": "A100"}), "beamdesk:gpus is 0"),
        (flavor(extra_specs={"beamdesk:gpu_share": "500", "pci_passthrough:alias": "gpu:2"}), "share of one card"),
    ],
)
def test_an_entry_that_misuses_the_schedulers_words_is_left_out_with_the_reason(entry: dict[str, Any], says: str) -> None:
    assert says in reasons(entry)[0]


def test_an_image_says_everything_by_its_properties() -> None:
    offered, left = read_images(
        [
            image(
                beamdesk_description_en="Tomography",
                beamdesk_description_zh="断层",
                beamdesk_software=SOFTWARE,
                beamdesk_beamlines="B7, B8",
            )
        ]
    )
    assert not left
    assert offered == (
        Image(
            id="imaging",
            ref="6b2f",
            title=Text("Imaging beamline", "成像线站"),
            description=Text("Tomography", "断层"),
            software=(Software("silx view", Text("Looks into files", "查看文件")),),
            beamlines=frozenset({"B7", "B8"}),
        ),
    )


def test_beamlines_may_be_a_json_list() -> None:
    assert read_images([image(beamdesk_beamlines='["B7", "B8"]')])[0][0].beamlines == {"B7", "B8"}


def test_a_missing_translation_is_english() -> None:
    assert read_images([image(beamdesk_title_zh="")])[0][0].title.zh == "Imaging beamline"


def test_images_of_others_are_no_business_of_ours() -> None:
    assert read_images([{"id": "1", "name": "ubuntu", "status": "active"}]) == ((), ())


def test_a_snapshot_of_a_desktop_is_not_an_offer() -> None:
    assert read_images([image(image_type="snapshot")]) == ((), ())


def test_the_newest_of_one_name_is_on_offer() -> None:
    old, new = image(), image(id="7c30", created_at="2026-02-01T00:00:00Z")
    offered, left = read_images([old, new])
    assert [one.ref for one in offered] == ["7c30"]
    assert [(one.ref, one.reason) for one in left] == [("6b2f", "a newer image of the name imaging is on offer (7c30)")]


def test_a_newer_image_that_is_not_ready_does_not_hide_the_old_one() -> None:
    offered, left = read_images([image(), image(id="7c30", created_at="2026-02-01T00:00:00Z", status="saving")])
    assert [one.ref for one in offered] == ["6b2f"]
    assert [one.reason for one in left] == ["its status is saving, not active"]


def test_order_goes_before_the_name() -> None:
    entries = [image(id="1", beamdesk_image="a"), image(id="2", beamdesk_image="b", beamdesk_order="10")]
    assert [one.id for one in read_images(entries)[0]] == ["b", "a"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"beamdesk_image": "two words"}, "beamdesk_image must be"),
        ({"beamdesk_image": "../etc"}, "beamdesk_image must be"),
        ({"beamdesk_title_en": " "}, "beamdesk_title_en is missing"),
        ({"beamdesk_title_en": "a\x1b[31mb"}, "control characters"),
        ({"beamdesk_title_zh": "a\u202eb"}, "control characters"),
        ({"beamdesk_title_en": "x" * 81}, "longer than 80"),
        ({"beamdesk_description_en": 7}, "must be text"),
        ({"beamdesk_software": "[{"}, "not valid JSON"),
        ({"beamdesk_software": "[" * 50_000}, "not valid JSON"),
        ({"beamdesk_software": '{"name": "x"}'}, "must be a JSON list"),
        ({"beamdesk_software": '["x"]'}, "entry 1: must be an object"),
        ({"beamdesk_software": '[{"description": {"en": "x"}}]'}, "entry 1: has no name"),
        ({"beamdesk_software": '[{"name": "x", "description": {"en": 1}}]'}, "must be text"),
        ({"beamdesk_software": json.dumps([{"name": "x"}] * 101)}, "at most 100 entries"),
        ({"beamdesk_beamlines": "B7,,B8"}, "beamdesk_beamlines must be"),
        ({"beamdesk_order": "first"}, "beamdesk_order must be"),
        ({"status": "queued"}, "its status is queued"),
    ],
)
def test_a_malformed_image_is_left_out_with_its_reason(wrong: dict[str, Any], reason: str) -> None:
    assert [reason in said for said in reasons(image(**wrong))] == [True]


def test_a_malformed_image_leaves_the_others_on_offer() -> None:
    offered, left = read_images([image(id="1", beamdesk_image="a", beamdesk_software="{"), image(id="2", beamdesk_image="b")])
    assert [one.id for one in offered] == ["b"]
    assert [one.ref for one in left] == ["1"]


properties = st.sampled_from(["image", "title_en", "title_zh", "description_en", "software", "beamlines", "order"])
values = st.one_of(
    st.none(), st.text(), st.integers(), st.booleans(), st.lists(st.text()), st.sampled_from(["[]", "[1]", "[{}]", "[null]"])
)


@given(
    st.dictionaries(properties.map("beamdesk_{}".format), values),
    st.dictionaries(st.sampled_from(["id", "name", "created_at", "status"]), values),
)
def test_no_property_breaks_the_list(said: dict[str, Any], more: dict[str, Any]) -> None:
    offered, _ = read_images([image(id="good", beamdesk_image="good"), {**image(id="odd"), **said, **more}])
    assert "good" in {one.id for one in offered} or said.get("beamdesk_image") == "good"


def test_a_flavor_with_our_title_is_on_offer_by_its_name() -> None:
    offered, _ = read_flavors([flavor()])
    assert [(one.id, one.title, one.resources) for one in offered] == [
        ("medium", Text("Medium", "中型"), Resources(4, 8192, 20, 0))
    ]


def test_a_flavor_can_have_a_name_of_its_own_in_the_catalogue() -> None:
    assert [one.id for one in read_flavors([flavor(extra_specs={"beamdesk:flavor": "m"})])[0]] == ["m"]
    assert [one.id for one in read_flavors([flavor()], {"small": "medium"})[0]] == ["small"]


def test_two_flavors_of_one_name_are_one_offer_and_a_reason() -> None:
    offered, left = read_flavors([flavor(), flavor(id="f2", name="other", extra_specs={"beamdesk:flavor": "medium"})])
    assert [one.id for one in offered] == ["medium"]
    assert [(one.name, one.reason) for one in left] == [("other", "another flavor has the name medium too")]


def test_flavors_of_others_are_not_on_offer() -> None:
    assert read_flavors([{"id": "1", "name": "m1.tiny", "vcpus": 1, "ram": 512, "disk": 1, "extra_specs": {}}]) == ((), ())


def test_flavors_come_smallest_first_and_gpus_last() -> None:
    gpu = flavor(name="gpu", vcpus=1, extra_specs={"resources:VGPU": "1"})
    assert [one.id for one in read_flavors([gpu, flavor(name="large", vcpus=8), flavor()])[0]] == ["medium", "large", "gpu"]


@pytest.mark.parametrize(
    ("specs", "gpus"),
    [
        ({}, 0),
        ({"pci_passthrough:alias": "a100:2"}, 2),
        ({"pci_passthrough:alias": "a100"}, 1),
        ({"pci_passthrough:alias": "a100:2, t4:1"}, 3),
        ({"resources:VGPU": "1"}, 1),
        ({"resources1:VGPU": "1", "resources2:VGPU": "1"}, 2),
        ({"resources:CUSTOM_GPU": "4"}, 4),
        ({"resources:CUSTOM_PCI_10DE_20B5": "1"}, 1),
        ({"resources:CUSTOM_FPGA": "1"}, 0),
        ({"resources:CUSTOM_BEAMDESK_GPU": "1", "pci_passthrough:alias": "a100:1", "beamdesk:gpus": "1"}, 1),
        ({"resources:CUSTOM_BEAMDESK_GPU": "2"}, 2),
        ({"resources:VCPU": "0", "trait:CUSTOM_GPU_MODEL_A100": "required"}, 0),
        ({"pci_passthrough:alias": "a100:1", "beamdesk:gpus": "1"}, 1),
    ],
)
def test_gpus_are_counted_from_what_brings_them(specs: dict[str, str], gpus: int) -> None:
    assert gpus_of(specs) == gpus


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"extra_specs": {"beamdesk:gpus": "2"}}, "beamdesk:gpus says 2, but"),
        ({"extra_specs": {"pci_passthrough:alias": "a100:many"}}, "must be a number"),
        ({"extra_specs": {"pci_passthrough:alias": ":1"}}, "empty name"),
        ({"extra_specs": {"resources:VGPU": "-1"}}, "must be a number"),
        ({"extra_specs": {"beamdesk:title_en": ""}}, "beamdesk:title_en is missing"),
        ({"name": "with space"}, "its name must be"),
        ({"OS-FLV-DISABLED:disabled": True}, "it is disabled"),
        ({"ram": "much"}, "not a number"),
    ],
)
def test_a_malformed_flavor_is_left_out_with_its_reason(wrong: dict[str, Any], reason: str) -> None:
    assert [reason in said for said in reasons(flavor(**wrong))] == [True]


def test_one_alias_named_twice_adds_up() -> None:
    assert aliases_of({"pci_passthrough:alias": "t4:1,t4:2"}) == {"t4": 3}


@pytest.mark.parametrize("name", ["general", "imaging"])
def test_what_the_image_builder_uploads_is_understood(name: str) -> None:
    root = Path(__file__).parents[3]
    recipe = Recipes(root / "deploy/images", root / "src/beamdesk").image(name)
    offered, left = read_images([{"id": "1", "status": "active", **glance_properties(recipe, "abc")}])
    assert not left
    assert offered[0].title == Text(recipe.title["en"], recipe.title["zh"])
    assert [one.name for one in offered[0].software] == [one.name for one in recipe.software]
    assert all(one.description.zh for one in offered[0].software)
    assert offered[0].beamlines == set(recipe.beamlines)
