"""Bias absorption on a network whose answer is known."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from edgekit import hub
from edgekit.ort.model import to_proto
from edgekit.quantize.absorb import absorb_biases
from edgekit.quantize.observe import observe
from edgekit.quantize.simulate import outputs
from edgekit.quantize.statistics import channels

RNG = np.random.default_rng(2)


def network(attributes="", activation="Relu(wide)"):
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 20]>
        g (float[1, 3, 8, 8] x) => (float[1, 5, h, w] y)
        <float[4] b1 = {{20.0, 0.0, 30.0, -5.0}}, float[5] b2 = {{1.0, 2.0, 3.0, 4.0, 5.0}},
         float six = {{6.0}}, float zero = {{0.0}}> {{
            wide = Conv(x, w1, b1)
            active = {activation}
            y = Conv{attributes}(active, w2, b2)
        }}""")
    weights = {"w1": RNG.normal(size=(4, 3, 1, 1)), "w2": RNG.normal(size=(5, 4, 3, 3))}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items())
    return hub.prepare(ir.from_proto(model))


FEEDS = [{"x": RNG.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(32)]


def test_what_a_channel_never_falls_below_moves_on():
    model = network()
    before = outputs(to_proto(model), FEEDS)
    high = observe(to_proto(model), FEEDS)["active"].extremes[1]
    assert absorb_biases(model, channels(to_proto(model), FEEDS)) == 2
    np.testing.assert_allclose(outputs(to_proto(model), FEEDS), before, rtol=1e-4, atol=1e-3)
    assert observe(to_proto(model), FEEDS)["active"].extremes[1] < 0.7 * high


@pytest.mark.parametrize(
    "model",
    [network("<pads=[1,1,1,1]>"), network(activation="Clip(wide, zero, six)"), network(activation="Sigmoid(wide)")],
    ids=["padded with zeros", "bounded", "another activation"],
)
def test_where_nothing_can_make_up_for_it_nothing_moves(model):
    assert absorb_biases(model, channels(to_proto(model), FEEDS)) == 0
