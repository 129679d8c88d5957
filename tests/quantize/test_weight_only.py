"""Weights in 8 or 4 bits, in both runtimes: what is stored, and that it is multiplied right."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from edgekit import hub, ort
from edgekit.errors import QuantizeError
from edgekit.litert import compile_hub
from edgekit.quantize.stored import BLOCK, in_blocks, packed, per_channel
from edgekit.quantize.tflite_parts import TfliteParts
from edgekit.runtimes import Runner

RNG = np.random.default_rng(5)
RUNTIMES = ("tflite", "onnx")


def graph(text, **weights):
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 20]> net {text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items())
    return hub.prepare(ir.from_proto(model))


def made(model, precision, runtime):
    return compile_hub(model, precision=precision) if runtime == "tflite" else ort.build(model, precision, formats=("onnx",))[0]


def result(file, runtime, x):
    return Runner(file.data, runtime, file.inputs, file.outputs).run({"x": x})["y"]


def operators(file, runtime):
    if runtime == "tflite":
        return set(file.operators)
    return {node.op_type for node in onnx.load_model_from_string(file.data).graph.node}


def rounded(weights, axis):
    integers, scales = per_channel(weights.astype(np.float32), axis)
    return integers * scales.reshape([-1 if i == axis else 1 for i in range(weights.ndim)])


def in_four_bits(rows):
    integers, scales = in_blocks(rows.astype(np.float32))
    return (integers.reshape(len(rows), -1, BLOCK) * scales[:, :, None]).reshape(rows.shape)


NETWORK = (
    "(float[1,3,16,16] x) => (float[1,10] y) { c = Conv<pads=[1,1,1,1]>(x, k) r = Relu(c) f = Flatten(r) y = Gemm(f, w, b) }"
)
KERNEL, DENSE, BIAS = RNG.normal(size=(16, 3, 3, 3)), RNG.normal(size=(4096, 10)) * np.linspace(0.1, 2, 10), RNG.normal(size=10)
IMAGE = RNG.normal(size=(1, 3, 16, 16)).astype(np.float32)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_eight_bits_per_channel_are_a_quarter_of_the_file_and_computed_in_float(runtime):
    model = graph(NETWORK, k=KERNEL, w=DENSE, b=BIAS)
    plain, small = made(model, "fp32", runtime), made(model, "int8-weights", runtime)
    assert len(small.data) < 0.3 * len(plain.data)
    exact = result(made(graph(NETWORK, k=rounded(KERNEL, 0), w=rounded(DENSE, 1), b=BIAS), "fp32", "onnx"), "onnx", IMAGE)
    np.testing.assert_allclose(result(small, runtime, IMAGE), exact, atol=2e-5 * np.abs(exact).max())


def test_both_runtimes_hold_the_same_weights():
    model = graph(NETWORK, k=KERNEL, w=DENSE, b=BIAS)
    first, second = (result(made(model, "int8-weights", runtime), runtime, IMAGE) for runtime in RUNTIMES)
    np.testing.assert_allclose(first, second, atol=1e-5 * np.abs(first).max())


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("operator", ["Gemm<transB=1>(x, w)", "MatMul(x, v)"])
def test_four_bits_in_blocks_for_dense_layers(runtime, operator):
    weights = RNG.normal(size=(96, 64)) * np.linspace(0.05, 3, 96)[:, None]
    x = RNG.normal(size=(5, 64)).astype(np.float32)
    model = graph(f"(float[5,64] x) => (float[5,96] y) {{ y = {operator} }}", w=weights, v=weights.T)
    small = made(model, "int4-weights", runtime)
    exact = x @ in_four_bits(weights).T
    # x is rounded to 8 bits, with a range per row: 0.5 % of the result. 4-bit weights in the wrong order would be 100 % off.
    np.testing.assert_allclose(result(small, runtime, x), exact, atol=0.015 * np.abs(exact).max())
    assert operators(small, runtime) & {"FULLY_CONNECTED", "MatMulNBits"}
    assert len(small.data) < 0.6 * len(made(model, "fp32", runtime).data)


TABLE = RNG.normal(size=(300, 64)) * np.linspace(0.05, 3, 300)[:, None]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("dtype", ["int64", "int32"])
@pytest.mark.parametrize("shape", [(7,), (2, 3), ("n", 3)])
@pytest.mark.parametrize(("precision", "stored"), [("int8-weights", rounded(TABLE, 0)), ("int4-weights", in_four_bits(TABLE))])
def test_embeddings_of_any_indices(runtime, precision, stored, shape, dtype):
    dims = ",".join(map(str, shape))
    small = made(graph(f"({dtype}[{dims}] x) => (float[{dims},64] y) {{ y = Gather(t, x) }}", t=TABLE), precision, runtime)
    x = RNG.integers(0, 300, [d if isinstance(d, int) else 4 for d in shape]).astype(dtype)
    np.testing.assert_allclose(result(small, runtime, x), stored[x], rtol=1e-6)
    assert len(small.data) < 30_000
    assert operators(small, runtime) & {"EMBEDDING_LOOKUP", "GatherBlockQuantized", "Cast"}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_one_index_alone(runtime):
    small = made(graph("(int64[1] x) => (float[64] y) { i = Squeeze(x) y = Gather(t, i) }", t=TABLE), "int8-weights", runtime)
    np.testing.assert_allclose(result(small, runtime, np.array([42])), rounded(TABLE, 0)[42], rtol=1e-6)


def test_a_table_of_both_ends_of_a_model_is_stored_once_in_litert():
    text = "(int64[4] x) => (float[4,300] y) { e = Gather(t, x) a = Tanh(e) y = Gemm<transB=1>(a, t) }"
    small = made(graph(text, t=TABLE), "int8-weights", "tflite")
    assert len(small.data) < 30_000


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_batched_weights_are_stored_too(runtime):
    weights = RNG.normal(size=(4, 32, 40)) * np.linspace(0.1, 2, 4)[:, None, None]
    model = graph("(float[4,6,32] x) => (float[4,6,40] y) { y = MatMul(x, w) }", w=weights)
    small = made(model, "int8-weights", runtime)
    x = RNG.normal(size=(4, 6, 32)).astype(np.float32)
    exact = x @ weights
    assert len(small.data) < 0.45 * len(made(model, "fp32", runtime).data)
    assert np.abs(result(small, runtime, x) - exact).max() < 0.02 * np.abs(exact).max()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("size", [(100, 50), (32, 64)], ids=["50 is no multiple of a block", "2,048 weights are few"])
def test_what_four_bits_do_not_suit_is_in_eight(runtime, size):
    odd, even = RNG.normal(size=size), RNG.normal(size=(size[1], 256))
    text = f"(float[2,256] x) => (float[2,{size[0]}] y) {{ h = MatMul(x, v) t = Tanh(h) y = Gemm<transB=1>(t, w) }}"
    x = (RNG.normal(size=(2, 256)) / 50).astype(np.float32)
    exact = np.tanh(x @ in_four_bits(even).T) @ rounded(odd, 0).T
    small = made(graph(text, w=odd, v=even.T), "int4-weights", runtime)
    assert np.abs(result(small, runtime, x) - exact).max() < 0.03 * np.abs(exact).max()
    kind = "FULLY_CONNECTED" if runtime == "tflite" else "MatMul"
    assert small.notes == (f"in 4 bits: 1 {kind}; other weights in 8",)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_network_of_convolutions_has_nothing_for_four_bits(runtime):
    model = graph("(float[1,3,16,16] x) => (float[1,16,14,14] y) { y = Conv(x, k) }", k=KERNEL)
    with pytest.raises(QuantizeError, match="nothing to store in 4 bits") as error:
        made(model, "int4-weights", runtime)
    assert "int8-weights" in error.value.fix


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights"])
def test_a_model_without_weights_is_told_so(runtime, precision):
    model = graph("(float[2,50] x) => (float[2,50] y) { y = Tanh(x) }")
    with pytest.raises(QuantizeError, match="nothing to store in"):
        made(model, precision, runtime)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_recurrent_layers(runtime):
    weights = {"w": RNG.normal(size=(1, 256, 32)) / 8, "r": RNG.normal(size=(1, 256, 64)) / 8}
    model = graph("(float[5,1,32] x) => (float[5,1,1,64] y) { y, h, c = LSTM<hidden_size=64>(x, w, r) }", **weights)
    plain, small = made(model, "fp32", runtime), made(model, "int8-weights", runtime)
    x = RNG.normal(size=(5, 1, 32)).astype(np.float32)
    np.testing.assert_allclose(result(small, runtime, x), result(plain, runtime, x), atol=0.02)
    assert len(small.data) < 0.5 * len(plain.data)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights"])
def test_weights_that_the_body_of_a_loop_uses(runtime, precision):
    weights = RNG.normal(size=(64, 64)) / 8
    text = """(float[2,64] x) => (float[2,64] y) {
        n = Constant<value_int=3>() t = Constant<value=bool {1}>()
        y = Loop (n, t, x) <body = step (int64 i, bool c, float[2,64] a) => (bool d, float[2,64] b) {
            d = Identity(c) p = MatMul(a, w) b = Tanh(p) }> }"""
    small = made(graph(text, w=weights), precision, runtime)
    x = RNG.normal(size=(2, 64)).astype(np.float32)
    stored = rounded(weights, 1) if precision == "int8-weights" else in_four_bits(weights.T).T
    exact = x
    for _ in range(3):
        exact = np.tanh(exact @ stored)
    np.testing.assert_allclose(result(small, runtime, x), exact, atol=1e-5 if precision == "int8-weights" else 0.03)
    assert len(small.data) < 10_000


def test_weights_that_stay_float_are_told():
    weights = {"k": RNG.normal(size=(8, 3, 3, 3, 3)), "w": RNG.normal(size=(4096, 10))}
    text = "(float[1,3,8,8,8] x) => (float[1,10] y) { c = Conv<pads=[1,1,1,1,1,1]>(x, k) f = Flatten(c) y = MatMul(f, w) }"
    assert made(graph(text, **weights), "int8-weights", "tflite").notes == ("weights in float: 1 CONV_3D",)
    assert made(graph(text, **weights), "int8-weights", "onnx").notes == ()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights"])
def test_the_same_model_gives_the_same_bytes(runtime, precision):
    model = graph(NETWORK, k=KERNEL, w=DENSE, b=BIAS)
    assert made(model, precision, runtime).data == made(model, precision, runtime).data


def test_scales_of_blocks_are_of_least_squared_error():
    rows = RNG.standard_normal((64, 256)).astype(np.float32)
    plain = np.abs(rows.reshape(64, -1, BLOCK)).max(axis=2, keepdims=True) / 7
    nearest = (np.rint(rows.reshape(64, -1, BLOCK) / plain) * plain).reshape(rows.shape)
    errors = [np.square(found - rows).sum() for found in (in_four_bits(rows), nearest)]
    assert errors[0] < 0.85 * errors[1]


def test_blocks_of_nothing_and_of_tiny_numbers():
    rows = np.zeros((64, 64), np.float32)
    integers, scales = in_blocks(rows)
    assert not integers.any()
    assert (scales > 0).all()
    assert in_blocks(np.full((64, 64), 1e-7, np.float32)) is None, "float16 scales do not reach there"


def test_two_integers_to_a_byte():
    assert packed(np.array([[-8, 7, -1, 0]], np.int8)).tolist() == [0x78, 0x0F]


def test_a_dense_layer_after_a_lookup_of_four_bits_runs_in_litert():
    text = "(int64[4] x) => (float[4,300] y) { e = Gather(t, x) y = Gemm<transB=1>(e, t) }"
    small = made(graph(text, t=TABLE), "int4-weights", "tflite")
    kinds = [part.kind for part in TfliteParts(small.data).operators]
    assert kinds.count("EMBEDDING_LOOKUP") == kinds.count("FULLY_CONNECTED") == 1
    stored = in_four_bits(TABLE)
    x = np.array([3, 299, 0, 17])
    exact = stored[x] @ stored.T
    assert np.abs(result(small, "tflite", x) - exact).max() < 0.02 * np.abs(exact).max()
