"""What each ONNX operator allows to happen to the axes of its operands.

A rule says two things about a node: which groups its operands form (edgekit.layout.assign) and how to rewrite the node once
their permutations are chosen, so that it computes the same on permuted operands. Constants are permuted on the spot and have
no say. An operator without a rule keeps its operands in the logical order.

After CHANNELS_LAST_RULES, a node in the domain `CHANNELS_LAST` stands for an operator that ONNX has not and LiteRT has:

    Conv, pools, Resize …   the operator of the same name whose first input and whose outputs are held N…C. Its weights, its
                            other inputs and its attributes are the logical (NC…) ones.
    MatMul, adj_y = 1       the right operand is held as (…, N, K): BATCH_MATMUL's adj_y.

and Softmax, LogSoftmax and TopK act on the last axis. The operators expected are those of opset 18 and later, where reductions
and Pad take their axes as an input.
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit.layout.permutation import channels_last
from edgekit.layout.rules.axes import (
    arg,
    arg_parts,
    axes_input,
    axis_attribute,
    cumsum,
    gather_parts,
    if_constant,
    last_axis,
    logical_shape,
    reduce,
    reduce_parts,
    same_axes,
    shape_parts,
    slice_parts,
    squeeze,
    squeeze_parts,
    tile,
    trailing_axes,
    unsqueeze,
    unsqueeze_parts,
)
from edgekit.layout.rules.elementwise import ELEMENTWISE, broadcast_inputs, elementwise_parts, expand, expand_parts
from edgekit.layout.rules.matmul import CHANNELS_LAST, matmul, matmul_parts
from edgekit.layout.rules.node import Part, Rewriter, Rule, Slot, constant, dims, fixed, free_slots, rank, value_rank
from edgekit.layout.rules.quantized import linear, linear_parts
from edgekit.layout.rules.shape import reshape, reshape_parts, transpose, transpose_parts

__all__ = [
    "CHANNELS_FIRST_RULES",
    "CHANNELS_LAST",
    "CHANNELS_LAST_RULES",
    "SPATIAL",
    "Part",
    "Rewriter",
    "Rule",
    "Slot",
    "constant",
    "dims",
    "fixed",
    "free_slots",
    "rank",
    "value_rank",
]


def _spatial_parts(node: ir.Node) -> list[Part]:
    """The feature maps (first input, outputs) N…C, everything else logical."""
    slots = free_slots(node)
    maps = tuple(s for s in slots if s.is_output or s.place == 0)
    return [Part(maps, tuple(channels_last(value_rank(node, s)) for s in maps))]


def _mark_channels_last(r: Rewriter) -> None:
    if r.moved:
        r.node.domain = CHANNELS_LAST
        r.node.version = 1
        feature_map = constant(r.node.inputs[0])
        if feature_map is not None:  # then something else is computed: the weights, the boxes
            r.set_constant(0, feature_map.transpose(channels_last(feature_map.ndim)), "map")


def _keep(r: Rewriter) -> None:
    """The node computes the same on permuted operands."""


_REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare".split()
)
SPATIAL = """
AveragePool Conv ConvTranspose DepthToSpace GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample LpPool LRN MaxPool Resize
RoiAlign SpaceToDepth
""".split()

CHANNELS_FIRST_RULES: dict[str, Rule] = {
    **{op: Rule(elementwise_parts, broadcast_inputs) for op in ELEMENTWISE},
    **{op: Rule(reduce_parts, reduce) for op in _REDUCTIONS},
    **{op: Rule(arg_parts, arg) for op in ("ArgMax", "ArgMin")},
    **{op: Rule(same_axes, axis_attribute(-1)) for op in ("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "TopK")},
    **{op: Rule(trailing_axes(-1), _keep) for op in ("LayerNormalization", "RMSNormalization")},
    **{op: Rule(linear_parts, linear) for op in ("QuantizeLinear", "DequantizeLinear")},
    "Concat": Rule(same_axes, axis_attribute(0)),
    "Split": Rule(same_axes, axis_attribute(0)),
    "Slice": Rule(slice_parts, axes_input(3)),
    "Pad": Rule(if_constant(3, same_axes), axes_input(3)),
    "Tile": Rule(if_constant(1, same_axes), tile),
    "CumSum": Rule(if_constant(1, same_axes), cumsum),
    "Expand": Rule(expand_parts, expand),
    "Squeeze": Rule(squeeze_parts, squeeze),
    "Unsqueeze": Rule(unsqueeze_parts, unsqueeze),
    "Gather": Rule(gather_parts, arg),
    "Shape": Rule(shape_parts, logical_shape),
    "Transpose": Rule(transpose_parts, transpose),
    "Reshape": Rule(reshape_parts, reshape),
    "Flatten": Rule(reshape_parts, reshape),
    "MatMul": Rule(matmul_parts(transposed_right=False), _keep),
}
"""For a graph that stays ONNX: spatial operators work on NC…, like every operator without a rule."""

CHANNELS_LAST_RULES: dict[str, Rule] = {
    **CHANNELS_FIRST_RULES,
    **{op: Rule(_spatial_parts, _mark_channels_last) for op in SPATIAL},
    **{op: Rule(last_axis(-1), axis_attribute(-1)) for op in ("Softmax", "LogSoftmax", "TopK")},
    "MatMul": Rule(matmul_parts(transposed_right=True), matmul),
}
"""For LiteRT: spatial operators work on N…C, softmax on the last axis, and a product may take its right operand transposed."""
