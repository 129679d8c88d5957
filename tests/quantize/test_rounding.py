"""Rounding by what weights are multiplied with: on the quantizers' grid, and closer in what comes out."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from edgekit import hub
from edgekit.ort.model import to_proto
from edgekit.quantize.rounding import covariances, round_by_covariance
from edgekit.quantize.simulate import outputs, relative_error
from edgekit.quantize.weights import layer, rounded, steps


def network(attributes, weight_shape, feeds_shape, seed=1):
    """A convolution over smooth pictures: neighbours are alike, as in photographs."""
    rng = np.random.default_rng(seed)
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 20]>
        g (float{list(feeds_shape)} x) => (float[a, b, c, d] y) {{ y = Conv{attributes}(x, w) }}""")
    w = rng.normal(size=weight_shape).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    base = rng.normal(size=(32, *feeds_shape[1:2], *[s // 4 for s in feeds_shape[2:]]))
    smooth = base.repeat(4, 2).repeat(4, 3) + 0.1 * rng.normal(size=(32, *feeds_shape[1:]))
    return hub.prepare(ir.from_proto(model)), [{"x": picture[None].astype(np.float32)} for picture in smooth]


@pytest.mark.parametrize(
    ("attributes", "weights"),
    [
        ("", (8, 4, 3, 3)),
        ("<group=4>", (8, 1, 3, 3)),
        ("<group=2, strides=[2,2], pads=[1,1,1,1]>", (6, 2, 3, 3)),
        ("<dilations=[2,2], pads=[2,1,2,1]>", (8, 4, 3, 3)),
    ],
    ids=["plain", "depthwise", "groups, stride and padding", "dilated"],
)
def test_results_are_closer_than_with_the_nearest_integers(attributes, weights):
    model, feeds = network(attributes, weights, (1, 4, 16, 16))
    exact = outputs(to_proto(model), feeds)
    errors = {}
    for how in ("nearest", "learned"):
        changed = model.clone()
        (found,) = [found for node in changed.graph if (found := layer(node)) is not None]
        seen = covariances(to_proto(model), feeds[:24], [found])
        kernel = rounded(found.kernel) if how == "nearest" else round_by_covariance(found, seen["y"])
        in_steps = kernel / steps(found.kernel)
        np.testing.assert_allclose(in_steps, np.round(in_steps), atol=1e-6)
        np.testing.assert_allclose(steps(kernel), steps(found.kernel), err_msg="the quantizers must find the same steps")
        found.store(kernel)
        errors[how] = relative_error(exact, outputs(to_proto(changed), feeds))
    assert errors["learned"] < 0.7 * errors["nearest"]


def test_uncorrelated_inputs_leave_the_nearest_integers():
    model, _ = network("", (8, 4, 3, 3), (1, 4, 16, 16))
    (found,) = [found for node in model.graph if (found := layer(node)) is not None]
    np.testing.assert_allclose(round_by_covariance(found, np.eye(36)[None]), rounded(found.kernel), atol=1e-6)


def test_sums_wider_than_the_samples_are_not_learned():
    model, feeds = network("", (8, 4, 16, 16), (1, 4, 16, 16))
    layers = [found for node in model.graph if (found := layer(node)) is not None]
    assert covariances(to_proto(model), feeds, layers) == {}, "1,024 weights to an output, 32 sums seen"
