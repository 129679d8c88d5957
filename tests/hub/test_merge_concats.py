"""Concatenations of concatenations."""

import pytest

from tests.hub.graphs import operators, same

INPUTS = "float[2,1,3] a, float[2,2,3] b, float[2,3,3] c, float[2,4,3] d"


@pytest.mark.parametrize("outer", ["i, c, d", "c, i, d", "c, d, i", "i, c, i"], ids=["first", "between", "last", "taken twice"])
def test_operands_of_the_inner_one_stand_where_it_stood(outer: str) -> None:
    after = same(f"g ({INPUTS}) => (y) {{ i = Concat<axis=1>(b, a) y = Concat<axis=-2>({outer}) }}")
    assert operators(after) == {"Concat": 1}


def test_any_depth_and_several_at_once() -> None:
    """The last blocks of inception: two branches of two each among the others."""
    after = same(
        f"g ({INPUTS}) => (y) {{ i = Concat<axis=1>(a, b) j = Concat<axis=1>(c, i) k = Concat<axis=1>(b, d)"
        " y = Concat<axis=1>(a, j, k, d) }"
    )
    assert operators(after) == {"Concat": 1}


@pytest.mark.parametrize(
    "graph",
    [
        f"g ({INPUTS}) => (y) {{ i = Concat<axis=2>(b, b) j = Concat<axis=2>(b, b) y = Concat<axis=1>(i, j) }}",
        f"g ({INPUTS}) => (i, y) {{ i = Concat<axis=1>(b, a) y = Concat<axis=1>(i, c) }}",
        f"g ({INPUTS}) => (y, z) {{ i = Concat<axis=1>(b, a) y = Concat<axis=1>(i, c) z = Relu(i) }}",
    ],
    ids=["another axis", "a graph output", "read by something else"],
)
def test_what_is_needed_by_itself_stays(graph: str) -> None:
    assert operators(same(graph))["Concat"] >= 2
