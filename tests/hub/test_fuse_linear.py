"""Arithmetic with constants goes into the linear operator beside it."""

import numpy as np
import onnx_ir as ir
import pytest

from tests.hub.graphs import hub, operators, same


def numbers(*shape: int, seed: int = 0, low: float = 0.5) -> str:
    values = np.random.default_rng(seed).uniform(low, 2, int(np.prod(shape)))
    return f"float[{','.join(map(str, shape))}] {{name}} = {{{{{','.join(f'{v:.6f}' for v in values)}}}}}"


def constants(**shapes: tuple[int, ...]) -> str:
    return "<" + ", ".join(numbers(*shape, seed=i).format(name=name) for i, (name, shape) in enumerate(shapes.items())) + ">"


LINEAR = {
    "conv": ("float[1,4,6,6] x", {"w": (6, 4, 3, 3)}, "c = Conv(x, w)", (6, 1, 1)),
    "grouped": ("float[1,4,6,6] x", {"w": (6, 2, 3, 3), "b": (6,)}, "c = Conv<group=2, pads=[1,1,1,1]>(x, w, b)", (6, 1, 1)),
    "depthwise": ("float[1,4,6,6] x", {"w": (4, 1, 3, 3)}, "c = Conv<group=4>(x, w)", (4, 1, 1)),
    "conv1d": ("float[1,4,9] x", {"w": (6, 4, 3)}, "c = Conv(x, w)", (6, 1)),
    "transposed": ("float[1,4,5,5] x", {"w": (4, 3, 2, 2), "b": (6,)}, "c = ConvTranspose<group=2>(x, w, b)", (6, 1, 1)),
    "gemm": ("float[3,4] x", {"w": (4, 6), "b": (6,)}, "c = Gemm<alpha=0.5, beta=2.0>(x, w, b)", (6,)),
    "gemm_transposed": ("float[3,4] x", {"w": (6, 4)}, "c = Gemm<transB=1>(x, w)", (6,)),
    "matmul": ("float[2,3,4] x", {"w": (4, 6)}, "c = MatMul(x, w)", (6,)),
}
ARITHMETIC = ["y = Mul(c, f)", "y = Mul(f, c)", "y = Div(c, f)", "y = Add(c, f)", "y = Sub(c, f)", "y = Sub(f, c)"]


@pytest.mark.parametrize("arithmetic", ARITHMETIC)
@pytest.mark.parametrize("linear", LINEAR)
def test_after(linear: str, arithmetic: str) -> None:
    inputs, weights, node, per_channel = LINEAR[linear]
    model = same(f"g ({inputs}) => (y) {constants(**weights, f=per_channel)} {{ {node} {arithmetic} }}", tolerance=1e-5)
    assert "Mul" not in operators(model)
    assert linear == "matmul" or len(model.graph) == 1


@pytest.mark.parametrize("linear", LINEAR)
def test_batch_norm_after(linear: str) -> None:
    inputs, weights, node, per_channel = LINEAR[linear]
    if linear == "matmul":
        inputs, per_channel = "float[3,4] x", (6,)
    channels = (per_channel[0],)
    body = f"{node} y = BatchNormalization<epsilon=0.01>(c, s, t, m, v)"
    model = same(f"g ({inputs}) => (y) {constants(**weights, s=channels, t=channels, m=channels, v=channels)} {{ {body} }}")
    assert len(model.graph) == 1


def test_batch_norm_alone_is_mul_and_add() -> None:
    text = f"g (float[1,4,5] x) => (y) {constants(s=(4,), t=(4,), m=(4,), v=(4,))} {{ y = BatchNormalization(x, s, t, m, v) }}"
    assert operators(same(text)) == {"Mul": 1, "Add": 1}


def test_batch_norm_is_rounded_once() -> None:
    rng = np.random.default_rng(1)
    weight, scale, shift, mean = (rng.normal(size=s).astype(np.float32) for s in ((8, 3, 3, 3), (8,), (8,), (8,)))
    variance = rng.uniform(0.01, 4, 8).astype(np.float32)
    x = ir.val("x", ir.DataType.FLOAT, [1, 3, 8, 8])
    given = {"w": weight, "s": scale, "t": shift, "m": mean, "v": variance}
    values = [ir.val(name, const_value=ir.Tensor(array)) for name, array in given.items()]
    conv = ir.node("Conv", [x, values[0]])
    norm = ir.node("BatchNormalization", [conv.outputs[0], *values[1:]])
    graph = ir.Graph([x], [norm.outputs[0]], nodes=[conv, norm], initializers=values, opset_imports={"": 15}, name="g")
    from edgekit.hub import prepare

    (fused,) = prepare(ir.Model(graph, ir_version=8)).graph
    factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + np.float64(np.float32(1e-5)))
    expected = (weight * factor[:, None, None, None]).astype(np.float32)
    assert np.array_equal(fused.inputs[1].const_value.numpy(), expected)


