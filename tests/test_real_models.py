"""A few of the real models of scripts/show_models.py, small enough for every run; the script shows all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import show_models
from real_models.recipes import RECIPES, recipe

pytestmark = pytest.mark.registry
NO_PEER = Path("litert-torch is not compared here")


@pytest.mark.parametrize(("name", "accuracy"), [("mnist-cnn", 0.98), ("resnet56", 0.92), ("silero-onnx", None)])
def test_real_model_is_still_the_same_model(name, accuracy):
    if recipe(name).framework == "torch":
        pytest.importorskip("torch", reason="the torch extra is not installed")

    shown = show_models.show(recipe(name), samples=200, litert_torch_python=NO_PEER)

    if shown.skipped:
        pytest.skip(shown.skipped)
    assert show_models.shortcomings(shown) == []
    assert shown.source_accuracy is None or shown.source_accuracy >= accuracy


def test_a_model_that_was_not_exported_is_a_shortcoming():
    assert show_models.shortcomings(show_models.Shown("resnet56", failure="no such file")) == ["not exported: no such file"]


def test_recipes_have_names_of_their_own():
    names = [recipe.name for recipe in RECIPES]

    assert len(set(names)) == len(names)
