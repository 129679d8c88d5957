"""The rules that spare a node ONNX's inference find what it finds, and leave what does not fit to its words."""

import onnx_ir as ir
import pytest

from edgekit.errors import SourceError
from edgekit.hub import infer
from edgekit.hub.facts import shape_of
from tests.hub.graphs import text_model

FITS = {
    "matmul": "(float[2,5,6] a, float[6,3] b) => (y) { y = MatMul(a, b) }",
    "matmul_batches": "(float[n,1,5,k] a, float[7,k,3] b) => (y) { y = MatMul(a, b) }",
    "matmul_vector": "(float[2,5,6] a, float[6] b) => (y) { y = MatMul(a, b) }",
    "layer_normalization": "(float[n,5,6] a, float[6] b) => (y) { y = LayerNormalization(a, b, b) }",
    "layer_normalization_axis": "(float[n,5,6] a, float[5,6] b) => (y) { y = LayerNormalization<axis=-2>(a, b, b) }",
    "batch_normalization": "(float[n,5,6] a, float[5] b) => (y) { y = BatchNormalization(a, b, b, b, b) }",
    "gather": "(float[2,n,6] a, int64[3,4] b) => (y) { y = Gather<axis=-2>(a, b) }",
    "gather_one": "(float[2,n,6] a, int64 b) => (y) { y = Gather(a, b) }",
    "concat": "(float[m,5,6] a, float[m,2,6] b) => (y) { y = Concat<axis=-2>(a, b) }",
    "einsum": '(float[2,5,6] a, float[6,3] b) => (y) { y = Einsum<equation="... j, jk -> ...k">(a, b) }',
    "squeeze": "(float[1,n,1,6] a) => (y) <int64[2] b = {-2, 0}> { y = Squeeze(a, b) }",
    "squeeze_nothing": "(float[1,n,1,6] a) => (y) <int64[0] b = {}> { y = Squeeze(a, b) }",
    "squeeze_all": "(float[1,3,1] a) => (y) { y = Squeeze(a) }",
}
DOES_NOT_FIT = {
    "matmul": "(float[2,5,6] a, float[7,3] b) => (y) { y = MatMul(a, b) }",
    "matmul_batches": "(float[2,5,6] a, float[3,6,3] b) => (y) { y = MatMul(a, b) }",
    "batch_normalization": "(float[4,5,6] a, float[6] b) => (y) { y = BatchNormalization(a, b, b, b, b) }",
    "gather": "(float[2,3] a, int64[3] b) => (y) { y = Gather<axis=2>(a, b) }",
    "concat": "(float[2,5] a, float[3,5] b) => (y) { y = Concat<axis=1>(a, b) }",
    "einsum": '(float[2,3] a) => (y) { y = Einsum<equation="i1->i">(a) }',
    "squeeze": "(float[1,3,1] a) => (y) <int64[1] b = {1}> { y = Squeeze(a, b) }",
    "squeeze_axis": "(float[1,3,1] a) => (y) <int64[1] b = {3}> { y = Squeeze(a, b) }",
    "slice_scalar_axis": "(float[2,3] a) => (y) <int64[1] s = {0}, int64[1] e = {1}, int64 b = {1}> { y = Slice(a, s, e, b) }",
}


def node(text: str) -> ir.Node:
    return ir.from_proto(text_model(f"g {text}")).graph[0]


@pytest.mark.parametrize("case", FITS)
def test_a_rule_finds_what_onnx_finds(case: str) -> None:
    ours, theirs = node(FITS[case]), node(FITS[case])
    infer.infer_node(ours, {"": 20}, {})
    infer._infer_with_onnx(theirs, {"": 20})
    assert ours.outputs[0].dtype == theirs.outputs[0].dtype
    assert shape_of(ours.outputs[0]) == shape_of(theirs.outputs[0])


@pytest.mark.parametrize("case", DOES_NOT_FIT)
def test_what_does_not_fit_is_refused(case: str) -> None:
    with pytest.raises(SourceError):
        infer.infer_node(node(DOES_NOT_FIT[case]), {"": 20}, {})


@pytest.mark.parametrize(
    ("attributes", "axes", "wanted"),
    [
        ("", 2, ("y_d0", "y_d1", "y_d2")),
        ("<keepdims=0>", 2, ("y_d0",)),
        ("<keepdims=0>", 0, ()),
        ("<keepdims=1>", 0, (1, 1, 1)),
        ("<noop_with_empty_axes=1>", 0, (2, "n", 6)),
    ],
)
def test_a_reduction_over_computed_axes_has_as_many_axes_as_are_left(
    attributes: str, axes: int, wanted: tuple[int | str]
) -> None:
    reduction = node(f"(float[2,n,6] a, int64[{axes}] b) => (y) {{ y = ReduceSum{attributes}(a, b) }}")
    infer.infer_node(reduction, {"": 20}, {})
    assert shape_of(reduction.outputs[0]) == wanted
