"""What each operator of a LiteRT file computes in, and what stands between two that differ."""

import re

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from edgekit import hub
from edgekit.errors import QuantizeError
from edgekit.litert import compile_hub
from edgekit.quantize import Calibration, Recipe, quantize_litert
from edgekit.quantize.tflite_parts import TfliteParts
from edgekit.runtimes import Runner

RNG = np.random.default_rng(11)
WEIGHTS = {
    "w": RNG.normal(size=(8, 8)),
    "v": RNG.normal(size=(8, 8)),
    "u": RNG.normal(size=(8, 8)),
    "k": RNG.normal(size=(2, 8, 5)),
}


def compiled(text, weights="wvu"):
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 20]> net {text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(WEIGHTS[name].astype(np.float32), name) for name in weights)
    return compile_hub(hub.prepare(ir.from_proto(model)))


def feeds_of(shape, count=16):
    return tuple({"x": RNG.normal(size=shape).astype(np.float32)} for _ in range(count))


def quantized(file, precision, feeds, **layers):
    recipe = Recipe(layers=layers)
    return quantize_litert(file, precision, Calibration(feeds, "npz", "here", ""), recipe=recipe)


def kinds(file):
    return [part.kind for part in TfliteParts(file.data).operators]


def results(file, feeds):
    runner = Runner(file.data, "tflite", file.inputs, file.outputs)
    return np.concatenate([runner.run(feed)["y"].ravel() for feed in feeds]).astype(np.float64)


THREE = "(float[4,8] x) => (float[4,8] y) { a = MatMul(x, w) b = MatMul(a, v) c = MatMul(b, u) y = Mul(c, c) }"


def test_sixteen_bits_leave_only_the_error_of_the_weights():
    file, feeds = compiled(THREE), feeds_of((4, 8))
    exact = results(file, feeds)
    errors = {p: np.abs(results(quantized(file, p, feeds), feeds) - exact).mean() for p in ("int8", "int16x8")}
    assert errors["int16x8"] < 0.6 * errors["int8"]
    assert kinds(quantized(file, "int16x8", feeds)) == ["QUANTIZE", *["FULLY_CONNECTED"] * 3, "MUL", "DEQUANTIZE"]


def test_values_beyond_those_seen_are_not_cut_off_in_sixteen_bits():
    file, feeds = compiled(THREE.replace("y = Mul(c, c)", "y = Neg(c)")), feeds_of((4, 8))
    larger = tuple({"x": feed["x"] * np.float32(1.4)} for feed in feeds)
    exact = results(file, larger)
    found = results(quantized(file, "int16x8", feeds), larger)
    assert np.abs(found - exact).max() < 0.03 * np.abs(exact).max()


@pytest.mark.parametrize("other", ["float", "int16x8"])
def test_one_layer_by_its_exact_name_costs_two_borders(other):
    file, feeds = compiled(THREE), feeds_of((4, 8))
    plain, mixed = kinds(quantized(file, "int8", feeds)), kinds(quantized(file, "int8", feeds, b=other))
    # int8 → QUANTIZE to int16 → product → QUANTIZE to int8, or float between DEQUANTIZE and QUANTIZE
    borders = {"float": ["DEQUANTIZE", "QUANTIZE"], "int16x8": ["QUANTIZE", "QUANTIZE"]}[other]
    assert mixed == [*plain[:2], borders[0], plain[2], borders[1], *plain[3:]]


def test_a_name_is_not_a_pattern_and_not_the_beginning_of_another():
    text = THREE.replace("b =", "a1 =").replace("(b,", "(a1,")
    file, feeds = compiled(text), feeds_of((4, 8))
    assert quantized(file, "int8", feeds, a="float").notes == ("in float: 1 FULLY_CONNECTED",)
    assert quantized(file, "int8", feeds, **{"a": "float", "a1": "float"}).notes == ("in float: 2 FULLY_CONNECTED",)


def test_many_layers_at_once():
    count = 300
    lines = [f"t{i + 1} = Add(t{i}, x)" for i in range(count)]
    file = compiled(f"(float[1,8] x) => (float[1,8] y) {{ t0 = MatMul(x, w) {' '.join(lines)} y = Neg(t{count}) }}", "w")
    feeds = feeds_of((1, 8), 2)
    made = quantized(file, "int8", feeds, **{f"t{i}": "float" for i in range(100, count + 1)})
    assert made.notes == (f"in float: {count - 99} ADD, 1 NEG",)
    assert kinds(made).count("DEQUANTIZE") == 1, "the last integer sum; x is float already"


