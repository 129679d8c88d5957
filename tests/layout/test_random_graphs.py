"""Whatever the graph, a chosen layout computes the same and moves no more bytes than before."""

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.layout import remove_transposes, to_channels_last
from tests.layout.onnx_form import run, transpose_cost, written_out
from tests.layout.random_graphs import feeds, graphs

LAYOUTS = st.sampled_from(["keep", "nhwc", "nchw"])
RANDOM = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def assert_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, array in expected.items():
        assert got[name].shape == array.shape
        scale = max(1.0, float(np.abs(array).max(initial=0)))
        np.testing.assert_allclose(got[name] / scale, array / scale, rtol=0, atol=1e-5, err_msg=name)


@RANDOM
@given(graphs())
def test_a_graph_without_its_transposes_computes_the_same(proto: onnx.ModelProto) -> None:
    data = feeds(proto)
    expected = run(proto, data)
    model = ir.from_proto(proto)
    before = transpose_cost(model)
    remove_transposes(model)
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)  # the shapes written on values are those that inference finds
    assert_same(run(after, data), expected)
    assert transpose_cost(model) <= before


@RANDOM
@given(graphs(), LAYOUTS, LAYOUTS)
def test_a_channels_last_graph_computes_the_same(proto: onnx.ModelProto, input_layout: str, output_layout: str) -> None:
    data = feeds(proto)
    expected = run(proto, data)
    model = ir.from_proto(proto)
    held = to_channels_last(model, input_layout=input_layout, output_layout=output_layout)
    got = run(written_out(model), {name: array.transpose(held.inputs[name]) for name, array in data.items()})
    assert set(held.outputs) == set(expected)
    assert_same({name: array.transpose(np.argsort(held.outputs[name])) for name, array in got.items()}, expected)


def test_an_operator_for_which_there_is_no_rule_stays_in_the_logical_order() -> None:
    graph = onnx.parser.parse_graph(
        "g (float[2,3,4] x) => (float[3,2,4] y) { a = Transpose<perm=[1,0,2]>(x)  b = NonZeroLike(a)  y = Relu(b) }"
    )
    model = ir.from_proto(onnx.helper.make_model(graph))
    assert remove_transposes(model) == 1
    assert [node.op_type for node in model.graph] == ["Transpose", "NonZeroLike", "Relu"]
