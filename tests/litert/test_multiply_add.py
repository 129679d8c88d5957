"""A product and a sum per channel are a depthwise convolution of one pixel, where nothing is lost by it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgekit import hub, litert
from edgekit.litert import multiply_add
from edgekit.litert.graph import Graph, Operator, Tensor
from edgekit.litert.multiply_add import multiply_and_add
from edgekit.litert.write import write

from .running import WITHOUT_DELEGATES, artifact_results, model, operators, relative_error, source_results
from .test_graph_passes import check, weights

POOL = "k = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)"
"""Holds what comes after it channels-last."""
MEAN = "y = ReduceMean<keepdims=0>(a, axes)"


@pytest.mark.parametrize("activation", ["Relu(p)", "Clip(p, zero, six)", "Tanh(p)"])
def test_a_batch_norm_before_a_convolution_is_one_operator(activation: str) -> None:
    """DenseNet: norm, activation, convolution."""
    proto = model(
        f"""net (float[2,8,6,6] x) => (float[2,4] y) {{
            p = BatchNormalization(x, s, o, m, v) r = {activation} a = Conv<pads=[1,1,1,1]>(r, w) {MEAN}
        }}""",
        s=weights(8), o=weights(8), m=weights(8), v=weights(8) ** 2, w=weights(4, 8, 3, 3), axes=np.array([2, 3]),
        zero=np.float32(0), six=np.float32(6),
    )  # fmt: skip
    apart = {"TANH": 1} if activation == "Tanh(p)" else {}
    check(proto, {"x": weights(2, 8, 6, 6) * 3}, {"DEPTHWISE_CONV_2D": 1, "CONV_2D": 1, "MEAN": 1} | apart)


@pytest.mark.parametrize(
    ("sum", "found"),
    [
        ("Add(p, o)", "DEPTHWISE_CONV_2D"),
        ("Sub(p, o)", "DEPTHWISE_CONV_2D"),
        ("Sub(o, p)", "DEPTHWISE_CONV_2D"),
        ("Add(p, one)", "DEPTHWISE_CONV_2D"),
        ("Add(p, k)", "MUL"),
        ("Add(p, rows)", "MUL"),
    ],
)
def test_sums_and_differences_with_constants_per_channel(sum: str, found: str) -> None:
    proto = model(
        f"net (float[1,8,6,6] x) => (float[1,8] y) {{ {POOL} p = Mul(k, s) q = {sum} a = Tanh(q) {MEAN} }}",
        s=weights(8, 1, 1), o=weights(8, 1, 1), rows=weights(6, 1), one=np.float32(1.5), axes=np.array([2, 3]),
    )  # fmt: skip
    rest = {"MAX_POOL_2D": 1, "TANH": 1, "MEAN": 1} | ({"ADD": 1} if found == "MUL" else {})
    check(proto, {"x": weights(1, 8, 6, 6)}, {found: 1} | rest)


def test_few_channels_beside_a_single_number_stay_two_operators() -> None:
    """A picture: to multiply all by 1/255 costs next to nothing, a convolution of three channels more than a sum."""
    proto = model(
        f"net (float[1,3,6,6] x) => (float[1,3] y) {{ {POOL} p = Mul(k, s) q = Add(p, o) a = Tanh(q) {MEAN} }}",
        s=np.float32(1 / 255), o=weights(3, 1, 1), axes=np.array([2, 3]),
    )  # fmt: skip
    check(proto, {"x": weights(1, 3, 6, 6)}, {"MAX_POOL_2D": 1, "MUL": 1, "ADD": 1, "TANH": 1, "MEAN": 1})


@pytest.mark.parametrize(
    ("body", "results"),
    [
        ("t = Tanh(q) a = Add(t, p) " + MEAN, "float[1,8] y"),
        (f"a = Tanh(q) {MEAN} z = Exp(a)", "float[1,8] y, float[1,8,6,6] z"),
        ("a = Tanh(q) y = ReduceMean<keepdims=0>(a, channels)", "float[1,6,6] y"),
        ("a = Tanh(q) y = ReduceMean<keepdims=0>(a, rows)", "float[1,8,6] y"),
    ],
    ids=["product read elsewhere", "a map is a result", "mean of channels", "mean of rows"],
)
def test_where_a_position_shows_there_are_two_operators(body: str, results: str) -> None:
    proto = model(
        f"net (float[1,8,6,6] x) => ({results}) {{ {POOL} p = Mul(k, s) q = Add(p, o) {body} }}",
        s=weights(8, 1, 1), o=weights(8, 1, 1), axes=np.array([2, 3]), channels=np.array([1]), rows=np.array([2]),
    )  # fmt: skip
    compiled = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)), input_layout="nhwc", output_layout="nhwc")
    assert operators(compiled.data)["MUL"] == 1
    feeds = {"x": weights(1, 8, 6, 6)}
    made = artifact_results(compiled, feeds)
    for name, array in source_results(proto, feeds).items():
        assert relative_error(array, made[name]) < 5e-6


@pytest.mark.parametrize(
    ("rest", "operator"),
    [
        ("r = ReduceMean<keepdims=1>(q, width) y = ReduceMean<keepdims=0>(r, axes)", "MEAN"),
        ("r = Reshape(q, long) y = MatMul(r, w)", "FULLY_CONNECTED"),
        ("g = ReduceMean<keepdims=1>(q, axes) h = Sigmoid(g) m = Mul(q, h) y = ReduceMean<keepdims=0>(m, axes)", "MEAN"),
    ],
    ids=["in two steps", "dense", "gate"],
)
def test_ways_over_all_positions(rest: str, operator: str) -> None:
    proto = model(
        f"net (float[1,8,6,6] x) => (float[1,8] y) {{ {POOL} p = Mul(k, s) t = Add(p, o) q = Relu(t) {rest} }}",
        s=weights(8, 1, 1), o=weights(8, 1, 1), axes=np.array([2, 3]), width=np.array([3]),
        long=np.array([1, 288]), w=weights(288, 8),
    )  # fmt: skip
    compiled = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)), input_layout="nhwc", output_layout="nhwc")
    found = operators(compiled.data)
    assert found["DEPTHWISE_CONV_2D"] == 1
    assert found[operator] > 0
    feeds = {"x": weights(1, 8, 6, 6)}
    assert relative_error(source_results(proto, feeds)["y"], artifact_results(compiled, feeds)["y"]) < 5e-6


@pytest.mark.parametrize("resolver", [OpResolverType.AUTO, WITHOUT_DELEGATES], ids=["xnnpack", "reference"])
@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_leaves_the_same_channels_not_finite(strange: float, resolver: OpResolverType) -> None:
    x = weights(2, 5, 7, 17)
    x[0, 2, 3, :4] = x[1, 0, 0, 9] = strange
    before, after = (_means(x, fused, resolver) for fused in (False, True))
    np.testing.assert_array_equal(np.isfinite(before), np.isfinite(after))
    np.testing.assert_allclose(after[np.isfinite(after)], before[np.isfinite(before)], rtol=1e-5, atol=1e-6)


def _means(x: np.ndarray, fused: bool, resolver: OpResolverType) -> np.ndarray:
    """The mean over the positions of x * scale + offset in each channel."""
    channels, size, kept = x.shape[-1], x.shape, (x.shape[0], x.shape[-1])
    names = {"x": size, "product": size, "sum": size, "mean": kept}
    at = {name: Tensor(name, shape, np.dtype(np.float32)) for name, shape in names.items()}
    numbers = {"scale": np.linspace(-2, 2, channels, dtype=np.float32), "offset": np.linspace(3, -1, channels, dtype=np.float32)}
    at |= {name: Tensor(name, (channels,), data.dtype, data) for name, data in numbers.items()}
    axes = Tensor("axes", (2,), np.dtype(np.int32), np.array([1, 2], np.int32))
    graph = Graph("means", [at["x"]], [at["mean"]])
    graph.operators = [
        Operator("MUL", [at["x"], at["scale"]], [at["product"]]),
        Operator("ADD", [at["offset"], at["product"]], [at["sum"]]),
        Operator("MEAN", [at["sum"], axes], [at["mean"]], {"keepDims": False}),
    ]
    if fused:
        multiply_and_add(graph)
        assert [op.code for op in graph.operators] == ["DEPTHWISE_CONV_2D", "MEAN"]
    data = write(graph, "means")
    runner = Interpreter(model_content=data, experimental_op_resolver_type=resolver).get_signature_runner()
    return runner(x=x)["mean"]


def test_eight_bits_cost_less_than_with_two_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """The factors, a hundred to one, are rounded channel by channel."""
    factors = np.geomspace(0.02, 2, 8, dtype=np.float32).reshape(8, 1, 1)
    filters = np.abs(np.random.default_rng(5).normal(size=(4, 8, 3, 3))).astype(np.float32) / factors
    proto = model(
        """net (float[1,8,8,8] x) => (float[1,4] y) {
            p = Mul(x, s) q = Add(p, o) r = Relu(q) a = Conv<pads=[1,1,1,1]>(r, w) y = ReduceMean<keepdims=0>(a, axes)
        }""",
        s=factors, o=np.linspace(0, 0.1, 8, dtype=np.float32).reshape(8, 1, 1), w=filters, axes=np.array([2, 3]),
    )  # fmt: skip
    one = _error_in_eight_bits(proto, "DEPTHWISE_CONV_2D")
    monkeypatch.setattr(multiply_add, "FEWEST", {})
    two = _error_in_eight_bits(proto, "MUL")
    assert one < two


def _error_in_eight_bits(proto: onnx.ModelProto, found: str) -> float:
    """The mean relative error of what ai-edge-quantizer makes of a model with one picture and one vector, with that operator."""
    from ai_edge_quantizer import quantizer, recipe

    data = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)), input_layout="nhwc").data
    samples = [np.random.default_rng(seed).normal(size=(1, 8, 8, 8)).astype(np.float32) for seed in range(16)]
    held = [{"x": np.moveaxis(sample, 1, -1)} for sample in samples]
    work = quantizer.Quantizer(data)
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    quantized = bytes(work.quantize(work.calibrate({"serving_default": held})).quantized_model)
    assert operators(quantized)[found] == 1
    interpreter = Interpreter(model_content=quantized)
    interpreter.allocate_tensors()
    into, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    errors = []
    for sample, feed in zip(samples, held, strict=True):
        scale, zero = into["quantization"]
        interpreter.set_tensor(into["index"], np.clip(np.rint(feed["x"] / scale) + zero, -128, 127).astype(into["dtype"]))
        interpreter.invoke()
        scale, zero = out["quantization"]
        got = (interpreter.get_tensor(out["index"]).astype(np.float32) - zero) * scale
        errors.append(relative_error(source_results(proto, {"x": sample})["y"], got))
    return float(np.mean(errors))