BEFORE = {
    "conv": ("float[1,4,6,6] x", (4, 1, 1), {"w": (6, 4, 3, 3)}, "y = Conv(s, w)"),
    "grouped": ("float[1,4,6,6] x", (4, 1, 1), {"w": (6, 2, 3, 3), "b": (6,)}, "y = Conv<group=2>(s, w, b)"),
    "gemm": ("float[3,4] x", (4,), {"w": (4, 6), "b": (6,)}, "y = Gemm(s, w, b)"),
    "gemm_transposed": ("float[3,4] x", (4,), {"w": (6, 4)}, "y = Gemm<transB=1, alpha=0.5>(s, w)"),
    "matmul": ("float[2,3,4] x", (4,), {"w": (4, 6)}, "y = MatMul(s, w)"),
}


@pytest.mark.parametrize("arithmetic", ["s = Mul(x, f)", "s = Div(x, f)", "s = Add(x, f)", "s = Sub(x, f)", "s = Sub(f, x)"])
@pytest.mark.parametrize("linear", BEFORE)
def test_before(linear: str, arithmetic: str) -> None:
    inputs, per_channel, weights, node = BEFORE[linear]
    model = same(f"g ({inputs}) => (y) {constants(f=per_channel, **weights)} {{ {arithmetic} {node} }}")
    keeps_shift = linear == "matmul" and ("Add" in arithmetic or "Sub" in arithmetic)
    assert len(model.graph) == (2 if keeps_shift else 1)


def test_a_shift_before_padding_stays() -> None:
    text = (
        f"g (float[1,2,5,5] x) => (y) {constants(f=(2, 1, 1), w=(3, 2, 3, 3))} {{ s = Add(x, f) y = Conv<pads=[1,1,1,1]>(s, w) }}"
    )
    assert operators(same(text)) == {"Add": 1, "Conv": 1}


def test_a_value_that_others_read_stays() -> None:
    text = (
        f"g (float[1,2,5,5] x) => (y, z) {constants(w=(3, 2, 1, 1), f=(3, 1, 1))} {{ c = Conv(x, w) y = Mul(c, f) z = Relu(c) }}"
    )
    assert operators(same(text)) == {"Conv": 1, "Mul": 1, "Relu": 1}


def test_a_shared_weight_changes_for_one_reader_alone() -> None:
    weights = constants(w=(2, 2, 1, 1), f=(2, 1, 1))
    text = f"g (float[1,2,5,5] x) => (y, z) {weights} {{ c = Conv(x, w) y = Mul(c, f) z = Conv(y, w) }}"
    assert operators(same(text)) == {"Conv": 2}


def test_a_factor_per_position_stays() -> None:
    text = f"g (float[1,2,4,4] x) => (y) {constants(w=(3, 2, 1, 1), f=(4, 4))} {{ c = Conv(x, w) y = Mul(c, f) }}"
    assert operators(same(text)) == {"Conv": 1, "Mul": 1}


def test_a_dense_layer_of_rank_2_is_gemm_and_of_rank_3_matmul_add() -> None:
    assert operators(same(f"g (float[3,4] x) => (y) {constants(w=(4, 2), b=(2,))} {{ c = MatMul(x, w) y = Add(c, b) }}")) == {
        "Gemm": 1
    }
    model = same(
        f"g (float[2,3,4] x) => (y) {constants(w=(4, 2), b=(2,), f=(2,))} {{ c = MatMul(x, w) d = Add(b, c) y = Mul(d, f) }}"
    )
    assert operators(model) == {"MatMul": 1, "Add": 1}


def test_a_chain_of_arithmetic_becomes_one_operator() -> None:
    weights = constants(f=(3, 1, 1), h=(3, 1, 1))
    text = f"g (float[1,3,4,4] x) => (y) {weights} {{ a = Mul(x, f) b = Div(a, h) c = Mul(f, b) y = Relu(c) }}"
    assert operators(same(text)) == {"Mul": 1, "Relu": 1}


