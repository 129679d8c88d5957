"""Chains of nodes that only rearrange become one, with constant parameters where the shapes allow.

1. Flatten                                    →  Reshape                 at most one symbolic dimension
2. Reshape to computed numbers                →  Reshape to a constant   a symbolic dimension is 0 (copied) or -1
3. Reshape | Squeeze | Unsqueeze | Flatten → Reshape  →  Reshape
4. Squeeze → Unsqueeze and the reverse        →  Reshape                 (dropped when the shape is the first again)
5. Transpose → Transpose                      →  Transpose               permutations composed
6. Transpose that moves only axes of size 1   →  Reshape                 `transpose_to_reshape`, after layouts are chosen
7. Pad → Unsqueeze, or a Reshape that only inserts axes of size 1  →  the same → Pad
       (it meets the Reshape before, and the Pad the Conv after: a Keras Conv1D with causal padding)
8. Unsqueeze | Squeeze | Reshape around an elementwise operator  →  gone
       y = Unsqueeze(f(Squeeze(x))) with the shape of x  →  y = f(x)      (a Keras Conv1D is Unsqueeze → Conv → Squeeze)
9. Reshape that merges leading axes → Transpose of the others → Reshape that splits them again  →  Transpose
       [b, h, s, d] → [b·h, s, d] → [b·h, d, s] → [b, h, d, s]              (torch's attention, transposing the keys)
10. Reshape that merges leading axes → dense layers → Reshape that splits them again  →  dense layers
       [b, s, c] → [b·s, c] → Gemm → Gelu → Gemm → [b·s, d] → [b, s, d]  →  MatMul → Add → Gelu → MatMul → Add
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.hub import dims
from edgekit.hub.edit import Editor, integers, is_constant, producer, shape, sole_consumer

_RESHAPING = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
_UNARY = (
    "Relu Sigmoid Tanh HardSigmoid HardSwish Clip LeakyRelu Elu Selu Gelu Softplus Softsign Mish Abs Neg Sqrt Exp Log Erf".split()
)


def settle_reshape(node: ir.Node, edit: Editor) -> bool:
    """Cases 1 to 3."""
    data, result = node.inputs[0], shape(node.outputs[0])
    if data is None or result is None or node.graph is None:
        return False
    before = producer(data, *_RESHAPING)
    source = before.inputs[0] if before is not None else data
    target = _target(result, shape(source))
    if target is None or source is None:
        return False
    settled = node.op_type == "Reshape" and integers(node.inputs[1]) == target and "allowzero" not in node.attributes
    if settled and before is None:
        return False
    constant = edit.constant(np.array(target, np.int64), f"{node.outputs[0].name}_shape", node.graph)
    return edit.replace(node.outputs[0], edit.op("Reshape", [source, constant], before=node))


def merge_squeezes(node: ir.Node, edit: Editor) -> bool:
    """Case 4."""
    before = producer(node.inputs[0], "Squeeze", "Unsqueeze", "Reshape", "Flatten")
    if before is None or before.op_type == node.op_type:
        return False
    return settle_reshape(node, edit)


def merge_transposes(node: ir.Node, edit: Editor) -> bool:
    """Case 5."""
    before = producer(node.inputs[0], "Transpose")
    rank = len(shape(node.outputs[0]) or ())
    if before is None or not rank:
        return False
    first, second = _permutation(before, rank), _permutation(node, rank)
    composed = [first[axis] for axis in second]
    source = before.inputs[0]
    if source is not None and composed == list(range(rank)):
        return edit.replace(node.outputs[0], source)
    return edit.replace(node.outputs[0], edit.op("Transpose", [source], {"perm": composed}, before=node))


def transpose_to_reshape(node: ir.Node, edit: Editor) -> bool:
    """Case 6."""
    data = node.inputs[0]
    source = shape(data)
    if source is None or node.graph is None:
        return False
    moved = [axis for axis in _permutation(node, len(source)) if source[axis] != 1]
    target = _target(shape(node.outputs[0]) or (), source)
    if moved != sorted(moved) or target is None:
        return False
    constant = edit.constant(np.array(target, np.int64), f"{node.outputs[0].name}_shape", node.graph)
    return edit.replace(node.outputs[0], edit.op("Reshape", [data, constant], before=node))


def lift_over_pad(node: ir.Node, edit: Editor) -> bool:
    """Case 7: `node` inserts the axes."""
    data = node.inputs[0]
    pad = producer(data, "Pad")
    result = shape(node.outputs[0])
    if data is None or pad is None or result is None or node.graph is None or sole_consumer(data) is not node:
        return False
    source, padded = shape(pad.inputs[0]), shape(data)
    pads = integers(pad.inputs[1])
    axes = integers(pad.inputs[3]) if len(pad.inputs) > 3 and pad.inputs[3] is not None else list(range(len(padded or ())))
    places = _inserted(padded, result)
    if source is None or pads is None or axes is None or places is None:
        return False
    lifted: list[int | str] = [1] * len(result)
    for axis, place in enumerate(places):
        lifted[place] = source[axis]
    target = _target(tuple(lifted), source)
    if target is None:
        return False
    new_pads = [0] * (2 * len(result))
    for index, axis in enumerate(axes):
        place = places[axis % len(places)]
        new_pads[place], new_pads[place + len(result)] = pads[index], pads[index + len(axes)]
    name = node.outputs[0].name
    reshaped = edit.op("Reshape", [pad.inputs[0], edit.constant(np.array(target), f"{name}_shape", node.graph)], before=node)
    amounts = edit.constant(np.array(new_pads), f"{name}_pads", node.graph)
    attributes = dict(pad.attributes)
    return edit.replace(node.outputs[0], edit.op("Pad", [reshaped, amounts, *pad.inputs[2:3]], attributes, before=node))


def _inserted(source: tuple[int | str, ...] | None, result: tuple[int | str, ...]) -> list[int] | None:
    """Where each axis of `source` is in `result`, if `result` only has more axes of size 1."""
    places: list[int] = []
    if source is None or len(result) <= len(source):
        return None
    for place, dim in enumerate(result):
        if len(places) < len(source) and dim == source[len(places)]:
            places.append(place)
        elif dim != 1:
            return None
    return places if len(places) == len(source) else None


def cancel_around(node: ir.Node, edit: Editor) -> bool:
    """Case 8: `node` is the second of the two."""
    middle = producer(node.inputs[0], *_UNARY)
    first = producer(middle.inputs[0], *_RESHAPING) if middle is not None else None
    if middle is None or first is None or sole_consumer(middle.outputs[0]) is not node:
        return False
    source = first.inputs[0]
    if shape(source) is None or shape(source) != shape(node.outputs[0]):
        return False
    again = edit.op(middle.op_type, [source, *middle.inputs[1:]], dict(middle.attributes), before=node)
    return edit.replace(node.outputs[0], again)


def transpose_in_place(node: ir.Node, edit: Editor) -> bool:
    """Case 9: `node` is the last Reshape."""
    transpose = producer(node.inputs[0], "Transpose")
    first = producer(transpose.inputs[0], "Reshape") if transpose is not None else None
    if transpose is None or first is None:
        return False
    source, merged, result = shape(first.inputs[0]), shape(first.outputs[0]), shape(node.outputs[0])
    if source is None or merged is None or result is None or len(source) != len(result) or len(source) < len(merged):
        return False
    perm, leading = _permutation(transpose, len(merged)), len(source) - len(merged) + 1
    kept = merged == (dims.product(source[:leading]), *source[leading:])
    moved = [leading - 1 + axis for axis in perm[1:]]
    if not kept or perm[0] != 0 or result != (*source[:leading], *(source[axis] for axis in moved)):
        return False
    whole = [*range(leading), *moved]
    return edit.replace(node.outputs[0], edit.op("Transpose", [first.inputs[0]], {"perm": whole}, before=node))


def unfold_rows(node: ir.Node, edit: Editor) -> bool:
    """Case 10: `node` is the last Reshape."""
    result, chain, value = shape(node.outputs[0]), list[ir.Node](), node.inputs[0]
    if result is None or len(result) < 3 or value is None:
        return False
    reader = node
    while (layer := producer(value, *_UNARY, "Gemm", "MatMul")) is not None and _is_by_row(layer):
        if value is None or sole_consumer(value) is not reader:
            return False
        chain.append(layer)
        reader, value = layer, layer.inputs[0]
    first = producer(value, "Reshape")
    source = shape(first.inputs[0]) if first is not None else None
    if not chain or first is None or source is None or source[:-1] != result[:-1] or source[-1:] != (shape(value) or ())[-1:]:
        return False
    moved = first.inputs[0]
    for layer in reversed(chain):
        if layer.op_type != "Gemm":
            moved = edit.op(layer.op_type, [moved, *layer.inputs[1:]], dict(layer.attributes), before=node)
            continue
        weight, bias = layer.inputs[1], layer.inputs[2] if len(layer.inputs) > 2 else None
        if layer.attributes.get_int("transB", 0):
            weight = edit.op("Transpose", [weight], {"perm": [1, 0]}, before=node)
        moved = edit.op("MatMul", [moved, weight], before=node)
        if bias is not None:
            moved = edit.op("Add", [moved, bias], before=node)
    return moved is not None and edit.replace(node.outputs[0], moved)


def _is_by_row(node: ir.Node) -> bool:
    """An elementwise operator, or a product of each row with a constant matrix."""
    if node.op_type not in ("Gemm", "MatMul"):
        return True
    if not is_constant(node.inputs[1]) or len(shape(node.inputs[1]) or ()) != 2 or len(shape(node.inputs[0]) or ()) != 2:
        return False
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    plain = all(node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    return plain and not node.attributes.get_int("transA", 0) and (bias is None or len(shape(bias) or (1, 1)) < 2)


def _target(result: tuple[int | str, ...], source: tuple[int | str, ...] | None) -> list[int] | None:
    """The constant that reshapes to `result`: symbols at their old place are copied (0), one may be -1."""
    target = [
        dim if isinstance(dim, int) else 0 if source and axis < len(source) and source[axis] == dim else -1
        for axis, dim in enumerate(result)
    ]
    if 0 in result or (source is not None and 0 in source):
        return None  # a dimension of size 0 cannot be told from a copied one
    if target.count(0) == 1 and target.count(-1) == 0:
        target[target.index(0)] = -1  # one spelling where both would do
    return target if target.count(-1) <= 1 else None


def _permutation(node: ir.Node, rank: int) -> list[int]:
    return list(node.attributes.get_ints("perm") or range(rank)[::-1])


RULES = {
    "Reshape": [transpose_in_place, unfold_rows, settle_reshape, cancel_around, lift_over_pad],
    "Flatten": [settle_reshape],
    "Squeeze": [merge_squeezes, cancel_around],
    "Unsqueeze": [merge_squeezes, cancel_around, lift_over_pad],
    "Transpose": [merge_transposes],
}
LATE_RULES = {"Transpose": [transpose_to_reshape]}
