"""Constants that are neutral, joined, or only rearrange: fewer nodes, same results."""

import pytest

from tests.hub.graphs import operators, same


def test_a_neutral_constant_only_broadcasts() -> None:
    model = same(
        """g (bool[1,4] m, float[3,4] x) => (y) <bool[3,1] t = {1,1,1}, float zero = {0}> {
        a = And(m, t) y = Where(a, x, zero) }"""
    )
    assert operators(model) == {"Where": 1}


def test_a_mask_is_computed_before_it_is_broadcast() -> None:
    model = same(
        """g (bool[1,4] m, float[3,4] x) => (y) <int64[2] wide = {3,4}, float zero = {0}, float low = {-9}> {
        e = Expand(m, wide) w = Where(e, zero, low) y = Add(x, w) }"""
    )
    assert operators(model) == {"Where": 1, "Add": 1}
    assert [list(n.outputs[0].shape) for n in model.graph if n.op_type == "Where"] == [[1, 4]]


def test_constants_join() -> None:
    model = same("g (float[2,3] x) => (y) <float[1,3] a = {1,2,3}, float c = {6}> { p = Add(x, a) q = Add(c, p) y = Add(q, a) }")
    assert operators(model) == {"Add": 1}


def test_constants_that_would_grow_stay_apart() -> None:
    model = same("g (float[2,3] x) => (y) <float[1,3] a = {1,2,3}, float[2,1] b = {4,5}> { p = Mul(x, a) y = Mul(p, b) }")
    assert operators(model) == {"Mul": 2}


@pytest.mark.parametrize(
    "body",
    [
        "<int64[1,1,3,2] i = {0,0,0,1,0,2}> { y = GatherND(x, i) }",
        "<int64[3] i = {0,1,2}> { y = Gather<axis=1>(x, i) }",
        "<int64[1,3] i = {0,1,2}> { y = GatherElements<axis=1>(x, i) }",
    ],
)
def test_a_gather_in_order_is_a_reshape(body: str) -> None:
    model = same(f"g (float[1,3] x) => (y) {body}")
    assert set(operators(model)) <= {"Reshape", "Identity"}


def test_a_gather_out_of_order_stays() -> None:
    assert operators(same("g (float[1,3] x) => (y) <int64[3] i = {0,2,1}> { y = Gather<axis=1>(x, i) }")) == {"Gather": 1}
