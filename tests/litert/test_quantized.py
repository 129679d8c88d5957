"""Quantized ONNX models give LiteRT files that compute on integers, within one step of what onnxruntime computes."""

from __future__ import annotations

import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from edgekit import hub, litert, ort
from edgekit.litert import Compiled
from edgekit.quantize.data import Calibration

from .quantized_models import (
    NETWORKS,
    Arrays,
    compiled,
    computing,
    delegates,
    input_of,
    onnxruntime_results,
    output_step,
    quantized,
    random_feeds,
)
from .running import WITHOUT_DELEGATES, artifact_results, model, operators, relative_error, source_results

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
FORMS = [(form, dtype) for form in ("QDQ", "QOperator") for dtype in ("QInt8", "QUInt8")]


def agreement(source: onnx.ModelProto, made: Compiled, feeds: Arrays) -> float:
    """The least share, over the outputs, of elements that are at most one step of the output's scale away from onnxruntime's."""
    shares = []
    ours = artifact_results(made, feeds)
    for name, array in onnxruntime_results(source, feeds).items():
        assert ours[name].shape == array.shape
        assert ours[name].dtype == array.dtype
        step = output_step(source, name) if array.dtype == np.float32 else 1.0
        shares.append(float((np.abs(ours[name].astype(np.float64) - array) <= 1.01 * step).mean()))
    return min(shares)


def float_operators(made: Compiled) -> set[str]:
    return {code for code, dtype in computing(made.data) if dtype == "float32"}


@pytest.mark.parametrize(("form", "activations"), FORMS)
@pytest.mark.parametrize("per_channel", [True, False], ids=["per_channel", "per_tensor"])
def test_the_sample_is_all_integers(form: str, activations: str, per_channel: bool, tmp_path: Path) -> None:
    source = onnx.load(SAMPLES / "digits.onnx")
    name, _ = input_of(source)
    with np.load(SAMPLES / "digits_nchw_calibration.npz") as file:
        pictures = file[file.files[0]].astype(np.float32).reshape(-1, 1, 1, 8, 8)
    small = quantized(source, [{name: picture} for picture in pictures[:64]], tmp_path, form, activations, per_channel)
    made = compiled(small, input_layout="nhwc")
    assert float_operators(made) == set()
    assert made.notes == ()
    assert delegates(made.data) == 1
    assert all(agreement(small, made, {name: picture}) == 1.0 for picture in pictures[:8])


IN_FLOAT = {"attention": {"BATCH_MATMUL", "SOFTMAX"}}


@pytest.mark.parametrize(("form", "activations"), FORMS)
@pytest.mark.parametrize("network", NETWORKS)
def test_networks(network: str, form: str, activations: str, tmp_path: Path) -> None:
    source = NETWORKS[network]
    feeds = random_feeds(source, 16)
    small = quantized(source, feeds, tmp_path, form, activations)
    made = compiled(small, input_layout="nhwc")
    left = {"TRANSPOSE_CONV", "PAD"} if (network, form) == ("moves", "QOperator") else IN_FLOAT.get(network, set())
    assert float_operators(made) == left
    assert np.mean([agreement(small, made, feed) for feed in feeds[:5]]) >= 0.98
    for code in left - {"PAD"}:
        assert any(note.startswith(code) and "in float" in note for note in made.notes)


