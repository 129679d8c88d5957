"""Peephole rules for RESHAPE: what lowering leaves between operators that could do without."""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Graph, Operator, Tensor
from edgekit.litert.rewiring import Rewiring, Rule, is_constant

REDUCTIONS = {"MEAN", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM"}
UNARY = {
    "ABS", "CEIL", "COS", "DEQUANTIZE", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "NEG",
    "QUANTIZE", "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIGN", "SIN", "SQRT", "SQUARE", "TANH",
}  # fmt: skip


def merge_reshapes(work: Rewiring, op: Operator) -> bool:
    """A RESHAPE after a RESHAPE takes the first one's input; one that changes nothing disappears."""
    if op.code != "RESHAPE":
        return False
    source, result = op.inputs[0], op.outputs[0]
    before = work.made_by(source)
    if before is not None and before.code == "RESHAPE" and before.inputs[0] is not None and is_constant(op, 1):
        work.set_input(op, 0, before.inputs[0])
        if not work.users.get(before.outputs[0]) and before.outputs[0] not in work.outputs:
            work.remove(before)
        return True
    if source is None or source.data is not None or source.shape != result.shape or not source.is_static:
        return False
    if not _mean_the_same(result, source):
        return False
    if result not in work.outputs:
        work.remove(op)
        work.replace(result, source)
        return True
    maker = work.made_by(source)
    if maker is None or source in work.outputs or len(maker.outputs) != 1:
        return False
    work.remove(op)
    work.set_output(maker, result)
    work.replace(source, result)
    return True


def reshape_of_reduction(work: Rewiring, op: Operator) -> bool:
    """A RESHAPE that drops or restores the reduced axes is the reduction's own `keepDims`."""
    before = work.made_by(op.inputs[0])
    if op.code != "RESHAPE" or before is None or before.code not in REDUCTIONS or not is_constant(before, 1):
        return False
    source, axes = before.inputs[0], before.inputs[1]
    if source is None or axes is None or axes.data is None or op.inputs[0] is None or work.only_user(op.inputs[0]) is not op:
        return False
    reduced = {int(a) % source.rank for a in axes.data.reshape(-1)}
    kept = tuple(1 if i in reduced else d for i, d in enumerate(source.shape))
    dropped = tuple(d for i, d in enumerate(source.shape) if i not in reduced)
    if op.outputs[0].shape not in (kept, dropped):
        return False
    before.options["keepDims"] = op.outputs[0].shape == kept
    work.remove(op)
    work.set_output(before, op.outputs[0])
    return True


def pointwise_convolution_as_dense(work: Rewiring, op: Operator) -> bool:
    """RESHAPE → CONV_2D 1x1 → RESHAPE, which is what a 1-D convolution becomes, is one FULLY_CONNECTED and at most one RESHAPE.

    Before: [1,16,64] → RESHAPE [1,1,16,64] → CONV_2D 1x1 → RESHAPE [1,16,32]      After: FULLY_CONNECTED [1,16,64] → [1,16,32]
    """
    if op.code != "CONV_2D" or not is_constant(op, 1) or op.inputs[0] is None or op.inputs[1] is None:
        return False
    weights = op.inputs[1]
    steps = [op.options.get(name, 1) for name in ("strideH", "strideW", "dilationHFactor", "dilationWFactor")]
    before, after = work.made_by(op.inputs[0]), work.only_user(op.outputs[0])
    if weights.shape[1:3] != (1, 1) or any(step != 1 for step in steps):
        return False
    if before is None or before.code != "RESHAPE" or after is None or after.code != "RESHAPE":
        return False
    source, outputs, depth = before.inputs[0], weights.shape[0], weights.shape[3]
    if source is None or source.data is not None or source.shape[-1:] != (depth,):
        return False
    assert weights.data is not None  # is_constant says so
    matrix = Tensor(
        f"{weights.name}/matrix", weights.data.shape[::3], weights.dtype, weights.data[:, 0, 0, :], weights.quantization
    )
    moved = Tensor(f"{op.outputs[0].name}/moved", (*source.shape[:-1], outputs), op.outputs[0].dtype)
    op.options = {"fusedActivationFunction": op.activation, "keepNumDims": True}
    op.code = "FULLY_CONNECTED"
    work.set_input(op, 0, source)
    work.set_input(op, 1, matrix)
    work.set_input(after, 0, moved)
    work.set_output(op, moved)
    return True


def reshape_before_dense(work: Rewiring, op: Operator) -> bool:
    """RESHAPE → FULLY_CONNECTED → RESHAPE: the product keeps all axes but the last, so the second RESHAPE joins the first."""
    before, after = work.made_by(op.inputs[0]), work.only_user(op.outputs[0])
    if op.code != "FULLY_CONNECTED" or not op.options.get("keepNumDims") or not is_constant(op, 1):
        return False
    if before is None or before.code != "RESHAPE" or after is None or after.code != "RESHAPE" or after.inputs[0] is None:
        return False
    entered, result = op.inputs[0], after.outputs[0]
    if entered is None or work.only_user(entered) is not op or entered.quantization is not None or not result.is_static:
        return False
    if result.shape[-1:] != after.inputs[0].shape[-1:]:
        return False
    shape = (*result.shape[:-1], entered.shape[-1])
    target = Tensor(f"{entered.name}/shape", (len(shape),), np.dtype(np.int32), np.array(shape, np.int32))
    moved = Tensor(f"{entered.name}/moved", shape, entered.dtype)
    before.options.pop("newShape", None)
    work.set_input(before, 1, target)
    work.set_output(before, moved)
    work.set_input(op, 0, moved)
    work.remove(after)
    work.set_output(op, result)
    return True


def reshape_past_unary(work: Rewiring, op: Operator) -> bool:
    """RESHAPE → elementwise → RESHAPE back: the elementwise operator works on the first shape, and both reshapes go.

    Also with a fused activation in between nothing changes: it is part of the operator. This is what a chain of 1-D convolutions
    and activations leaves.
    """
    if op.code not in UNARY:
        return False
    source, result = op.inputs[0], op.outputs[0]
    before = work.made_by(source)
    if source is None or before is None or before.code != "RESHAPE" or work.only_user(source) is not op:
        return False
    inner = before.inputs[0]
    if inner is None or inner.data is not None or not is_constant(before, 1) or not _mean_the_same(source, inner):
        return False
    moved = Tensor(f"{result.name}/moved", inner.shape, result.dtype, None, result.quantization)
    # elementwise first, then the reshape: neighbours on both sides can then merge
    work.remove(before)
    work.set_input(op, 0, inner)
    target = before.inputs[1]
    reshape = Operator("RESHAPE", [moved, target], [result], dict(before.options))
    work.graph.operators.insert(_place(work.graph, op) + 1, reshape)
    work.alive.add(id(reshape))
    for tensor in reshape.inputs:
        if tensor is not None:
            work.users.setdefault(tensor, []).append(reshape)
    work.set_output(op, moved)
    work.producer[result] = reshape
    return True


def _mean_the_same(tensor: Tensor, other: Tensor) -> bool:
    """Whether integers of one tensor are read in the other as it says itself."""
    return tensor.quantization is None or tensor.quantization.same_as(other.quantization)


def _place(graph: Graph, op: Operator) -> int:
    return next(i for i, other in enumerate(graph.operators) if other is op)


RULES: tuple[Rule, ...] = (
    merge_reshapes,
    reshape_of_reduction,
    pointwise_convolution_as_dense,
    reshape_before_dense,
    reshape_past_unary,
)
