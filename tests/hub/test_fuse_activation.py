"""Spelled-out activations become their operator, in every order that exporters write them."""

import pytest

from tests.hub.graphs import operators, same

C = (
    "<float half = {0.5}, float one = {1}, float r2 = {1.4142135}, float h2 = {0.70710677}, float k = {0.044715}, "
    "float p = {0.7978845608}, float three = {3}, float six = {6}, float zero = {0}, float sixth = {0.16666667}, "
    "float two = {2}, float twenty = {20}, float a = {0.2}, float[4] s = {0.1,0.2,0.3,0.4}, int64[1] last = {-1}>"
)

CASES = {
    "gelu_torch": ("Gelu", "d = Div(x, r2) e = Erf(d) o = Add(e, one) m = Mul(x, o) y = Mul(m, half)"),
    "gelu_half_first": ("Gelu", "h = Mul(half, x) d = Mul(x, h2) e = Erf(d) o = Add(one, e) y = Mul(h, o)"),
    "gelu_half_in_the_gate": ("Gelu", "d = Mul(x, h2) e = Erf(d) o = Add(e, one) g = Mul(half, o) y = Mul(g, x)"),
    "gelu_keras_erfc": ("Gelu", "n = Neg(x) d = Mul(n, h2) e = Erf(d) o = Sub(one, e) h = Mul(half, x) y = Mul(h, o)"),
    "gelu_tanh": (
        "Gelu",
        "q = Pow(x, three) c = Mul(q, k) i = Add(x, c) j = Mul(i, p) t = Tanh(j) o = Add(t, one) h = Mul(x, half) y = Mul(h, o)",
    ),
    "gelu_tanh_factored": (
        "Gelu",
        "q = Mul(x, x) c = Mul(q, k) i = Add(one, c) j = Mul(x, i) l = Mul(p, j) t = Tanh(l) "
        "o = Add(one, t) h = Mul(x, o) y = Mul(half, h)",
    ),
    "hard_swish": ("HardSwish", "b = Add(x, three) c = Clip(b, zero, six) m = Mul(x, c) y = Div(m, six)"),
    "hard_swish_gate_first": ("HardSwish", "b = Add(x, three) r = Relu(b) c = Min(r, six) g = Mul(c, sixth) y = Mul(g, x)"),
    "hard_swish_named_gate": ("HardSwish", "g = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(x, g)"),
    "hard_sigmoid": ("HardSigmoid", "b = Add(x, three) c = Clip(b, zero, six) y = Div(c, six)"),
    "hard_sigmoid_keras_2": ("HardSigmoid", "m = Mul(x, a) b = Add(m, half) y = Clip(b, zero, one)"),
    "softplus": ("Softplus", "e = Exp(x) o = Add(e, one) y = Log(o)"),
    "softplus_stable": ("Softplus", "r = Relu(x) b = Abs(x) n = Neg(b) e = Exp(n) o = Add(one, e) l = Log(o) y = Add(r, l)"),
    "softplus_torch": ("Softplus", "c = Greater(x, twenty) t = Softplus(x) y = Where(c, x, t)"),
    "mish": ("Mish", "s2 = Softplus(x) t = Tanh(s2) y = Mul(t, x)"),
    "leaky_max": ("LeakyRelu", "m = Mul(a, x) y = Max(x, m)"),
    "leaky_where": ("LeakyRelu", "m = Mul(x, a) c = Greater(x, zero) y = Where(c, x, m)"),
    "leaky_keras": ("LeakyRelu", "r = Relu(x) n = Neg(x) q = Relu(n) m = Mul(a, q) y = Sub(r, m)"),
    "prelu_keras": ("PRelu", "r = Relu(x) n = Neg(x) q = Relu(n) m = Mul(s, q) y = Sub(r, m)"),
    "softmax": ("Softmax", "h = ReduceMax(x, last) d = Sub(x, h) e = Exp(d) t = ReduceSum(e, last) y = Div(e, t)"),
    "softmax_plain": ("Softmax", "e = Exp(x) t = ReduceSum(e, last) y = Div(e, t)"),
    "relu6": ("Clip", "r = Relu(x) y = Min(r, six)"),
    "relu6_max_min": ("Clip", "r = Max(x, zero) y = Min(r, six)"),
    "clip_of_clip": ("Clip", "r = Clip(x, zero, six) y = Clip(r, zero, one)"),
    "relu_as_max": ("Relu", "y = Max(zero, x)"),
    "relu_of_relu": ("Relu", "r = Relu(x) y = Relu(r)"),
    "relu_as_clip": ("Relu", "y = Clip(x, zero)"),
}


@pytest.mark.parametrize("case", CASES)
def test_becomes_one_operator(case: str) -> None:
    operator, body = CASES[case]
    assert operators(same(f"g (float[2,3,4] x) => (y) {C} {{ {body} }}")) == {operator: 1}


def test_x_may_be_a_product_itself() -> None:
    body = "x = Mul(u, v) d = Div(x, r2) e = Erf(d) o = Add(e, one) m = Mul(x, o) y = Mul(m, half)"
    assert operators(same(f"g (float[2,3] u, float[2,3] v) => (y) {C} {{ {body} }}")) == {"Mul": 1, "Gelu": 1}


OTHERS = {
    "another constant": "d = Div(x, two) e = Erf(d) o = Add(e, one) m = Mul(x, o) y = Mul(m, half)",
    "another x": "d = Div(u, r2) e = Erf(d) o = Add(e, one) m = Mul(x, o) y = Mul(m, half)",
    "not halved": "d = Div(x, r2) e = Erf(d) o = Add(e, one) y = Mul(x, o)",
    "softplus of another base": "e = Exp(x) o = Add(e, two) y = Log(o)",
    "a low threshold": "c = Greater(x, three) t = Softplus(x) y = Where(c, x, t)",
    "another axis": "e = Exp(x) t = ReduceSum(u, last) y = Div(e, t)",
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_only_looks_alike_stays(case: str) -> None:
    found = operators(same(f"g (float[2,3,4] x, float[2,3,4] u) => (y) {C} {{ {OTHERS[case]} }}"))
    assert not {"Gelu", "HardSwish", "Softmax"} & set(found)
    assert "Softplus" not in found or "Where" in found


def test_swish_stays_two_operators() -> None:
    assert operators(same(f"g (float[2,3] x) => (y) {C} {{ s2 = Sigmoid(x) y = Mul(x, s2) }}")) == {"Sigmoid": 1, "Mul": 1}


def test_hard_swish_of_a_scaled_value() -> None:
    """A BatchNormalization of equal channels leaves one factor, which the gate and its operand share."""
    model = same(
        """g (float[2,3] x) => (y) <float c = {0.9995}, float three = {3}, float zero = {0}, float six = {6}> {
        s = Mul(x, c) a = Add(s, three) r = Clip(a, zero, six) h = Div(r, six) y = Mul(s, h) }"""
    )
    assert operators(model) == {"Mul": 1, "HardSwish": 1}