@pytest.mark.parametrize("seed", range(12))
def test_any_part_may_be_left_in_float(seed: int, tmp_path: Path) -> None:
    """Networks of which onnxruntime was told to leave some operators alone, and to quantize the others in one way or another."""
    generator = np.random.default_rng(seed)
    source = NETWORKS[list(NETWORKS)[seed % len(NETWORKS)]]
    feeds = random_feeds(source, 6)
    small = quantized(
        source,
        feeds,
        tmp_path,
        "QDQ",
        str(generator.choice(["QInt8", "QUInt8"])),
        bool(generator.integers(2)),
        left_out=generator.choice(len(source.graph.node), 3, replace=False).tolist(),
        extra_options={
            "ActivationSymmetric": bool(generator.integers(2)),
            "AddQDQPairToWeight": bool(generator.integers(2)),
            "DedicatedQDQPair": bool(generator.integers(2)),
            "QuantizeBias": bool(generator.integers(2)),
        },
    )
    made = compiled(small)
    ours = artifact_results(made, feeds[0])
    for name, theirs in source_results(small, feeds[0]).items():
        assert relative_error(theirs, ours[name]) < 0.02


ALONE = {
    "Abs": ("Abs(d)", "ABS", "float32"),
    "Add": ("Add(d, e)", "ADD", "int8"),
    "Add of a constant": ("Add(d, row)", "ADD", "int8"),
    "Add of a number": ("Add(d, half)", "ADD", "int8"),
    "ArgMax": ("ArgMax<axis=1>(d)", "ARG_MAX", "int64"),
    "AveragePool": ("AveragePool<kernel_shape=[2,2]>(d)", "DEPTHWISE_CONV_2D", "int8"),
    "AveragePool of all": ("AveragePool<kernel_shape=[8,8]>(d)", "MEAN", "int8"),
    "Concat": ("Concat<axis=1>(d, e)", "CONCATENATION", "int8"),
    "DepthToSpace": ("DepthToSpace<blocksize=2>(d)", "DEPTH_TO_SPACE", "int8"),
    "Elu": ("Elu(d)", "ELU", "int8"),
    "Expand": ("Expand(d, twice)", "BROADCAST_TO", "int8"),
    "Gather": ("Gather<axis=1>(d, places)", "GATHER", "int8"),
    "Gelu, at the end": ("Gelu(d)", "GELU", "int8"),
    "GlobalAveragePool": ("GlobalAveragePool(d)", "MEAN", "int8"),
    "HardSwish, at the end": ("HardSwish(d)", "HARD_SWISH", "int8"),
    "LeakyRelu": ("LeakyRelu(d)", "LEAKY_RELU", "int8"),
    "MatMul, at the end": ("MatMul(d, e)", "BATCH_MATMUL", "int8"),
    "Max": ("Max(d, e)", "MAXIMUM", "int8"),
    "MaxPool": ("MaxPool<kernel_shape=[2,2]>(d)", "MAX_POOL_2D", "int8"),
    "MaxPool, padded": ("MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(d)", "MAX_POOL_2D", "int8"),
    "Mul": ("Mul(d, e)", "MUL", "int8"),
    "Mul by a number": ("Mul(d, half)", "MUL", "int8"),
    "Pad": ("Pad(d, pads)", "PAD", "int8"),
    "Pad with a number": ("Pad(d, pads, half)", "PADV2", "int8"),
    "PRelu, at the end": ("PRelu(d, slope)", "PRELU", "int8"),
    "ReduceMax": ("ReduceMax(d, axes)", "REDUCE_MAX", "int8"),
    "ReduceSum": ("ReduceSum(d, axes)", "SUM", "int8"),
    "Relu, at the end": ("Relu(d)", "RELU", "int8"),
    "Sigmoid": ("Sigmoid(d)", "LOGISTIC", "int8"),
    "Slice": ("Slice(d, starts, ends)", "SLICE", "int8"),
    "Slice with steps": ("Slice(d, starts, ends, every, steps)", "STRIDED_SLICE", "int8"),
    "Softmax, at the end": ("Softmax<axis=1>(d)", "SOFTMAX", "int8"),
    "SpaceToDepth": ("SpaceToDepth<blocksize=2>(d)", "SPACE_TO_DEPTH", "int8"),
    "Sub": ("Sub(d, e)", "SUB", "int8"),
    "Tanh": ("Tanh(d)", "TANH", "int8"),
    "Tile": ("Tile(d, repeats)", "TILE", "int8"),
    "Transpose": ("Transpose<perm=[0,2,3,1]>(d)", "TRANSPOSE", "int8"),
}
"""ONNX on `d` and `e`, the LiteRT operator, and the dtype of its result."""
CONSTANTS: Arrays = {
    "half": np.float32(0.5),
    "slope": np.full((4, 1, 1), 0.25, np.float32),
    "twice": np.array([2, 4, 8, 8]),
    "places": np.array([1, 0, 3]),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "axes": np.array([2, 3]),
    "starts": np.array([0, 0, 1, 1]),
    "ends": np.array([1, 4, 7, 7]),
    "every": np.array([0, 1, 2, 3]),
    "steps": np.array([1, 1, 2, 2]),
    "repeats": np.array([1, 2, 1, 1]),
}


