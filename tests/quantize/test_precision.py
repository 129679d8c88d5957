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
        ("static_wi8_ai16", "int16x8"),
        ("W8A16", "int16x8"),
        ("weight_only_wi8_afp32", "int8-weights"),
        ("int8 weight only", "int8-weights"),
        ("dynamic_wi4b32_afp32", "int4-weights"),
        ("INT4", "int4-weights"),
    ],
)
def test_the_spellings_of_other_tools(spelling, precision):
    assert parse_precision(spelling) == precision


def test_what_no_runtime_has_is_refused_by_name():
    with pytest.raises(InputError, match="no kernels in the mobile runtimes"):
        parse_precision("bf16")


def test_an_unknown_word_lists_the_precisions():
    with pytest.raises(InputError) as error:
        parse_precision("int9")
    assert error.value.fix == "use one of fp32, fp16, int8, int8-dynamic, int16x8, int8-weights, int4-weights"


def test_no_spelling_has_two_meanings():
    from edgekit.quantize.precision import _ALIASES

    spellings = [spelling for aliases in _ALIASES.values() for spelling in aliases]
    assert len(spellings) == len(set(spellings))
    assert {parse_precision(spelling) for spelling in spellings} == set(PRECISIONS)
