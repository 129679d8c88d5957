"""LayerNormalization as torch, TensorFlow and tf2onnx spell it."""

import pytest

from tests.hub.graphs import operators, same

C = (
    "<float eps = {0.001}, float two = {2}, float minus = {-0.5}, float one = {1}, int64[1] last = {-1}, int64[2] both = {1, 2}, "
    "int64[1] channel = {1}, float[4] g = {1,2,3,4}, float[4] b = {0.1,0.2,0.3,0.4}, float[1,1,4] g3 = {1,2,3,4}, "
    "float[3,1] rows = {1,2,3}>"
)
MEAN = "m = ReduceMean(x, last) d = Sub(x, m)"
ROOT = "q = Mul(d, d) v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e)"

CASES = {
    "torch": f"{MEAN} q = Pow(d, two) v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e) "
    "n = Div(d, r) s = Mul(n, g) y = Add(s, b)",
    "plain": f"{MEAN} q = Mul(d, d) v = ReduceMean(q, last) e = Add(eps, v) r = Sqrt(e) y = Div(d, r)",
    "two_subs": f"{MEAN} d2 = Sub(x, m) q = Mul(d2, d2) v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e) "
    "n = Div(d, r) y = Mul(g3, n)",
    "power": f"{MEAN} q = Mul(d, d) v = ReduceMean(q, last) e = Add(v, eps) r = Pow(e, minus) n = Mul(d, r) y = Add(n, b)",
    "keras": f"{MEAN} {ROOT} i = Reciprocal(r) f = Mul(i, g) xs = Mul(x, f) ms = Mul(m, f) t = Sub(b, ms) y = Add(xs, t)",
    "tf2onnx": f"{MEAN} {ROOT} i = Reciprocal(r) f = Mul(i, g) "
    "xs = Mul(x, f) nm = Neg(m) ms = Mul(nm, f) t = Add(ms, b) y = Add(xs, t)",
    "scaled_deviation": f"{MEAN} {ROOT} i = Div(one, r) f = Mul(i, g) n = Mul(d, f) y = Add(n, b)",
    "named": "n = LayerNormalization<epsilon=0.001>(x, g) y = Add(n, b)",
}


@pytest.mark.parametrize("case", CASES)
def test_becomes_one_operator(case: str) -> None:
    assert operators(same(f"g (float[2,3,4] x) => (y) {C} {{ {CASES[case]} }}")) == {"LayerNormalization": 1}


def test_over_two_axes() -> None:
    body = CASES["plain"].replace("last", "both")
    assert operators(same(f"g (float[2,3,4] x) => (y) {C} {{ {body} }}")) == {"LayerNormalization": 1}


def test_a_scale_that_varies_over_other_axes_stays_outside() -> None:
    body = CASES["plain"].replace("y = Div", "n = Div") + " y = Mul(n, rows)"
    assert operators(same(f"g (float[2,3,4] x) => (y) {C} {{ {body} }}")) == {"LayerNormalization": 1, "Mul": 1}


def test_channels_first_is_between_transposes() -> None:
    body = CASES["plain"].replace("last", "channel")
    assert operators(same(f"g (float[2,3,4] x) => (y) {C} {{ {body} }}")) == {"Transpose": 2, "LayerNormalization": 1}


@pytest.mark.parametrize(
    "last", ["q = Mul(n, g) y = Add(p, q)", "q = Mul(m, g) y = Sub(p, q)", "h = Mul(m, g) q = Neg(h) y = Add(q, p)"]
)
def test_keras_without_scale_and_shift(last: str) -> None:
    """gamma = 1 and beta = 0 leave a broadcast and no constant."""
    model = same(
        f"""g (float[2,5,8] x) => (y) <int64[1] a = {{-1}}, float eps = {{0.001}}, float[8] gamma = {{1,1,1,1,1,1,1,1}}> {{
        m = ReduceMean(x, a) d = Sub(x, m) s = Mul(d, d) v = ReduceMean(s, a) e = Add(v, eps) t = Sqrt(e) r = Reciprocal(t)
        g = Mul(r, gamma) n = Neg(m) p = Mul(x, g) {last} }}"""
    )
    assert operators(model) == {"LayerNormalization": 1}


def test_over_the_channels_of_a_map() -> None:
    """The mean over axis 1 is LayerNormalization on the last axis between two Transposes, scale and shift included."""
    model = same(
        """g (float[2,3,4,5] x) => (y)
        <int64[1] a = {1}, float eps = {0.001}, float[3,1,1] gamma = {1,2,3}, float[1,3,1,1] beta = {4,5,6}> {
        m = ReduceMean(x, a) d = Sub(x, m) s = Mul(d, d) v = ReduceMean(s, a) e = Add(v, eps) t = Sqrt(e)
        q = Div(d, t) p = Mul(gamma, q) z = Add(p, beta) y = Relu(z) }"""
    )
    assert operators(model) == {"Transpose": 2, "LayerNormalization": 1, "Relu": 1}
