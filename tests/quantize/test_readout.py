"""What comes out of a quantized network: scores in float, not in steps of their range."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from edgekit import hub, ort
from edgekit.litert import compile_hub
from edgekit.ort.session import rewrite
from edgekit.quantize import Calibration, quantize_litert
from edgekit.runtimes import Runner

RNG = np.random.default_rng(3)
FEEDS = tuple({"x": RNG.normal(size=(1, 8)).astype(np.float32)} for _ in range(32))
CALIBRATION = Calibration(FEEDS, "npz", "here", "")


def network(last):
    """Two dense layers, scores from -1,000 to 1,000 that differ by little, and what `last` makes of them."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["": 20]>
        net (float[1,8] x) => (float[1,6] y) {{ a = Gemm(x, w1, b1) h = Relu(a) s = Gemm(h, w2, b2) {last} }}""")
    weights = {"w1": RNG.normal(size=(8, 16)), "b1": RNG.normal(size=16), "w2": RNG.normal(size=(16, 6)) / 8}
    weights["b2"] = np.array([-1000.0, -0.5, 0, 0.5, 1, 1000])
    weights |= {"lo": np.array(-3.0), "hi": np.array(600.0)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items())
    return hub.prepare(ir.from_proto(model))


def results(artifact, kind):
    runner = Runner(artifact.data, kind, artifact.inputs, artifact.outputs)
    return np.concatenate([runner.run(feed)["y"] for feed in FEEDS])


def quantized(graph, kind):
    if kind == "tflite":
        return quantize_litert(compile_hub(graph), "int8", CALIBRATION)
    return ort.build(graph, "int8", calibration=CALIBRATION)[0]


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
@pytest.mark.parametrize("last", ["y = Identity(s)", "y = Relu(s)", "y = LeakyRelu<alpha=0.5>(s)", "y = Clip(s, lo, hi)"])
def test_close_scores_keep_their_order(last, kind):
    graph = network(last)
    exact = results(ort.build(graph, "fp32")[0], "onnx")
    found = results(quantized(graph, kind), kind)
    assert np.abs(found - exact).max() < 0.1, "a step of the range is 8"


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_probabilities_are_finer_than_256_steps(kind):
    graph = network("t = Tanh(s) y = Softmax(t)")
    found = results(quantized(graph, kind), kind)
    np.testing.assert_allclose(found, results(ort.build(graph, "fp32")[0], "onnx"), atol=1e-2)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def test_the_last_product_still_computes_in_integers():
    graph = network("y = Relu(s)")
    assert quantize_litert(compile_hub(graph), "int8", CALIBRATION).notes == ()
    optimized = onnx.load_model_from_string(rewrite(quantized(graph, "onnx").data, optimize="all"))
    assert [node.op_type for node in optimized.graph.node].count("QGemm") == 2


def test_a_result_that_something_else_takes_is_rounded_as_before():
    graph = network("t = Add(s, s) y = Relu(t)")
    model = onnx.load_model_from_string(quantized(graph, "onnx").data)
    adds = [node for node in model.graph.node if node.op_type == "Add"]
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    assert all(makers[name] == "DequantizeLinear" for node in adds for name in node.input)
