"""Per-channel arithmetic with constants becomes part of the linear operator beside it.

`Linear` is Conv, ConvTranspose, Gemm or MatMul with a constant weight. f, o are constants with one number per output channel (or
one for all); c, a with one per input channel.

    1. Linear → BatchNormalization            →  Linear'        bias added (MatMul: Linear' → Add)
    2. Linear → Mul f / Div f / Neg           →  Linear'        weights and bias times f
    3. Linear → Add o / Sub o                 →  Linear'        bias plus o (not MatMul, which has none)
    4. o - Linear                             →  Linear'        weights and bias negated
    5. Mul c → Linear (not ConvTranspose)     →  Linear'        weights of that input channel times c
    6. Add a / Sub a → Linear                 →  Linear'        bias plus the weights' response to a; a Conv only without padding
    7. MatMul → Add b → Mul f                 →  MatMul' → Add b·f
    8. MatMul → Add b, all of rank 2          →  Gemm           the dialect's dense layer; of higher rank MatMul → Add stays
    9. x → Mul/Div/Add/Sub constant twice     →  once           where the constants broadcast to one another
   10. MatMul | Gemm | MatMul → Add, → Reshape that keeps the last axis → BatchNormalization | Mul | Add …
                                              →  the arithmetic before the Reshape   (dense layers with batch statistics)
   11. 5 and 6 with a Transpose between       →  Transpose → Linear'        (Keras normalizes pictures with channels last)
   12. Mul c → Add a → Conv with padding, MatMul  →  Add a/c → Linear'    5 with a sum between, which padding keeps from 6

The value in the middle must have no other reader. Weights are computed in float64 and rounded once. Weights that several nodes
share are copied for the node that changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit.hub.edit import Editor, array, is_constant, is_float, producer, shape, sole_consumer

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
LARGEST = 1e6
"""Of an offset that is divided by a factor: a channel that is all but switched off is not blown up."""


@dataclass(frozen=True)
class Affine:
    """`factor * data + offset`, which an elementwise node computes; factor and offset broadcast against data."""

    data: ir.Value
    factor: np.ndarray
    offset: np.ndarray


def fuse_after(node: ir.Node, edit: Editor) -> bool:
    """Cases 1 to 4 and 7: `node` is the arithmetic after a linear operator."""
    affine = affine_of(node)
    linear = producer(affine.data, *LINEAR, "Add") if affine else None
    if affine is None or linear is None or sole_consumer(affine.data) is not node or not is_float(affine.data):
        return False
    if linear.op_type == "Add":
        return _scale_biased_matmul(node, linear, affine, edit)
    return _fuse_output(node, linear, affine, edit)


def fuse_before(node: ir.Node, edit: Editor) -> bool:
    """Cases 5, 6, 11 and 12: `node` is a linear operator whose data comes from arithmetic."""
    data = node.inputs[0]
    turn = producer(data, "Transpose") if data is not None and sole_consumer(data) is node else None
    made = turn.inputs[0] if turn is not None else data
    source = producer(made, "Mul", "Div", "Add", "Sub")
    affine = affine_of(source) if source is not None else None
    weight = array(node.inputs[1])
    rank = len(shape(data) or ())
    if affine is None or made is None or weight is None or sole_consumer(made) is not (turn or node) or not is_float(made):
        return False
    if node.op_type == "ConvTranspose" or (node.op_type == "Gemm" and _int(node, "transA", 0)):
        return False
    if shape(affine.data) != shape(made) or weight.ndim < 2:
        return False
    axis = 1 if node.op_type == "Conv" else rank - 1
    if turn is not None:
        axis = turn.attributes["perm"].as_ints()[axis]
    groups = _int(node, "group", 1)
    columns = weight.ndim == 2 and node.op_type != "Conv" and not _int(node, "transB", 0)
    channels = weight.shape[1] * groups if node.op_type == "Conv" else weight.shape[0 if columns else 1]
    factor, offset = (per_channel(part, rank, axis, channels) for part in (affine.factor, affine.offset))
    if factor is None or offset is None or (node.op_type == "MatMul" and weight.ndim != 2):
        return False
    start = affine.data
    if offset.any() and (node.op_type == "MatMul" or (node.op_type == "Conv" and _is_padded(node))):
        scaling = affine_of(maker) if (maker := producer(start, "Mul", "Div")) is not None and factor.all() else None
        if scaling is None or maker is None or sole_consumer(start) is not source or shape(scaling.data) != shape(start):
            return False
        inner = per_channel(scaling.factor, rank, axis, channels)
        if inner is None or (factor != 1).any() or not (np.abs(offset) < LARGEST * np.abs(inner)).all():
            return False
        column = (offset / inner).reshape(-1, *[1] * (rank - 1 - axis))
        start = edit.op("Add", [scaling.data, _rounded(column, start, "offset", node, edit)], before=node)
        factor, offset = inner, np.zeros_like(offset)
    turned = edit.op("Transpose", [start], _attributes(turn), before=node) if turn is not None else start
    return _change_input(node, weight, factor, offset, turned, edit)


def to_gemm(node: ir.Node, edit: Editor) -> bool:
    """Case 8: `node` is the Add."""
    for index in (0, 1):
        matmul, bias = producer(node.inputs[index], "MatMul"), array(node.inputs[1 - index])
        if matmul is None or bias is None or sole_consumer(matmul.outputs[0]) is not node:
            continue
        data, weight = matmul.inputs
        dims = shape(weight)
        if len(shape(data) or ()) != 2 or dims is None or len(dims) != 2 or not is_float(data) or not is_constant(weight):
            continue
        if bias.ndim > 2 or bias.size not in (1, dims[1]) or (bias.ndim == 2 and bias.shape[0] != 1):
            continue
        row = np.broadcast_to(bias.reshape(-1), (int(dims[1]),)) if isinstance(dims[1], int) else bias.reshape(-1)
        assert node.graph is not None
        constant = node.inputs[1 - index]
        if bias.ndim != 1 or bias.shape != row.shape:
            constant = edit.constant(np.array(row), f"{node.outputs[0].name}_bias", node.graph)
        return edit.replace(node.outputs[0], edit.op("Gemm", [data, weight, constant], before=node))
    return False


def lift_over_reshape(node: ir.Node, edit: Editor) -> bool:
    """Case 10: `node` is the arithmetic."""
    affine = affine_of(node)
    reshape = producer(affine.data, "Reshape") if affine else None
    source = reshape.inputs[0] if reshape is not None else None
    if affine is None or reshape is None or source is None or node.graph is None or not is_float(source):
        return False
    if sole_consumer(affine.data) is not node or sole_consumer(source) is not reshape or not _is_dense(source):
        return False
    before, after = shape(source), shape(affine.data)
    if before is None or after is None or not before or not after or before[-1] != after[-1] or shape(node.outputs[0]) != after:
        return False
    if not isinstance(after[-1], int):
        return False
    factor, offset = (per_channel(part, len(after), len(after) - 1, after[-1]) for part in (affine.factor, affine.offset))
    if factor is None or offset is None:
        return False
    moved = source
    if (factor != 1).any():
        moved = edit.op("Mul", [moved, _rounded(factor, source, "factor", node, edit)], before=node)
    if offset.any():
        moved = edit.op("Add", [moved, _rounded(offset, source, "offset", node, edit)], before=node)
    again = edit.op("Reshape", [moved, reshape.inputs[1]], _attributes(reshape), before=node)
    return edit.replace(node.outputs[0], again)


def _is_dense(value: ir.Value) -> bool:
    """Whether a product with a constant matrix makes it, perhaps with a bias."""
    node = producer(value, "MatMul", "Gemm", "Add")
    if node is not None and node.op_type == "Add":
        bias = affine_of(node)
        node = producer(bias.data, "MatMul") if bias is not None else None
    return node is not None and is_constant(node.inputs[1])


def merge_constants(node: ir.Node, edit: Editor) -> bool:
    """Case 9: `node` is the second of the two."""
    outer = affine_of(node)
    source = producer(outer.data, "Mul", "Div", "Add", "Sub") if outer else None
    inner = affine_of(source) if source is not None else None
    if outer is None or inner is None or sole_consumer(outer.data) is not node or not is_float(outer.data):
        return False
    scaling = not outer.offset.any() and not inner.offset.any()
    shifting = bool((outer.factor == 1).all() and (inner.factor == 1).all())
    if not (scaling or shifting) or shape(inner.data) != shape(node.outputs[0]):
        return False
    left, right = (inner.factor, outer.factor) if scaling else (inner.offset, outer.offset)
    merged = left * right if scaling else left + right
    if merged.size > max(left.size, right.size):
        return False
    constant = _rounded(merged, node.outputs[0], "constant", node, edit)
    return edit.replace(node.outputs[0], edit.op("Mul" if scaling else "Add", [inner.data, constant], before=node))


def affine_of(node: ir.Node) -> Affine | None:
    """What an elementwise node with a constant operand, or a BatchNormalization, computes; None for any other node."""
    if node.op_type == "BatchNormalization":
        return _affine_of_batch_norm(node)
    if node.op_type == "Neg":
        data = node.inputs[0]
        return Affine(data, -np.ones(()), np.zeros(())) if data is not None else None
    if node.op_type not in ("Mul", "Div", "Add", "Sub"):
        return None
    left, right = node.inputs
    swapped = is_constant(left)
    data, constant = (right, array(left)) if swapped else (left, array(right))
    if data is None or constant is None or is_constant(data) or constant.dtype.kind != "f":
        return None
    value = constant.astype(np.float64)
    one, zero = np.ones(()), np.zeros(())
    match node.op_type, swapped:
        case "Mul", _:
            return Affine(data, value, zero)
        case "Add", _:
            return Affine(data, one, value)
        case "Sub", False:
            return Affine(data, one, -value)
        case "Sub", True:
            return Affine(data, -one, value)
        case "Div", False if value.all():
            return Affine(data, 1 / value, zero)
    return None


def _affine_of_batch_norm(node: ir.Node) -> Affine | None:
    data = node.inputs[0]
    dims = shape(data)
    if data is None or dims is None or _int(node, "training_mode", 0) or len(node.outputs) > 1:
        return None
    scale, shift, mean, variance = (array(value) for value in node.inputs[1:5])
    if scale is None or shift is None or mean is None or variance is None:
        return None
    around = (-1, *[1] * (len(dims) - 2)) if len(dims) > 1 else (-1,)
    factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + node.attributes.get_float("epsilon", 1e-5))
    offset = shift.astype(np.float64) - mean.astype(np.float64) * factor
    return Affine(data, factor.reshape(around), offset.reshape(around))


def per_channel(values: np.ndarray, rank: int, axis: int, channels: int) -> np.ndarray | None:
    """One number per channel, where `values` varies over no other axis; None where it does."""
    if values.ndim > rank:
        return None
    spread = values.reshape((1,) * (rank - values.ndim) + values.shape)
    if spread.size == 1:
        return np.full(channels, spread.reshape(()))
    return spread.reshape(-1) if spread.shape[axis] == spread.size == channels else None


def _fuse_output(node: ir.Node, linear: ir.Node, affine: Affine, edit: Editor) -> bool:
    rank = len(shape(affine.data) or ())
    weight = array(linear.inputs[1])
    if weight is None or weight.ndim < 2 or rank < 2 or shape(node.outputs[0]) != shape(affine.data):
        return False
    is_dense = linear.op_type in ("Gemm", "MatMul")
    groups = _int(linear, "group", 1)
    transposed = bool(_int(linear, "transB", 0))
    if linear.op_type == "ConvTranspose":
        channels = weight.shape[1] * groups
    else:
        channels = weight.shape[0 if linear.op_type == "Conv" or transposed else -1]
    factor = per_channel(affine.factor, rank, rank - 1 if is_dense else 1, channels)
    offset = per_channel(affine.offset, rank, rank - 1 if is_dense else 1, channels)
    if factor is None or offset is None:
        return False
    if linear.op_type == "MatMul":
        if weight.ndim != 2 or (factor == 1).all():
            return False
        scaled = _rounded(weight * factor, linear.inputs[1], "scaled", linear, edit)
        result = edit.op("MatMul", [linear.inputs[0], scaled], before=node)
        if offset.any():
            result = edit.op("Add", [result, _rounded(offset, affine.data, "bias", linear, edit)], before=node)
        return edit.replace(node.outputs[0], result)
    old_bias = linear.inputs[2] if len(linear.inputs) > 2 else None
    bias = np.zeros(channels) if old_bias is None else array(old_bias)
    beta = linear.attributes.get_float("beta", 1.0) if linear.op_type == "Gemm" else 1.0
    if bias is None or beta == 0 or (bias.ndim > 1 and bias.size != bias.shape[-1]):
        return False
    new_bias = np.broadcast_to(bias.reshape(-1).astype(np.float64), (channels,)) * factor + offset / beta
    return _rebuild(node, linear, _scale_outputs(weight, factor, linear, groups, transposed), new_bias, linear.inputs[0], edit)


def _scale_outputs(weight: np.ndarray, factor: np.ndarray, linear: ir.Node, groups: int, transposed: bool) -> np.ndarray | None:
    if (factor == 1).all():
        return None
    if linear.op_type == "ConvTranspose":
        grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]).astype(np.float64)
        spread = factor.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
        return (grouped * spread).reshape(weight.shape)
    if linear.op_type == "Conv":
        return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    return weight * (factor[:, None] if transposed else factor)


def _change_input(
    node: ir.Node, weight: np.ndarray, factor: np.ndarray, offset: np.ndarray, data: ir.Value, edit: Editor
) -> bool:
    groups = _int(node, "group", 1)
    wide = weight.astype(np.float64)
    if node.op_type == "Conv":
        outputs, inputs = weight.shape[0], weight.shape[1]
        spread = (groups, 1, inputs, *[1] * (weight.ndim - 2))
        grouped = wide.reshape(groups, outputs // groups, *weight.shape[1:])
        response = (grouped * offset.reshape(spread)).reshape(outputs, -1).sum(axis=1)
        scaled = (grouped * factor.reshape(spread)).reshape(weight.shape)
    elif _int(node, "transB", 0):
        outputs, response, scaled = weight.shape[0], wide @ offset, wide * factor
    else:
        outputs, response, scaled = weight.shape[1], offset @ wide, wide * factor[:, None]
    changed = None if (factor == 1).all() else scaled
    if not offset.any():
        new_weight = _rounded(scaled, node.inputs[1], "scaled", node, edit)
        again = edit.node(node.op_type, [data, new_weight, *node.inputs[2:]], _attributes(node), before=node)
        return edit.replace(node.outputs[0], again.outputs[0])
    old_bias = node.inputs[2] if len(node.inputs) > 2 else None
    bias = np.zeros(outputs) if old_bias is None else array(old_bias)
    alpha, beta = (node.attributes.get_float(name, 1.0) if node.op_type == "Gemm" else 1.0 for name in ("alpha", "beta"))
    if bias is None or beta == 0 or (bias.ndim > 1 and bias.size != bias.shape[-1]):
        return False
    new_bias = np.broadcast_to(bias.reshape(-1).astype(np.float64), (outputs,)) + response * alpha / beta
    return _rebuild(node, node, changed, new_bias, data, edit)


def _rebuild(
    node: ir.Node, linear: ir.Node, weight: np.ndarray | None, bias: np.ndarray, data: ir.Value | None, edit: Editor
) -> bool:
    """Put `linear` with other constants in the place of `node`; weight None keeps it."""
    new_weight = linear.inputs[1] if weight is None else _rounded(weight, linear.inputs[1], "scaled", linear, edit)
    new_bias = _rounded(bias, node.outputs[0], "bias", linear, edit)
    again = edit.node(linear.op_type, [data, new_weight, new_bias], _attributes(linear), before=node)
    return edit.replace(node.outputs[0], again.outputs[0])


def _scale_biased_matmul(node: ir.Node, add: ir.Node, affine: Affine, edit: Editor) -> bool:
    bias = affine_of(add)
    matmul = producer(bias.data, "MatMul") if bias else None
    if bias is None or matmul is None or affine.offset.any() or sole_consumer(bias.data) is not add:
        return False
    weight = array(matmul.inputs[1])
    if weight is None or weight.ndim != 2 or not (bias.factor == 1).all() or shape(node.outputs[0]) != shape(bias.data):
        return False
    factor = per_channel(affine.factor, len(shape(bias.data) or ()), len(shape(bias.data) or ()) - 1, weight.shape[1])
    if factor is None:
        return False
    scaled = _rounded(weight * factor, matmul.inputs[1], "scaled", matmul, edit)
    product = edit.op("MatMul", [matmul.inputs[0], scaled], before=node)
    shift = _rounded(bias.offset * affine.factor, node.outputs[0], "bias", node, edit)
    return edit.replace(node.outputs[0], edit.op("Add", [product, shift], before=node))


def _rounded(values: np.ndarray, like: ir.Value | None, suffix: str, node: ir.Node, edit: Editor) -> ir.Value:
    assert like is not None
    assert like.dtype is not None
    assert node.graph is not None
    return edit.constant(values.astype(like.dtype.numpy()), f"{like.name}_{suffix}", node.graph)


def _attributes(node: ir.Node) -> dict[str, ir.Attr]:
    return dict(node.attributes)


def _int(node: ir.Node, name: str, default: int) -> int:
    return int(node.attributes[name].value) if name in node.attributes else default


def _is_padded(node: ir.Node) -> bool:
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    return auto.startswith("SAME") or any(node.attributes.get_ints("pads") or ())


RULES = {
    "BatchNormalization": [fuse_after, lift_over_reshape],
    "Neg": [fuse_after],
    "Mul": [fuse_after, merge_constants, lift_over_reshape],
    "Div": [fuse_after, merge_constants, lift_over_reshape],
    "Sub": [fuse_after, merge_constants, lift_over_reshape],
    "Add": [fuse_after, merge_constants, to_gemm, lift_over_reshape],
    "Conv": [fuse_before],
    "Gemm": [fuse_before],
    "MatMul": [fuse_before],
}
