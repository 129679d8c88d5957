import pytest

from edgekit.errors import InputError
from edgekit.quantize import PRECISIONS, parse_precision


@pytest.mark.parametrize(
    ("spelling", "precision"),
    [
        *((name, name) for name in PRECISIONS),
        ("FP32", "fp32"),
        ("float32", "fp32"),
        ("half", "fp16"),
        ("float16", "fp16"),
        ("W8A8", "int8"),
        ("static_wi8_ai8", "int8"),
        ("full_integer_quant", "int8"),
        ("int8-qdq", "int8"),
        ("dynamic_wi8_afp32", "int8-dynamic"),
        ("dynamic range quant", "int8-dynamic"),
        ("int8_dynamic", "int8-dynamic"),
    ],
)
def test_the_spellings_of_other_tools(spelling, precision):
    assert parse_precision(spelling) == precision


def test_weight_only_is_something_else_and_says_what_to_use():
    with pytest.raises(InputError, match="smaller, not faster") as error:
        parse_precision("weight_only_wi8_afp32")
    assert "int8-dynamic" in error.value.fix


def test_an_unknown_word_lists_the_precisions():
    with pytest.raises(InputError) as error:
        parse_precision("int9")
    assert error.value.fix == "use one of fp32, fp16, int8, int8-dynamic"
