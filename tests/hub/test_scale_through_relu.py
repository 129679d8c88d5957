"""Scales behind an activation reach the weights before it."""

import pytest

from tests.hub.graphs import operators, same

W = "float[2,3,1,1] w = {1,-2,3,-4,5,6}"


@pytest.mark.parametrize("between", ["r = Relu(c)", "r = LeakyRelu(c)", "a = Relu(c) r = MaxPool<kernel_shape=[2,2]>(a)"])
def test_a_positive_scale_disappears(between: str) -> None:
    model = same(f"g (float[1,3,4,4] x) => (y) <{W}, float[2,1,1] f = {{0.25, 8}}> {{ c = Conv(x, w) {between} y = Mul(r, f) }}")
    assert "Mul" not in operators(model)


def test_of_a_negative_scale_the_sign_stays() -> None:
    model = same(
        f"g (float[1,3,4,4] x) => (y) <{W}, float[2,1,1] f = {{-0.25, 8}}> {{ c = Conv(x, w) r = Relu(c) y = Mul(r, f) }}"
    )
    assert operators(model) == {"Conv": 1, "Relu": 1, "Mul": 1}
    sign = next(n for n in model.graph if n.op_type == "Mul").inputs[1].const_value.numpy()
    assert sorted(sign.reshape(-1)) == [-1, 1]


def test_a_normalization_after_the_activation_is_an_offset() -> None:
    model = same(
        f"""g (float[1,3,4,4] x) => (y)
        <{W}, float[2] s = {{1,2}}, float[2] o = {{3,4}}, float[2] m = {{1,1}}, float[2] v = {{4,9}}> {{
        c = Conv(x, w) r = Relu(c) y = BatchNormalization(r, s, o, m, v) }}"""
    )
    assert operators(model) == {"Conv": 1, "Relu": 1, "Add": 1}


def test_an_activation_that_others_read_stays() -> None:
    model = same(
        f"""g (float[1,3,4,4] x) => (y, z) <{W}, float[2,1,1] f = {{0.25, 8}}> {{
        c = Conv(x, w) r = Relu(c) y = Mul(r, f) z = Abs(r) }}"""
    )
    assert operators(model)["Mul"] == 1
