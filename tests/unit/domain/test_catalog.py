"""What size and image ask of a host together."""

from __future__ import annotations

import pytest

from beamdesk.domain.catalog import Flavor, Image, Resources, sized, wanted
from beamdesk.domain.ids import FlavorId, ImageId
from beamdesk.domain.text import Text
from beamdesk.scheduling.errors import InvalidRequest
from beamdesk.scheduling.vocabulary import Words, parse

NAME = Text("x", "x")


def size(gpus: int = 1, **specs: str) -> Flavor:
    return Flavor(
        FlavorId("f"), NAME, Resources(4, 8192, 10, gpus), parse({f"beamdesk:{name}": text for name, text in specs.items()})
    )


def image(**properties: str) -> Image:
    return Image(ImageId("i"), "ref", NAME, NAME, words=parse({f"beamdesk_{name}": text for name, text in properties.items()}))


def test_an_image_narrows_what_the_size_asks_for() -> None:
    found = wanted(size(gpu_memory_mib="16384", gpu_models="A10|A100"), image(gpu_memory_mib="40000", gpu_models="A100|H100"))
    assert found == Words(gpu_memory_mib=40000, gpu_models=frozenset({"A100"}))


def test_the_number_of_cards_is_the_sizes() -> None:
    assert sized(Words(), Resources(4, 8192, 10, 2)).gpus == 2


@pytest.mark.parametrize(
    ("flavor", "needs"),
    [
        (size(0), {"gpu_memory_mib": "40000"}),
        (size(1), {"gpus": "2"}),
        (size(1, gpu_models="T4"), {"gpu_models": "A100"}),
        (size(1, numa="none"), {"numa": "strict"}),
    ],
)
def test_an_image_that_needs_what_the_size_does_not_have_contradicts_it(flavor: Flavor, needs: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        wanted(flavor, image(**needs))