MOVED = """(float[1,8,4] x) => (float[1,8,4] y) {
    a = Tanh(x) t = Transpose<perm=[0,2,1]>(a) s = Constant<value_ints=[1,2,16]>() r = Reshape(t, s)
    e = Relu(r) f = Constant<value_ints=[1,8,4]>() y = Reshape(e, f) }"""


def test_what_only_moves_numbers_stays_in_float_between_float_operators():
    file, feeds = compiled(MOVED, ""), feeds_of((1, 8, 4))
    in_float = quantized(file, "int8", feeds, a="float")
    assert kinds(in_float).count("QUANTIZE") == 1, "behind the moves or before them, once"
    with pytest.raises(QuantizeError, match="nothing to quantize"):
        quantized(file, "int8", feeds, **{"*": "float"})


def test_moves_between_float_operators_do_not_round():
    text = MOVED.replace("Relu(r)", "Tanh(r)").replace("y = Reshape(e, f)", "g = Reshape(e, f) y = Add(g, x)")
    file, feeds = compiled(text, ""), feeds_of((1, 8, 4))
    made = quantized(file, "int8", feeds, a="float", e="float")
    order = kinds(made)
    assert "DEQUANTIZE" not in order[: order.index("ADD")], "nothing is rounded before the sum takes it"


def test_normalizations_keep_their_squares_in_float():
    text = """(float[4,8] x) => (float[4,8] y) {
        a = MatMul(x, w) s = Mul(a, a) k = Constant<value_ints=[1]>() m = ReduceMean(s, k) e = Constant<value_floats=[1e-5]>()
        o = Add(m, e) q = Sqrt(o) i = Reciprocal(q) n = Mul(a, i) y = MatMul(n, v) }"""
    file, feeds = compiled(text, "wv"), feeds_of((4, 8))
    assert "RSQRT" in file.operators
    made = quantized(file, "int16x8", feeds)
    assert "FULLY_CONNECTED" not in made.notes[0]
    assert re.search("1 RSQRT", made.notes[0])


def test_a_batched_product_with_constants_is_right_in_sixteen_bits():
    file, feeds = compiled("(float[2,4,8] x) => (float[2,4,5] y) { a = Tanh(x) y = MatMul(a, k) }", "k"), feeds_of((2, 4, 8))
    exact = results(file, feeds)
    np.testing.assert_allclose(results(quantized(file, "int16x8", feeds), feeds), exact, atol=0.01 * np.abs(exact).max())


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
@pytest.mark.parametrize("size", [8, 40_000], ids=["inside of the flatbuffer", "behind the flatbuffer"])
@pytest.mark.parametrize("least", [1e-4, 1e-7, 1e-12])
def test_a_channel_of_next_to_no_weights_keeps_its_bias(precision, size, least):
    weights = RNG.normal(size=(8, size)) / 10
    weights[:, 3] *= least
    text = f"(float[4,8] x) => (float[4,{size}] y) {{ p = Gemm(x, w, b) h = Relu(p) y = Mul(h, h) }}"
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 20]> net {text}')
    for name, array in {"w": weights, "b": np.full(size, 2.0)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    file, feeds = compile_hub(hub.prepare(ir.from_proto(model))), feeds_of((4, 8), 4)
    found = results(quantized(file, precision, feeds), feeds).reshape(-1, size)
    np.testing.assert_allclose(found[:, 3], 4, rtol=0.03 if precision == "int8" else 1e-3)


def test_a_softmax_of_many_classes_is_in_float_beside_sixteen_bits():
    file, feeds = compiled("(float[4,8] x) => (float[4,8] y) { a = MatMul(x, w) y = Softmax(a) }", "w"), feeds_of((4, 8))
    assert quantized(file, "int16x8", feeds).notes == ("in float: 1 SOFTMAX",)


@pytest.mark.parametrize("precision", ["int8", "int16x8", "int8-dynamic"])
def test_a_model_with_nothing_to_quantize_is_told_so(precision):
    file, feeds = compiled("(float[4,8] x) => (float[4,8] y) { y = Exp(x) }", ""), feeds_of((4, 8))
    with pytest.raises(QuantizeError, match="nothing to quantize: the model computes with EXP"):
        quantized(file, precision, feeds)


def test_the_same_data_give_the_same_bytes():
    file, feeds = compiled(THREE), feeds_of((4, 8))
    assert quantized(file, "int16x8", feeds).data == quantized(file, "int16x8", feeds).data
