"""Recipes as files, and calibration data that look wrong."""

import numpy as np
import pytest

from edgekit.contract import TensorSpec
from edgekit.errors import InputError
from edgekit.preprocess import Preprocess
from edgekit.quantize import Calibration, Recipe, load_recipe
from edgekit.quantize.doubts import doubts

RNG = np.random.default_rng(1)
IMAGE = TensorSpec("image", (1, 3, 8, 8))
IMAGENET = Preprocess.parse("imagenet,layout=nchw")


def test_a_recipe_comes_back_from_its_file(tmp_path):
    recipe = Recipe(samples=10, ranges="entropy", equalize="never", layers={'odd "name" é/*': "float", "b": "int16x8"})
    file = tmp_path / "recipe.toml"
    file.write_text(recipe.to_toml(), encoding="utf-8")
    assert load_recipe(file) == recipe
    assert Recipe.from_toml("") == Recipe(), "what is left out has its default"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("samples = ", "not TOML"),
        ("sample = 3", "no 'sample'"),
        ('samples = "many"', "should be of the type int"),
        ("samples = true", "should be of the type int"),
        ("samples = 0", "at least one sample"),
        ('ranges = "best"', "no value of ranges"),
        ('[layers]\na = "int2"', "no precision of a layer"),
        ("[layers]\na = 3", "no precision of a layer"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said(text, message):
    with pytest.raises(InputError, match=message):
        Recipe.from_toml(text)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(tmp_path / "none.toml")


def test_later_patterns_go_over_earlier_ones():
    recipe = Recipe(layers={"block*": "float", "block1/conv": "int8", "a[0].b": "int16x8"})
    assert recipe.precision_of("block2/conv") == "float"
    assert recipe.precision_of("block1/conv") == "int8"
    assert recipe.precision_of("a[0].b") == "int16x8"
    assert recipe.precision_of("a0.b") == "int8"


def pictures(count=40, seed=1):
    """What a set of pictures becomes: every channel of its own, black and white in each picture."""
    rng = np.random.default_rng(seed)
    tint = np.array([0.9, 0.5, 0.25])
    pixels = rng.uniform(0, 255, (count, 8, 8, 3)) * tint
    pixels[:, 0, 0], pixels[:, 0, 1] = 0, 255
    return pixels.round().astype(np.uint8)


def calibration(samples, name="image"):
    feeds = [{name: np.asarray(sample, np.float32)[None]} for sample in samples]
    return Calibration(feeds, "npy", "here", str(np.asarray(samples).sum()), tuple(range(len(samples))), len(samples))


def prepared(pixels, preprocess=IMAGENET):
    return [preprocess.apply(picture) for picture in pixels]


def test_good_data_raise_no_doubts():
    assert doubts(calibration(prepared(pictures())), [IMAGE], IMAGENET, calibration(prepared(pictures(seed=2)))) == ()
    noise = calibration(list(RNG.normal(size=(64, 16))), "x")
    assert doubts(noise, [TensorSpec("x", (1, 16))]) == ()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (lambda: prepared(pictures(4)), "few"),
        (lambda: [np.zeros((3, 8, 8))] * 40, "all values"),
        (lambda: prepared(pictures(1)) * 40, "are the same"),
        (lambda: [p.transpose(2, 0, 1) for p in pictures()], "lie from 0 to 255"),
        (lambda: [p.transpose(2, 0, 1) / 255 / 255 for p in pictures()], "scaled twice"),
        (lambda: [np.asarray(s)[::-1] for s in prepared(pictures())], "reversed"),
    ],
    ids=["few", "constant", "alike", "not scaled", "scaled twice", "colours"],
)
def test_data_that_do_not_fit_the_preprocessing(samples, message):
    found = doubts(calibration(samples()), [IMAGE], IMAGENET)
    assert any(message in sentence for sentence in found), found


def test_two_sets_that_do_not_look_alike():
    good = calibration(prepared(pictures(seed=2)))
    raw = calibration([p.transpose(2, 0, 1) for p in pictures()])
    assert any("prepared alike" in sentence for sentence in doubts(raw, [IMAGE], None, good))
    swapped = calibration([s[::-1] for s in prepared(pictures())])
    assert any("reversed beside" in sentence for sentence in doubts(swapped, [IMAGE], None, good))
