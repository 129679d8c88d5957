"""Conditioning a graph for int8: equalization, bias correction and ranges, on small networks whose answer is known."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from edgekit import hub
from edgekit.ort.model import to_proto
from edgekit.quantize import Calibration, condition
from edgekit.quantize.equalize import equalize
from edgekit.quantize.simulate import outputs
from edgekit.quantize.statistics import channels
from edgekit.quantize.weights import layer, rounded

GENERATOR = np.random.default_rng(5)


@pytest.fixture
def feeds():
    return tuple({"image": GENERATOR.standard_normal((1, 3, 12, 12)).astype(np.float32) + 1} for _ in range(24))


def network(activation: str, spread: float = 30.0) -> ir.Model:
    """A convolution whose channels differ up to `spread` times in size, an activation, and a convolution that evens that out."""
    sizes = np.geomspace(1 / spread, 1.0, 16).astype(np.float32)
    expand = GENERATOR.standard_normal((16, 3, 1, 1)).astype(np.float32) * sizes.reshape(-1, 1, 1, 1)
    project = GENERATOR.standard_normal((8, 16, 1, 1)).astype(np.float32) / sizes.reshape(1, -1, 1, 1)
    weights = {"expand": expand, "project": project, "zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 20]>
        agraph (float[1, 3, 12, 12] image) => (float[1, 8, 12, 12] result)
        <float[16] b1 = {{{", ".join(["0.1"] * 16)}}}, float[8] b2 = {{{", ".join(["0.5"] * 8)}}}> {{
            wide = Conv(image, expand, b1)
            active = {activation}
            result = Conv(active, project, b2)
        }}""")
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    return hub.prepare(ir.from_proto(model))


def test_equalizing_across_a_relu_changes_nothing_but_the_ranges(feeds):
    model = network("Relu(wide)")
    before = outputs(to_proto(model), feeds)
    assert equalize(model, channels(to_proto(model), feeds)) == 1
    np.testing.assert_allclose(outputs(to_proto(model), feeds), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("across_clips", [False, True])
def test_a_bounded_activation_is_crossed_only_on_request(feeds, across_clips):
    model = network("Clip(wide, zero, six)")
    assert equalize(model, channels(to_proto(model), feeds), across_clips=across_clips) == across_clips


def test_channels_that_reach_the_bound_keep_their_scale(feeds):
    model = network("Clip(wide, zero, six)")
    before = outputs(to_proto(model), feeds)
    equalize(model, channels(to_proto(model), feeds), across_clips=True)
    np.testing.assert_allclose(outputs(to_proto(model), feeds), before, rtol=1e-4, atol=1e-4)


def test_biases_make_up_for_the_mean_error_of_rounded_weights(feeds):
    plain = network("Relu(wide)", spread=1.0)
    conditioned = condition(plain, Calibration(feeds, "npz", "noise", "")).hub

    def mean_error(model):
        for node in model.graph:
            found = layer(node)
            if found is not None:
                found.store(rounded(found.kernel))
        results = outputs(to_proto(model), feeds) - outputs(to_proto(plain), feeds)
        return np.abs(results.reshape(len(feeds), 8, -1).mean((0, 2))).mean()

    assert mean_error(conditioned) < 0.5 * mean_error(plain.clone())


def test_the_graph_that_was_given_stays_as_it_is(feeds):
    model = network("Relu(wide)")
    before = to_proto(model).SerializeToString(deterministic=True)
    condition(model, Calibration(feeds, "npz", "noise", ""))
    assert to_proto(model).SerializeToString(deterministic=True) == before


def test_the_same_samples_give_the_same_graph(feeds):
    model, data = network("Relu(wide)"), Calibration(feeds, "npz", "noise", "")
    made = [to_proto(condition(model, data).hub).SerializeToString(deterministic=True) for _ in range(2)]
    assert made[0] == made[1]
