"""Rounding by what weights are multiplied with: on the quantizers' grid, and closer in what comes out."""

import itertools

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from edgekit import hub
from edgekit.ort.model import to_proto
from edgekit.quantize.observe import observe
from edgekit.quantize.ranges import ranges_of
from edgekit.quantize.rounding import covariance, patches, round_by_covariance
from edgekit.quantize.simulate import outputs, relative_error, with_rounding
from edgekit.quantize.walk import round_layers
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
        sums = np.concatenate([patches(found, feed["x"]) for feed in feeds[:24]], axis=1)
        kernel = rounded(found.kernel) if how == "nearest" else round_by_covariance(found, covariance(sums))
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
    (before,), (after,) = (
        [found for node in graph if (found := layer(node)) is not None]
        for graph in (model.graph, round_layers(model, {}, feeds).graph)
    )
    np.testing.assert_allclose(after.kernel, rounded(before.kernel), atol=1e-6, err_msg="1,024 weights, 32 sums seen")


def deep(seed=4):
    """Five convolutions, one after another, whose channels are of many sizes."""
    rng = np.random.default_rng(seed)
    names = ["x", "a", "b", "c", "d", "y"]
    nodes = "".join(
        f"{out}0 = Conv<pads=[1,1,1,1]>({taken}, w{out}, b{out}) {out} = Relu({out}0) "
        for taken, out in itertools.pairwise(names)
    )
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 20]>
        g (float[1, 8, 12, 12] x) => (float[1, 8, 12, 12] y) {{ {nodes} }}""")
    for name in names[1:]:
        weights = rng.normal(size=(8, 8, 3, 3)) * rng.uniform(0.02, 0.2, (8, 1, 1, 1))
        for key, array in ((f"w{name}", weights), (f"b{name}", rng.normal(size=8) / 4)):
            model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), key))
    feeds = [{"x": rng.normal(size=(1, 8, 12, 12)).astype(np.float32) + 0.5} for _ in range(40)]
    return hub.prepare(ir.from_proto(model)), feeds


def test_each_layer_makes_up_for_those_before_it():
    model, feeds = deep()
    ranges = ranges_of(observe(to_proto(model), feeds[:24]), "mse")
    exact = outputs(to_proto(model), feeds[24:])
    errors = {
        (learned, corrected): relative_error(
            exact,
            outputs(
                with_rounding(to_proto(round_layers(model, ranges, feeds[:24], learned=learned, corrected=corrected)), ranges),
                feeds[24:],
            ),
        )
        for learned in (False, True)
        for corrected in (False, True)
    }
    assert errors[False, True] < errors[False, False]
    assert errors[True, True] < errors[False, True]


def test_a_sample_of_another_size_does_not_decide_the_biases():
    model, feeds = deep()
    ranges = ranges_of(observe(to_proto(model), feeds[:24]), "mse")
    wild = [{"x": feed["x"] * 40} for feed in feeds[:1]]
    exact = outputs(to_proto(model), feeds[24:])
    with_, without = (
        relative_error(exact, outputs(with_rounding(to_proto(round_layers(model, ranges, taken)), ranges), feeds[24:]))
        for taken in (feeds[:23] + wild, feeds[:24])
    )
    assert with_ < 1.5 * without


def test_layers_that_stay_in_float_keep_their_weights():
    model, feeds = deep()
    ranges = ranges_of(observe(to_proto(model), feeds[:8]), "minmax")
    changed = round_layers(model, ranges, feeds[:8], kept={"b0", "b"})
    for before, after in zip(model.graph, changed.graph, strict=True):
        if layer(before) is not None:
            same = np.array_equal(layer(before).kernel, layer(after).kernel)
            assert same == (before.outputs[0].name == "b0")
