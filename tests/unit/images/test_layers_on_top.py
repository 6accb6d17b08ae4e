"""Layers that lie on top of any image, and which images are built first."""

from pathlib import Path

import pytest

from beamdesk.adapters.local.images.errors import RecipeError
from beamdesk.adapters.local.images.recipes import Recipes

REPOSITORY = Path(__file__).parents[3]
IMAGES = REPOSITORY / "deploy/images"


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
