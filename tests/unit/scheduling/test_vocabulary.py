"""Requests and the words in which they are made: what contradicts itself is refused, with the reason."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamdesk.scheduling.errors import InvalidRequest
from beamdesk.scheduling.request import CardDemand, NumaRule, Request
from beamdesk.scheduling.vocabulary import NAMES, Words, combine, from_extra_specs, parse, write


def made(flavor: dict[str, str], **more: object) -> Request:
    return from_extra_specs("d-1", vcpus=4, memory_mib=8192, flavor=flavor, **more)


def test_a_flavor_without_our_words_asks_for_no_card() -> None:
    assert made({"hw:cpu_policy": "dedicated"}) == Request("d-1", 4000, 8192)


def test_words_of_the_catalogue_ask_for_nothing() -> None:
    assert made({"beamdesk:title_en": "GPU", "beamdesk:title_zh": "GPU"}) == Request("d-1", 4000, 8192)


def test_every_word_arrives_in_the_request() -> None:
    request = made(
        {
            "beamdesk:gpus": "2",
            "beamdesk:gpu_models": "A10 | A100",
            "beamdesk:gpu_memory_mib": "24576",
            "beamdesk:gpu_cores": "6000",
            "beamdesk:gpu_bandwidth_gbs": "500",
            "beamdesk:gpu_clock_mhz": "1400",
            "beamdesk:numa": "strict",
            "beamdesk:aggregates": "B7|B8",
            "beamdesk:image_required": "true",
        },
        image_ref="imaging",
    )
    assert request.cards == CardDemand(
        2, models=frozenset({"A10", "A100"}), memory_mib=24576, cores=6000, bandwidth_gbs=500, clock_mhz=1400
    )
    assert (request.numa, request.aggregates, request.image_required) == (NumaRule.STRICT, frozenset({"B7", "B8"}), True)


def test_a_profile_alone_means_one_of_it() -> None:
    assert made({"beamdesk:gpu_profile": "1g.5gb"}).cards == CardDemand(1, profile="1g.5gb")


def test_a_share_is_for_containers_only() -> None:
    assert made({"beamdesk:gpu_share": "250"}, container=True).cards == CardDemand(1, share=250, container=True)
    with pytest.raises(InvalidRequest, match="Only containers"):
        made({"beamdesk:gpu_share": "250"})


def test_image_and_hints_narrow_the_flavor() -> None:
    flavor = {"beamdesk:gpus": "1", "beamdesk:gpu_memory_mib": "16384", "beamdesk:gpu_models": "T4|A10"}
    request = made(flavor, image={"beamdesk_gpu_memory_mib": "24576"}, hints={"beamdesk_gpu_models": "A10|A100"})
    assert request.cards == CardDemand(1, memory_mib=24576, models=frozenset({"A10"}))


@pytest.mark.parametrize(
    ("specs", "says"),
    [
        ({"beamdesk:gpu_memroy_mib": "1"}, "Did you mean beamdesk:gpu_memory_mib"),
        ({"beamdesk:colour": "1"}, "Unknown extra spec beamdesk:colour"),
        ({"beamdesk:gpus": "-1"}, "whole number"),
        ({"beamdesk:gpus": "nan"}, "whole number"),
        ({"beamdesk:gpus": "1.5"}, "whole number"),
        ({"beamdesk:gpus": "٣"}, "whole number"),
        ({"beamdesk:gpus": "9" * 13}, "whole number"),
        ({"beamdesk:gpus": "65"}, "from 1 to 64"),
        ({"beamdesk:gpus": ""}, "no value"),
        ({"beamdesk:gpus": "0", "beamdesk:gpu_memory_mib": "1"}, "gpus is 0"),
        ({"beamdesk:gpus": "1", "beamdesk_gpus": "1"}, "said twice"),
        ({"beamdesk:gpu_models": "A10||T4"}, "empty name"),
        ({"beamdesk:numa": "maybe"}, "one of none, prefer, strict"),
        ({"beamdesk:image_required": "yes"}, "true or false"),
        ({"beamdesk:image_required": "true"}, "no image is named"),
    ],
)
def test_bad_words_are_refused_with_the_reason(specs: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        made(specs)


def test_sources_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="contradict"):
        combine(parse({"beamdesk:gpus": "1"}), parse({"beamdesk_gpus": "2"}))
    with pytest.raises(InvalidRequest, match="nothing is in both"):
        combine(parse({"beamdesk:gpu_models": "T4"}), parse({"beamdesk_gpu_models": "A10"}))


@given(st.dictionaries(st.sampled_from([f"beamdesk:{name}" for name in NAMES] + ["hw:x"]), st.text(max_size=12)))
def test_any_text_is_a_request_or_refused(specs: dict[str, str]) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(made(specs), Request)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 1.0, True, "1", None, 1 << 60])
@pytest.mark.parametrize("field", ["cpu_milli", "memory_mib", "disk_gib"])
def test_amounts_are_whole_numbers_within_bounds(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=field):
        Request(**{"id": "d", "cpu_milli": 1, "memory_mib": 1, field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("until", [float("nan"), float("inf"), "soon", True])
def test_a_lease_ends_at_a_finite_time(until: object) -> None:
    with pytest.raises(InvalidRequest, match="until"):
        Request("d", 1, 1, until=until)  # type: ignore[arg-type]


def test_demands_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="one card"):
        CardDemand(2, share=500, container=True)
    with pytest.raises(InvalidRequest, match="not for both"):
        CardDemand(1, share=500, profile="1g.5gb", container=True)
    with pytest.raises(InvalidRequest, match="excluded as well"):
        Request("d", 1, 1, only_hosts=frozenset({"a"}), not_hosts=frozenset({"a", "b"}))


@given(
    st.builds(
        Words,
        gpus=st.none() | st.integers(0, 64),
        gpu_share=st.none() | st.integers(1, 1000),
        gpu_profile=st.sampled_from([None, "A10-8Q"]),
        gpu_models=st.sampled_from([None, frozenset({"A10"}), frozenset({"A10", "A100"})]),
        gpu_memory_mib=st.none() | st.integers(0, 10**9),
        numa=st.sampled_from([None, *NumaRule]),
        aggregates=st.sampled_from([None, frozenset({"B7", "B8"})]),
        image_required=st.sampled_from([None, True, False]),
    ),
    st.sampled_from([":", "_"]),
)
def test_words_that_are_written_are_read_back(words: Words, separator: str) -> None:
    assert parse(write(words, separator)) == words