def between(body: str, scale: float, zero: int, *, first: str = "") -> onnx.ModelProto:
    """`body` on quantized `d` (scale 0.02) and `e` (0.01), both 1x4x8x8, and a quantized constant `row`; its result quantized.

    `first` are nodes that come before it.
    """
    chosen = {name: array for name, array in CONSTANTS.items() if name in re.findall(r"\w+", first + body)}
    is_index = body.startswith("ArgMax")
    result = "y = Identity(o)" if is_index else "r = QuantizeLinear(o, so, zo) y = DequantizeLinear(r, so, zo)"
    made = model(
        f"""net (float[1,4,8,8] x, float[1,4,8,8] x2) => ({"int64" if is_index else "float"}[] y) {{
            q = QuantizeLinear(x, sd, zd)
            d = DequantizeLinear(q, sd, zd)
            q2 = QuantizeLinear(x2, se, ze)
            e = DequantizeLinear(q2, se, ze)
            row = DequantizeLinear(rows, sd, zd)
            {first}
            o = {body}
            {result}
        }}""",
        sd=np.float32(0.02),
        zd=np.int8(3),
        se=np.float32(0.01),
        ze=np.int8(-7),
        so=np.float32(scale),
        zo=np.int8(zero),
        rows=np.arange(-40, 40, 20, dtype=np.int8).reshape(4, 1, 1),
        **chosen,
    )
    made.graph.output[0].type.tensor_type.ClearField("shape")
    return made


def two_inputs() -> Arrays:
    generator = np.random.default_rng(3)
    return {name: generator.normal(size=(1, 4, 8, 8)).astype(np.float32) for name in ("x", "x2")}


@pytest.mark.parametrize("resolver", [OpResolverType.AUTO, WITHOUT_DELEGATES], ids=["xnnpack", "builtin"])
@pytest.mark.parametrize("grid", [(0.02, 3), (0.025, -5)], ids=["same_scale", "other_scale"])
@pytest.mark.parametrize("case", ALONE)
def test_one_operator(case: str, grid: tuple[float, int], resolver: Any) -> None:
    body, code, dtype = ALONE[case]
    source = between(body, *grid)
    made = compiled(source, input_layout="nhwc", output_layout="nhwc")
    assert computing(made.data)[code, dtype] == 1
    feeds = two_inputs()
    interpreter = Interpreter(model_content=made.data, experimental_op_resolver_type=resolver)
    runner = interpreter.get_signature_runner()
    held = runner(**{b.artifact: b.to_artifact(feeds[b.source]) for b in made.inputs})
    ours = made.outputs[0].to_source(held[made.outputs[0].artifact])
    step = 0.0 if dtype == "int64" else grid[0]
    np.testing.assert_allclose(ours, onnxruntime_results(source, feeds)["y"], rtol=0, atol=1.01 * step)