def test_the_last_name_of_what_was_fused_stays() -> None:
    model = hub(
        f"g (float[1,2,5,5] x) => (y) {constants(w=(3, 2, 1, 1), f=(3, 1, 1))} {{ c = Conv(x, w) m = Mul(c, f) y = Relu(m) }}"
    )
    assert [node.outputs[0].name for node in model.graph] == ["m", "y"]


def test_batch_normalization_over_folded_rows() -> None:
    """LeViT normalizes a dense layer's columns over all rows, and folds the rows for it."""
    after = same(
        "g (float[2,3,2] x) => (y) <float[2,3] w = {1,2,3,4,5,6}, float[3] s = {1,2,3}, float[3] b = {3,2,1}, "
        "float[3] m = {0.1,0.2,0.3}, float[3] v = {1,4,9}, int64[2] rows = {6,3}, int64[4] back = {2,3,3,1}> "
        "{ p = MatMul(x, w) r = Reshape(p, rows) n = BatchNormalization(r, s, b, m, v) y = Reshape(n, back) }"
    )
    assert operators(after) == {"MatMul": 1, "Add": 1, "Reshape": 1}


@pytest.mark.parametrize(
    ("arithmetic", "padding", "left"),
    [
        ("m = Mul(x, f)", "pads=[1,1,1,1]", {}),
        ("m = Div(x, f)", "pads=[1,1,1,1]", {}),
        ("m = Sub(x, f)", "pads=[0,0,0,0]", {}),
        ("m = Sub(x, f)", "pads=[1,1,1,1]", {"Add": 1}),
        ("m = Mul(x, rows)", "pads=[0,0,0,0]", {"Mul": 1}),
    ],
)
def test_before_with_a_transpose_between(arithmetic: str, padding: str, left: dict[str, int]) -> None:
    """A picture is normalized with channels last."""
    parts = constants(f=(3,), rows=(5, 1), w=(4, 3, 3, 3))
    body = f"{arithmetic} t = Transpose<perm=[0,3,1,2]>(m) y = Conv<{padding}>(t, w)"
    model = same(f"g (float[1,6,5,3] x) => (y) {parts} {{ {body} }}", tolerance=1e-5)
    assert operators(model) == {"Transpose": 1, "Conv": 1} | left


def test_before_with_a_transpose_that_others_read() -> None:
    parts = constants(f=(3,), w=(4, 3, 3, 3))
    body = "m = Mul(x, f) t = Transpose<perm=[0,3,1,2]>(m) y = Conv(t, w) z = Exp(t)"
    model = same(f"g (float[1,6,5,3] x) => (y, z) {parts} {{ {body} }}", tolerance=1e-5)
    assert operators(model)["Mul"] == 1


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("m = Mul(x, f) a = Add(m, o) y = Conv<pads=[1,1,1,1]>(a, w)", {"Add": 1, "Conv": 1}),
        ("m = Div(x, f) a = Sub(m, o) y = Conv<pads=[1,1,1,1]>(a, w)", {"Add": 1, "Conv": 1}),
        ("m = Mul(x, one) a = Add(m, o) y = Conv<pads=[1,1,1,1]>(a, w)", {"Add": 1, "Conv": 1}),
        ("m = Mul(x, f) a = Add(m, o) y = Conv<pads=[0,0,0,0]>(a, w)", {"Conv": 1}),
        ("m = Mul(x, f) a = Sub(o, m) y = Conv<pads=[1,1,1,1]>(a, w)", {"Mul": 1, "Sub": 1, "Conv": 1}),
        ("m = Mul(x, f) a = Add(m, o) y = Conv<pads=[1,1,1,1]>(a, w) z = Exp(m)", {"Mul": 1, "Add": 1, "Conv": 1, "Exp": 1}),
        ("m = Mul(x, zero) a = Add(m, o) y = Conv<pads=[1,1,1,1]>(a, w)", {"Mul": 1, "Add": 1, "Conv": 1}),
    ],
)
def test_a_scale_and_an_offset_before_a_convolution_with_padding(body: str, left: dict[str, int]) -> None:
    """The offset cannot go into the bias, which the border would show; the scale goes past it."""
    parts = constants(f=(3, 1, 1), o=(3, 1, 1), w=(4, 3, 3, 3))[:-1] + ", float one = {0.0039}, float zero = {1e-9}>"
    results = "y, z" if "z =" in body else "y"
    assert operators(same(f"g (float[1,3,6,5] x) => ({results}) {parts} {{ {body} }}", tolerance=1e-5)) == left
