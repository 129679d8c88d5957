"""Weights that a model holds as int8 and computes with in float32."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgekit import hub, litert

from .running import WITHOUT_DELEGATES, model, operators, relative_error, source_results

RNG = np.random.default_rng(5)
NET = """net (float[1,16,6,6] x) => (float[1,8] y) {
    {weights}
    a = Conv<pads=[1,1,1,1]>(x, f0) b = Conv<pads=[1,1,1,1], group=16>(a, f1) c = ConvTranspose(b, f2)
    d = GlobalAveragePool(c) e = Flatten(d) y = MatMul(e, f3)
}"""
SHAPES = ((16, 16, 3, 3), (16, 1, 5, 5), (16, 24, 2, 2), (24, 64))
CHANNEL = (0, 0, 1, 1)
SPELLINGS = {
    "DequantizeLinear": "f{i} = DequantizeLinear<axis={axis}>(q{i}, s{i})",
    "Cast and Mul": "w{i} = Cast<to=1>(q{i}) f{i} = Mul(w{i}, s{i})",
}


def stored(spelling: str) -> onnx.ModelProto:
    constants: dict[str, np.ndarray] = {}
    for i, (shape, axis) in enumerate(zip(SHAPES, CHANNEL, strict=True)):
        integers = RNG.integers(-127, 128, shape).astype(np.int8)
        scale = RNG.uniform(0.001, 0.02, shape[axis]).astype(np.float32)
        around = [-1 if a == axis else 1 for a in range(len(shape))]
        constants |= {f"q{i}": integers, f"s{i}": scale if "axis" in SPELLINGS[spelling] else scale.reshape(around)}
    lines = " ".join(SPELLINGS[spelling].format(i=i, axis=axis) for i, axis in enumerate(CHANNEL))
    return model(NET.replace("{weights}", lines).replace("float[1,8] y", "float[1,64] y"), **constants)


@pytest.mark.parametrize("resolver", [OpResolverType.AUTO, WITHOUT_DELEGATES], ids=["xnnpack", "builtin"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_they_stay_int8_in_the_file(spelling: str, resolver: OpResolverType) -> None:
    proto, feeds = stored(spelling), {"x": RNG.normal(size=(1, 16, 6, 6)).astype(np.float32)}
    compiled = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)), stored_integers=True)
    assert operators(compiled.data)["DEQUANTIZE"] == 4
    assert len(compiled.data) < 2 * sum(int(np.prod(shape)) for shape in SHAPES)
    runner = Interpreter(model_content=compiled.data, experimental_op_resolver_type=resolver).get_signature_runner()
    assert relative_error(source_results(proto, feeds)["y"], runner(**feeds)["y"]) < 2e-6


def test_equal_ones_are_expanded_once() -> None:
    """Of equal shape, too: the same integers with another scale are other weights."""
    integers = RNG.integers(-127, 128, (64, 64)).astype(np.float32)
    proto = model(
        """net (float[1,64] x) => (float[1,64] y) {
            a = MatMul(x, w1)
            t = Tanh(a)
            b = MatMul(t, w2)
            u = Tanh(b)
            y = MatMul(u, w3)
        }""",
        w1=integers * np.float32(0.01), w2=integers * np.float32(0.01), w3=integers * np.float32(0.02),
    )  # fmt: skip
    compiled = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)), stored_integers=True)
    assert operators(compiled.data)["DEQUANTIZE"] == 2
    feeds = {"x": RNG.normal(size=(1, 64)).astype(np.float32)}
    runner = Interpreter(model_content=compiled.data).get_signature_runner()
    assert relative_error(source_results(proto, feeds)["y"], runner(**feeds)["y"]) < 1e-5


def test_a_quantizer_gets_them_as_floats() -> None:
    graph = hub.prepare(ir.serde.deserialize_model(stored("DequantizeLinear")))
    assert "DEQUANTIZE" not in operators(litert.compile_hub(graph).data)


def test_a_number_per_channel_is_no_integer_times_a_scale() -> None:
    """One element of each channel is a multiple of anything: a depthwise 1x1 convolution stays float32."""
    proto = model(
        "net (float[1,512,4,4] x) => (float[1,512,4,4] y) { y = Conv<group=512>(x, w) }",
        w=RNG.normal(size=(512, 1, 1, 1)).astype(np.float32),
    )
    assert "DEQUANTIZE" not in operators(
        litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)), stored_integers=True).data
    )


@pytest.mark.parametrize("change", ["one number off its multiple", "more than int8 holds"])
def test_other_weights_stay_float32(change: str) -> None:
    weights = RNG.integers(-127, 128, (64, 64)).astype(np.float32) * 0.01
    if change == "one number off its multiple":
        weights[40, 40] += 0.001
    else:
        weights[:, 3] = np.arange(64) * 10 - 300
        weights[0, 3] = 0.37
    proto = model("net (float[1,64] x) => (float[1,64] y) { y = MatMul(x, w) }", w=weights)
    compiled = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)), stored_integers=True)
    assert operators(compiled.data) == {"FULLY_CONNECTED": 1}


def test_half_precision_leaves_them_as_they_are() -> None:
    graph, x = hub.prepare(ir.serde.deserialize_model(stored("Cast and Mul"))), RNG.normal(size=(1, 16, 6, 6)).astype(np.float32)
    whole, half = (
        Interpreter(
            model_content=litert.compile_hub(graph, precision=precision, stored_integers=True).data
        ).get_signature_runner()(x=x)["y"]
        for precision in ("fp32", "fp16")
    )
    assert relative_error(whole, half) < 2e-6