def quantized_layer(body: str, weights: np.ndarray, scales: Any, zeros: Any, **attributes: Any) -> onnx.ModelProto:
    """`body` on a quantized `d` (1x4x8x8) and dequantized weights `w` with a bias `b`, its result quantized."""
    made = model(
        f"""net (float[1,4,8,8] x) => (float[] y) {{
            q = QuantizeLinear(x, sd, zd)
            d = DequantizeLinear(q, sd, zd)
            w = DequantizeLinear<axis=0>(wq, sw, zw)
            b = DequantizeLinear<axis=0>(bq, sb)
            o = {body}
            r = QuantizeLinear(o, so, zo)
            y = DequantizeLinear(r, so, zo)
        }}""",
        sd=np.float32(0.02),
        zd=np.int8(3),
        wq=weights,
        sw=np.asarray(scales, np.float32),
        zw=np.asarray(zeros, weights.dtype),
        bq=np.arange(weights.shape[0], dtype=np.int32) * 100,
        sb=(np.float32(0.02) * np.asarray(scales, np.float32)).astype(np.float32),
        so=np.float32(0.05),
        zo=np.int8(-10),
    )
    made.graph.output[0].type.tensor_type.ClearField("shape")
    return made


def picture() -> Arrays:
    return {"x": np.random.default_rng(4).normal(size=(1, 4, 8, 8)).astype(np.float32)}


CONV = "Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, w, b)"


