"""Symbolic dimensions: one spelling for equal expressions."""

import pytest

from edgekit.hub import dims


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("batch", "batch"),
        ("batch + batch", "2*batch"),
        ("3*b - 2*b", "b"),
        ("b - b", 0),
        ("(s + 1)*2", "2*s + 2"),
        ("s*b", "b*s"),
        ("12*b//4", "3*b"),
        ("(s + 1)//2", "((s + 1)//(2))"),
        ("batch size", "batch size"),
    ],
)
def test_one_spelling(expression: str, expected: dims.Dim) -> None:
    assert dims.canonical(expression) == expected
    assert dims.canonical(dims.canonical(expression)) == expected


def test_a_division_that_leaves_a_rest_is_divided_when_its_symbol_gets_a_number() -> None:
    half = dims.divide(dims.add("s", 1), 2)
    assert dims.substitute(dims.multiply(half, 3), {"s": 8}) == 12


def test_exact_division() -> None:
    assert dims.divide_exactly("6*b*s", "2*b") == "3*s"
    assert dims.divide_exactly("6*b + 1", 2) is None
    assert dims.divide_exactly("b + 1", "b + 1") == 1
