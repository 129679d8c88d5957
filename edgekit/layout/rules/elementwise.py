"""Elementwise operators with numpy broadcasting: all operands in one order, aligned at the last axis."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.layout.permutation import Perm, identity
from edgekit.layout.rules.node import Part, Rewriter, aligned, constant, dims, fixed, free_slots, is_free, rank, value_rank

ELEMENTWISE = """
Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Ceil Celu Clip Cos Cosh Div
Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max
Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum
Swish Tan Tanh ThresholdedRelu Where Xor
""".split()


def elementwise_parts(node: ir.Node) -> list[Part]:
    full = rank(node.outputs[0])
    if any(value_rank(node, slot) > full for slot in free_slots(node)):
        return fixed(node)  # a result that was declared smaller than its operands
    return aligned(node, full, {s: range(full - value_rank(node, s), full) for s in free_slots(node)})


def broadcast_inputs(r: Rewriter) -> None:
    """Permute constants, and write out the axes of size 1 that a lower rank leaves out where they no longer lead."""
    whole = r.output_perm()
    if whole == identity(len(whole)):
        return
    for i, value in enumerate(r.node.inputs):
        if value is None or rank(value) == 0:
            continue
        missing = len(whole) - rank(value)
        added = [place for place, axis in enumerate(whole) if axis < missing]
        array = constant(value)
        if array is not None:
            if array.size > 1:
                r.set_constant(i, permuted_constant(array, whole), f"constant{i}")
        elif added != list(range(missing)):
            held = iter(dims(value))
            shape = [1 if axis < missing else next(held) for axis in whole]
            axes = _constant_value(r, np.array(added, np.int64), f"axes{i}")
            r.insert_input(i, "Unsqueeze", [value, axes], shape)


def permuted_constant(array: np.ndarray, whole: Perm) -> np.ndarray:
    """A constant that broadcasts against a value held as `whole`, without leading axes that it did not have and does not need."""
    missing = len(whole) - array.ndim
    held = array.reshape((1,) * missing + array.shape).transpose(whole)
    leading = next((k for k, d in enumerate(held.shape) if d != 1), held.ndim)
    return held.reshape(held.shape[min(leading, missing) :])


def expand_parts(node: ir.Node) -> list[Part]:
    static = all(isinstance(d, int) for d in dims(node.outputs[0]))
    return elementwise_parts(node) if static and is_free(node.inputs[0]) else fixed(node)


def expand(r: Rewriter) -> None:
    if r.moved:
        broadcast_inputs(r)
        r.set_constant(1, np.array(dims(r.node.outputs[0]), np.int64), "shape")  # the output already has its held shape


def _constant_value(r: Rewriter, array: np.ndarray, suffix: str) -> ir.Value:
    graph = r.node.graph
    assert isinstance(graph, ir.Graph)
    value = ir.Value(name=f"{r.node.outputs[0].name}/{suffix}", const_value=ir.tensor(array))
    value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    graph.register_initializer(value)
    return value
