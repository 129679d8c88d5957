"""What `--input` and `--dynamic` do to the shapes that a model declares."""

from __future__ import annotations

import pytest

from edgekit.contract import TensorSpec
from edgekit.errors import InputError
from edgekit.sources.shapes import Declared, resolve_inputs

IMAGE = Declared("image", (None, 224, 224, 3))
TOKENS = [Declared("ids", ("batch", "length"), "int64"), Declared("mask", ("batch", "length"), "int64")]


def shapes(
    declared: list[Declared], *given: str, dynamic: tuple[str, ...] = (), free: bool = False
) -> list[tuple[int | str, ...]]:
    specs = [TensorSpec.parse(text) for text in given]
    return [spec.shape for spec in resolve_inputs(declared, specs, dynamic, "model", free=free)]


def test_an_open_batch_becomes_one() -> None:
    assert shapes([IMAGE]) == [(1, 224, 224, 3)]


def test_dimensions_that_share_a_name_share_the_size() -> None:
    assert shapes(TOKENS, "ids=1x128:int64") == [(1, 128), (1, 128)]


def test_a_batch_that_is_not_in_front_follows_the_one_that_is() -> None:
    state = Declared("state", (2, "batch", 128))
    assert shapes([Declared("x", ("batch", 512)), state]) == [(1, 512), (2, 1, 128)]


def test_any_other_open_dimension_must_be_given() -> None:
    with pytest.raises(InputError, match="dimension 1 of the input 'ids' is open") as error:
        shapes(TOKENS)
    assert "--input ids=1xSIZE:int64" in str(error.value)


@pytest.mark.parametrize(
    ("dynamic", "expected"),
    [
        (("batch",), ("batch", 224, 224, 3)),
        (("image:0=n",), ("n", 224, 224, 3)),
        (("image:0",), ("image_0", 224, 224, 3)),
    ],
)
def test_dynamic_keeps_a_dimension_open(dynamic: tuple[str, ...], expected: tuple[int | str, ...]) -> None:
    assert shapes([IMAGE], dynamic=dynamic) == [expected]


def test_dynamic_takes_the_name_of_a_symbolic_dimension() -> None:
    assert shapes(TOKENS, dynamic=("length",)) == [(1, "length"), (1, "length")]


def test_a_dimension_can_be_named_in_the_input_itself() -> None:
    assert shapes([IMAGE], "image=nx224x224x3") == [("n", 224, 224, 3)]


def test_dynamic_refuses_what_the_model_fixes() -> None:
    with pytest.raises(InputError, match="does not leave dimension 0 open"):
        shapes([Declared("image", (1, 3, 32, 32))], dynamic=("batch",))


def test_an_unknown_dynamic_dimension_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="no dimension of the model") as error:
        shapes(TOKENS, dynamic=("sequence",))
    assert "batch, length" in str(error.value)


def test_an_unknown_input_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="no input 'picture'") as error:
        shapes([IMAGE], "picture=1x224x224x3")
    assert "image" in str(error.value)


@pytest.mark.parametrize("given", ["image=1x3x224x224", "image=224x224x3", "image=1x224x224x3:uint8"])
def test_what_the_model_fixes_cannot_be_overridden(given: str) -> None:
    with pytest.raises(InputError):
        shapes([IMAGE], given)


def test_example_inputs_can_be_overridden() -> None:
    assert shapes([Declared("x", (1, 3, 32, 32))], "x=1x3x64x64", free=True) == [(1, 3, 64, 64)]


def test_one_name_cannot_have_two_sizes() -> None:
    with pytest.raises(InputError, match="'length' cannot be both 128 and 64"):
        shapes(TOKENS, "ids=1x128:int64", "mask=1x64:int64")
