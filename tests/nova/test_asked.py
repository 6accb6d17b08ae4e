"""What a RequestSpec of Nova asks of the core, and what is refused."""

from __future__ import annotations

import pytest

from beamdesk.plugins.nova.asked import read
from beamdesk.scheduling.errors import InvalidRequest
from beamdesk.scheduling.request import CardDemand, NumaRule
from novakit import flavor, spec


def test_a_flavor_without_words_is_a_cpu_desktop() -> None:
    request = read(spec(7, flavor(4, 8192, hw__cpu_policy="shared"))).request
    assert (request.cpu_milli, request.memory_mib, request.cards) == (4000, 8192, None)
    assert request.id == "5b1b1f5e-0000-4000-8000-000000000007"
    assert request.image == "imaging"


def test_flavor_and_hints_are_combined() -> None:
    asked = read(
        spec(
            1,
            flavor(beamdesk__gpus="1", beamdesk__gpu_memory_mib="16384"),
            1,
            {"beamdesk_gpu_memory_mib": ["24576"], "beamdesk_numa": ["strict"]},
        )
    )
    assert asked.request.cards == CardDemand(1, memory_mib=24576)
    assert asked.request.numa is NumaRule.STRICT


def test_an_alias_alone_asks_for_as_many_cards() -> None:
    assert read(spec(1, flavor(), 3)).request.cards == CardDemand(3)


def test_an_alias_says_how_many_where_the_words_do_not() -> None:
    assert read(spec(1, flavor(beamdesk__gpu_models="T4"), 2)).request.cards == CardDemand(2, models=frozenset({"T4"}))


def test_only_the_aliases_named_in_the_options_give_cards() -> None:
    assert read(spec(1, flavor(), 2, alias="nic"), frozenset({"gpu"})).request.cards is None


def test_a_lease_and_a_booking_come_as_hints() -> None:
    asked = read(spec(1, flavor(), 0, {"beamdesk_until": ["1790000000"], "beamdesk_booking": ["b-7|b-8"]}))
    assert (asked.request.until, asked.bookings) == (1790000000.0, ("b-7", "b-8"))


def test_hints_of_others_are_ignored() -> None:
    assert read(spec(1, flavor(), 0, {"group": ["a"], "same_host": ["x", "y"]})).request.cards is None


def test_vgpu_needs_the_profile_and_as_many_resources() -> None:
    asked = read(spec(1, flavor(beamdesk__gpu_profile="A10-8Q", resources__VGPU="1")))
    assert asked.request.cards == CardDemand(1, profile="A10-8Q")
    assert asked.devices == 0


@pytest.mark.parametrize(
    ("specs", "devices", "hints", "says"),
    [
        ({"beamdesk__gpu_memry_mib": "1"}, 1, {}, "Did you mean beamdesk:gpu_memory_mib"),
        ({"beamdesk__gpus": "many"}, 1, {}, "must be a whole number"),
        ({"beamdesk__gpus": "-1"}, 1, {}, "must be a whole number"),
        ({"beamdesk__gpus": "2"}, 1, {}, "asks for 2 cards, but the flavor's PCI aliases give 1"),
        ({"beamdesk__gpus": "1"}, 0, {}, "asks for 1 cards, but the flavor's PCI aliases give 0"),
        ({"beamdesk__gpus": "0"}, 2, {}, "is 0, but the flavor's PCI aliases give 2"),
        ({"beamdesk__gpu_models": "A100"}, 1, {"beamdesk_gpu_models": ["T4"]}, "nothing is in both"),
        ({"beamdesk__gpus": "1"}, 1, {"beamdesk_gpus": ["2"]}, "contradict each other"),
        ({"beamdesk__gpus": "1"}, 1, {"beamdesk_gpus": ["1", "1"]}, "must be given once"),
        ({"beamdesk__gpu_share": "500"}, 1, {}, "Only containers"),
        ({"resources__VGPU": "1"}, 0, {}, "does not say beamdesk:gpu_profile"),
        ({"resources1__VGPU": "1"}, 0, {}, "does not say beamdesk:gpu_profile"),
        ({"beamdesk__gpu_profile": "A10-8Q"}, 0, {}, "set resources:VGPU to as many"),
        ({"beamdesk__gpu_profile": "A10-8Q", "resources__VGPU": "1"}, 1, {}, "give 1 whole ones"),
        ({}, 0, {"beamdesk_until": ["tomorrow"]}, "whole seconds"),
        ({}, 0, {"beamdesk_until": ["NaN"]}, "whole seconds"),
        ({}, 0, {"beamdesk_gpu_modles": ["T4"]}, "Did you mean beamdesk:gpu_models"),
        ({}, 0, {"beamdesk_booking": [""]}, "names of bookings parted by"),
        ({}, 0, {"beamdesk_booking": ["b-7||b-8"]}, "names of bookings parted by"),
        ({}, 0, {"beamdesk_booking": ["b-7", "b-8"]}, "given once"),
    ],
)
def test_what_contradicts_itself_is_refused_with_the_reason(
    specs: dict[str, str], devices: int, hints: dict[str, list[str]], says: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read(spec(1, flavor(**specs), devices, hints))
    assert says in refusal.value.message