def weights_of(made: Compiled, name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """The integers of a constant in the file, and how they are quantized."""
    interpreter = Interpreter(model_content=made.data, experimental_op_resolver_type=WITHOUT_DELEGATES)
    interpreter.allocate_tensors()
    tensor = next(t for t in interpreter.get_tensor_details() if t["name"].endswith(name))
    return interpreter.get_tensor(tensor["index"]), tensor["quantization_parameters"]


def test_integers_are_carried_over_exactly() -> None:
    integers = np.random.default_rng(5).integers(-127, 128, (6, 4, 3, 3), dtype=np.int8)
    scales = np.linspace(0.001, 0.02, 6)
    source = quantized_layer(CONV, integers, scales, np.zeros(6))
    made = compiled(source, input_layout="nhwc", output_layout="nhwc")
    assert computing(made.data) == {("CONV_2D", "int8"): 1}
    held, quantization = weights_of(made, "weights")
    np.testing.assert_array_equal(held, integers.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(quantization["scales"], scales.astype(np.float32))
    assert quantization["quantized_dimension"] == 0
    bias, quantization = weights_of(made, "bias")
    np.testing.assert_array_equal(bias, np.arange(6) * 100)
    np.testing.assert_allclose(quantization["scales"], 0.02 * scales, rtol=1e-6)
    assert agreement(source, made, picture()) == 1.0


def test_depthwise_weights_have_their_channels_last() -> None:
    integers = np.random.default_rng(5).integers(-127, 128, (8, 1, 3, 3), dtype=np.int8)
    source = quantized_layer(CONV.replace("<", "<group=4, "), integers, np.linspace(0.001, 0.02, 8), np.zeros(8))
    made = compiled(source, input_layout="nhwc", output_layout="nhwc")
    assert computing(made.data) == {("DEPTHWISE_CONV_2D", "int8"): 1}
    held, quantization = weights_of(made, "weights")
    np.testing.assert_array_equal(held, integers.transpose(1, 2, 3, 0))
    assert quantization["quantized_dimension"] == 3
    assert agreement(source, made, picture()) == 1.0


def test_unsigned_weights_around_128_are_signed_ones() -> None:
    integers = np.random.default_rng(5).integers(1, 256, (6, 4, 3, 3), dtype=np.uint8)
    source = quantized_layer(CONV, integers, np.full(6, 0.01), np.full(6, 128))
    made = compiled(source, input_layout="nhwc", output_layout="nhwc")
    assert computing(made.data) == {("CONV_2D", "int8"): 1}
    np.testing.assert_array_equal(weights_of(made, "weights")[0], (integers.transpose(0, 2, 3, 1).astype(int) - 128))
    assert agreement(source, made, picture()) == 1.0


def test_asymmetric_weights_stay_in_float_and_are_right() -> None:
    integers = np.random.default_rng(5).integers(0, 256, (6, 4, 3, 3), dtype=np.uint8)
    source = quantized_layer(CONV, integers, np.full(6, 0.01), np.full(6, 90))
    made = compiled(source, input_layout="nhwc", output_layout="nhwc")
    assert computing(made.data) == {("CONV_2D", "float32"): 1}
    assert "not symmetric" in made.notes[0]
    assert agreement(source, made, picture()) == 1.0


def test_a_second_minus_128_in_a_channel_is_noted() -> None:
    """Two products of -128 * -128 overflow the 16 bits in which ARM kernels add them; one does not."""
    integers = np.full((6, 4, 3, 3), 5, np.int8)
    integers[1:4, 1, 0, 0] = -128
    source = quantized_layer(CONV, integers, np.full(6, 0.01), np.zeros(6))
    made = compiled(source, input_layout="nhwc", output_layout="nhwc")
    assert made.notes == ()
    np.testing.assert_array_equal(weights_of(made, "weights")[0], integers.transpose(0, 2, 3, 1))

    integers[2, 3, 1, 1] = -128
    source = quantized_layer(CONV, integers, np.full(6, 0.01), np.zeros(6))
    made = compiled(source, input_layout="nhwc", output_layout="nhwc")
    assert computing(made.data) == {("CONV_2D", "int8"): 1}
    assert "1 of them written as -127" in made.notes[0]
    assert (weights_of(made, "weights")[0] == -128).sum(axis=(1, 2, 3)).tolist() == [0, 1, 1, 1, 0, 0]
    assert agreement(source, made, picture()) == 1.0


def test_weights_that_are_quantized_in_the_graph() -> None:
    """What quantization-aware training exports: QuantizeLinear and DequantizeLinear of float weights."""
    weights = np.random.default_rng(6).normal(0, 0.2, (6, 4, 3, 3)).astype(np.float32)
    source = model(
        """net (float[1,4,8,8] x) => (float[1,6,8,8] y) {
            q = QuantizeLinear(x, sd, zd)
            d = DequantizeLinear(q, sd, zd)
            wq = QuantizeLinear<axis=0>(w, sw, zw)
            wd = DequantizeLinear<axis=0>(wq, sw, zw)
            c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, wd, bias)
            o = Relu(c)
            r = QuantizeLinear(o, so, zo)
            y = DequantizeLinear(r, so, zo)
        }""",
        w=weights,
        bias=np.linspace(-1, 1, 6).astype(np.float32),
        sd=np.float32(0.02),
        zd=np.uint8(131),
        sw=(np.abs(weights).max(axis=(1, 2, 3)) / 127).astype(np.float32),
        zw=np.zeros(6, np.int8),
        so=np.float32(0.03),
        zo=np.uint8(0),
    )
    made = compiled(source, input_layout="nhwc", output_layout="nhwc")
    assert operators(made.data) == {"QUANTIZE": 1, "CONV_2D": 1, "DEQUANTIZE": 1}
    assert computing(made.data) == {("CONV_2D", "int8"): 1}
    assert agreement(source, made, picture()) >= 0.99


def test_a_quantized_flatten_needs_no_transpose(tmp_path: Path) -> None:
    """The rows of the quantized matrix are put in the order that the feature map is held in."""
    source = NETWORKS["dense"]
    made = compiled(quantized(source, random_feeds(source, 8), tmp_path, "QDQ", "QInt8"), input_layout="nhwc")
    assert operators(made.data)["TRANSPOSE"] == 0


def test_what_is_used_in_float_as_well_stays_exact() -> None:
    source = model(
        """net (float[1,4,8,8] x) => (float[1,4,8,8] y, float[1,4,8,8] z) {
            q = QuantizeLinear(x, s, zero)
            d = DequantizeLinear(q, s, zero)
            a = Add(d, d)
            r = QuantizeLinear(a, s, zero)
            y = DequantizeLinear(r, s, zero)
            z = Exp(a)
        }""",
        s=np.float32(0.02),
        zero=np.int8(3),
    )
    made = compiled(source)
    assert ("ADD", "float32") in computing(made.data)
    assert any("also used in float" in note for note in made.notes)
    ours, theirs = artifact_results(made, picture()), source_results(source, picture())
    assert relative_error(theirs["z"], ours["z"]) < 1e-6
    assert relative_error(theirs["y"], ours["y"]) < 1e-6


def test_clamps_that_saturation_does_already() -> None:
    body = "Clip(d, low, high) "
    source = between(body, 6 / 255, -128)
    source.graph.initializer.extend(numpy_helper.from_array(np.float32(v), n) for n, v in (("low", 0), ("high", 6)))
    made = compiled(source)
    assert operators(made.data) == {"QUANTIZE": 2, "DEQUANTIZE": 1}
    assert agreement(source, made, two_inputs()) == 1.0


def test_an_average_with_a_finer_scale_than_its_input() -> None:
    source = between("AveragePool<kernel_shape=[4,4], strides=[4,4]>(d)", 0.004, 5)
    made = compiled(source, input_layout="nhwc", output_layout="nhwc")
    assert computing(made.data) == {("DEPTHWISE_CONV_2D", "int8"): 1}
    assert agreement(source, made, two_inputs()) == 1.0


@pytest.mark.parametrize(("scale", "dtype"), [(0.03, "int8"), (0.004, "float32")])
def test_an_interpolation_keeps_the_scale_of_its_input(scale: float, dtype: str) -> None:
    """RESIZE_BILINEAR on integers rounds to its input's grid: too coarse where a finer one is wanted."""
    source = between('Resize<mode="linear">(d, , scales)', scale, 5)
    source.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
    made = compiled(source, input_layout="nhwc", output_layout="nhwc")
    assert ("RESIZE_BILINEAR", dtype) in computing(made.data)
    assert agreement(source, made, two_inputs()) == 1.0


def test_a_gate_with_a_finer_scale_than_the_kernel_gives() -> None:
    source = between("Sigmoid(d)", 0.0005, 0)
    made = compiled(source)
    assert ("LOGISTIC", "float32") in computing(made.data)
    assert "finer" in made.notes[0]
    assert agreement(source, made, two_inputs()) == 1.0


@pytest.mark.parametrize("code", ["Gelu", "HardSwish", "PRelu"])
def test_kernels_that_xnnpack_lacks_stay_in_float_inside_a_network(code: str) -> None:
    operands = "d, slope" if code == "PRelu" else "d"
    first = f"a = {code}({operands}) aq = QuantizeLinear(a, sd, zd) ad = DequantizeLinear(aq, sd, zd)"
    source = between("LeakyRelu(ad)", 0.02, 3, first=first)
    made = compiled(source)
    assert "XNNPACK has no int8 kernel" in made.notes[0]
    assert computing(made.data)["LEAKY_RELU", "int8"] == 1
    assert delegates(made.data) == 1
    assert agreement(source, made, two_inputs()) >= 0.99


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_integers_at_the_inputs_and_outputs(dtype: Any) -> None:
    """A model for an accelerator: integers in, integers out, in the dtype that the model declares."""
    name = np.dtype(dtype).name
    source = model(
        f"""net ({name}[1,4,8,8] x) => ({name}[1,6,4,4] y) {{
            c = QLinearConv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, sx, zx, w, sw, zw, sy, zy, b)
            y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c)
        }}""",
        sx=np.float32(0.02),
        zx=np.array(3, dtype),
        w=np.random.default_rng(5).integers(-127, 128, (6, 4, 3, 3), dtype=np.int8),
        sw=np.linspace(0.001, 0.02, 6).astype(np.float32),
        zw=np.zeros(6, np.int8),
        sy=np.float32(0.05),
        zy=np.array(20, dtype),
        b=np.arange(6, dtype=np.int32) * 100,
    )
    made = compiled(source, input_layout="nhwc", output_layout="nhwc")
    assert [b.dtype for b in (*made.inputs, *made.outputs)] == [name, name]
    assert set(computing(made.data)) == {("CONV_2D", "int8"), ("MAX_POOL_2D", "int8")}
    info = np.iinfo(dtype)
    feeds = {"x": np.random.default_rng(7).integers(info.min, info.max, (1, 4, 8, 8), dtype=dtype)}
    assert agreement(source, made, feeds) == 1.0


@pytest.mark.parametrize("network", ["dense", "attention"])
def test_dynamic_quantization_keeps_its_integers(network: str, tmp_path: Path) -> None:
    """Float in, int8 weights, float out. With one row LiteRT's scheme is ONNX's; with more it has a scale for each."""
    path = tmp_path / "dynamic.onnx"
    copy = onnx.ModelProto()
    copy.CopyFrom(NETWORKS[network])
    quantize_dynamic(copy, path, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8, per_channel=True)
    source = onnx.load(path)
    made = compiled(source)
    products = sum(node.op_type == "MatMulInteger" for node in source.graph.node)
    assert products
    interpreter = Interpreter(model_content=made.data, experimental_op_resolver_type=WITHOUT_DELEGATES)
    dtypes = {tensor["index"]: tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    dense = [op for op in interpreter._get_ops_details() if op["op_name"] == "FULLY_CONNECTED"]
    assert sum(dtypes[op["inputs"][1]] == np.int8 for op in dense) == products
    feeds = random_feeds(NETWORKS[network], 1)[0]
    ours, theirs = artifact_results(made, feeds)["y"], onnxruntime_results(source, feeds)["y"]
    in_float = source_results(NETWORKS[network], feeds)["y"]
    if network == "dense":
        assert relative_error(theirs, ours) < 1e-5
        assert made.notes == ()
    else:
        assert relative_error(in_float, ours) <= 1.2 * relative_error(in_float, theirs)
        assert all("row by row" in note for note in made.notes)


@pytest.mark.parametrize("block", [0, 16], ids=["per_channel", "blocks"])
@pytest.mark.parametrize("dtype", [onnx.TensorProto.INT4, onnx.TensorProto.INT8])
def test_weights_alone_are_multiplied_in_float(dtype: int, block: int) -> None:
    """ONNX computes these in float32; LiteRT's int8 weights beside a float input would quantize that input: they are expanded."""
    generator = np.random.default_rng(8)
    integers = generator.integers(-7, 8, (32, 10))
    scales = generator.uniform(0.01, 0.1, (2, 10) if block else 10).astype(np.float32)
    attributes = "axis=0, block_size=16" if block else "axis=1"
    source = model(
        f"""net (float[1,32] x) => (float[1,10] y) {{
            w = DequantizeLinear<{attributes}>(wq, sw)
            y = MatMul(x, w)
        }}""",
        opset=21,
        sw=scales,
    )
    source.graph.initializer.append(onnx.helper.make_tensor("wq", dtype, (32, 10), integers.reshape(-1).tolist()))
    made = compiled(source, stored_integers=True)
    assert operators(made.data) == {"FULLY_CONNECTED": 1} | ({} if block else {"DEQUANTIZE": 1})
    feeds = {"x": generator.normal(size=(1, 32)).astype(np.float32)}
    assert relative_error(source_results(source, feeds)["y"], artifact_results(made, feeds)["y"]) < 1e-6
    if not block:
        assert "only its weights" in made.notes[0]


def test_what_edgekit_quantizes_for_onnxruntime_compiles_to_the_same_integers() -> None:
    """Both runtimes from one set of integers: the ONNX Runtime artifact, compiled for LiteRT."""
    source = onnx.load(SAMPLES / "digits.onnx")
    name, _ = input_of(source)
    with np.load(SAMPLES / "digits_nchw_calibration.npz") as file:
        pictures = file[file.files[0]].astype(np.float32).reshape(-1, 1, 1, 8, 8)
    calibration = Calibration(tuple({name: p} for p in pictures[:64]), "npz", "digits_nchw_calibration.npz", "")
    artifacts = ort.build(hub.prepare(ir.serde.deserialize_model(source)), "int8", calibration=calibration)
    small = onnx.load_model_from_string(next(a for a in artifacts if a.format == "onnx").data)
    made = compiled(small, input_layout="nhwc")
    assert float_operators(made) == {"FULLY_CONNECTED"}, "the scores are float, of an input and weights that are int8"
    assert all(agreement(small, made, {name: p}) == 1.0 for p in pictures[64:72])


def test_quantization_aware_training_in_pytorch(tmp_path: Path) -> None:
    """Fake quantization of PyTorch, exported: the weights are float, quantized in the graph, and may be -128."""
    source = pytorch_qat(tmp_path / "qat.onnx")
    made = compiled(source, input_layout="nhwc")
    assert float_operators(made) == set()
    assert all("-127" in note for note in made.notes)
    feeds = random_feeds(source, 1)[0]
    (name,) = [output.name for output in source.graph.output]
    # onnxruntime's optimizer makes an invalid QLinearAdd of scales that are vectors of one: without it
    theirs = source_results(source, feeds)[name]
    assert np.abs(artifact_results(made, feeds)[name] - theirs).max() <= 1.01 * output_step(source, name)


def pytorch_qat(path: Path) -> onnx.ModelProto:
    torch = pytest.importorskip("torch")
    from torch.ao.quantization import disable_observer, get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    class Network(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
            self.second = torch.nn.Conv2d(8, 8, 3, padding=1)
            self.pool = torch.nn.MaxPool2d(2)
            self.last = torch.nn.Linear(8 * 8 * 8, 10)

        def forward(self, x: Any) -> Any:
            x = torch.relu(self.first(x))
            x = x + torch.relu(self.second(x))
            return self.last(self.pool(x).flatten(1))

    torch.manual_seed(0)
    example = torch.randn(1, 3, 16, 16)
    mapping = get_default_qat_qconfig_mapping("qnnpack", version=0)
    network = prepare_qat_fx(Network().train(), mapping, (example,))
    for _ in range(3):
        network(torch.randn(4, 3, 16, 16))
    network.eval().apply(disable_observer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter, and torch.ao itself, are on their way out
        torch.onnx.export(network, (example,), str(path), dynamo=False, opset_version=17)
    return onnx.load(path)


@pytest.mark.registry
def test_pulsevad() -> None:
    """A published voice activity detector, quantized by its author: what onnxruntime computes to the last bit, on real speech."""
    source = onnx.load(_pulsevad("data/pulsevad_2.1k_int8.onnx"))
    _pulsevad("data/mel_filterbank.npy")
    frontend = _module(_pulsevad("frontend_np.py"))
    made = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(source), shapes={"log_mel": (1, 64, 21)}))
    assert float_operators(made) == set()
    assert made.notes == ()
    from real_models.data import speech

    recording = speech()
    for start in range(0, len(recording) - 3200, 3200):
        feeds = {"log_mel": frontend.extract_log_mel_np(recording[None, start : start + 3200])}
        theirs = onnxruntime_results(source, feeds)["logits"]
        np.testing.assert_allclose(artifact_results(made, feeds)["logits"], theirs, rtol=1e-6)


def _pulsevad(name: str) -> Path:
    from real_models import registry

    try:
        return registry.member(registry.Package("pip", "pulsevad", "0.1.3"), f"pulsevad/{name}")
    except registry.Unavailable as error:
        pytest.skip(str(error))


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
