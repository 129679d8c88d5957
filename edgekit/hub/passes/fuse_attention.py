"""What attention is exported with, and does not need.

1. MatMul(Mul(q, c), Mul(k, d))     →  MatMul(Mul(q, c·d), k)          c, d numbers; a Transpose may stand after either Mul
       (torch scales both by the fourth root; the keys are many, above all those of a cache)
2. MatMul(q, Reshape(Expand(k)))    →  Reshape(MatMul(Reshape(q), k))  keys and values that heads share are not copied
       [b, g·r, m, d] · repeated [b, g, d, n]  →  [b, g, r·m, d] · [b, g, d, n], the rows of r heads in one product
3. Mul(Concat(Neg(a), b), c)        →  Mul(Concat(a, b), c')           c constant: its signs change where a goes
       (rotary embeddings)
4. Mul(Add(Mul(a, c), Mul(b, d)), s)  →  Add(Mul(a, c·s), Mul(b, d·s))  c, d constants, s a number
       (rotary embeddings of scaled queries)
5. Mul(MatMul(q, k), c), Div(MatMul(q, k), c)  →  MatMul(Mul(q, c), k)  c a number, where q is the smaller; it may go into weights
6. Transpose(Add(MatMul(Transpose(x), W), b))   →  Add(MatMul(W', x), b')  the Transposes move one axis last and back again
       [b, h, n, m] → [b, n, m, h] · [h, g] → [b, g, n, m]  →  [g, h] · [b, h, n·m]    (talking heads; W not above SMALL)

The values in between must have no other reader, but for the repeated one of case 2.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.hub.edit import Editor, array, is_float, producer, scalar, shape, sole_consumer, static_shape

SWAPPED = (0, 1, 3, 2)
SMALL = 4096
"""Numbers in a matrix that may stand on the left; on the right, as weights of a dense layer, it can be quantized."""


def scale_one_operand(node: ir.Node, edit: Editor) -> bool:
    """Case 1."""
    found = [_scaled(node.inputs[index], node) for index in (0, 1)]
    if None in found:
        return False
    (query, c), (keys, d) = found  # type: ignore[misc]
    data = _factor_of(query)[1]
    assert node.graph is not None
    assert data.dtype is not None
    factor = edit.constant(np.asarray(c * d, data.dtype.numpy()), f"{query.outputs[0].name}_scale", node.graph)
    edit.replace(query.outputs[0], edit.op("Mul", [data, factor], before=query))
    return edit.replace(keys.outputs[0], _factor_of(keys)[1])


def _scaled(value: ir.Value | None, reader: ir.Node) -> tuple[ir.Node, float] | None:
    """The Mul by a number that makes `value`, where `reader` alone has it."""
    if value is None or not is_float(value) or sole_consumer(value) is not reader:
        return None
    transpose = producer(value, "Transpose")
    if transpose is not None:
        return _scaled(transpose.inputs[0], transpose)
    node = producer(value, "Mul")
    if node is None:
        return None
    factor, data = _factor_of(node)
    return None if factor is None or shape(data) != shape(value) else (node, factor)


def _factor_of(node: ir.Node) -> tuple[float | None, ir.Value]:
    left, right = node.inputs
    assert left is not None
    assert right is not None
    return (scalar(right), left) if scalar(right) is not None else (scalar(left), right)


def share_keys(node: ir.Node, edit: Editor) -> bool:
    """Case 2."""
    query, repeated = node.inputs
    swapped = producer(repeated, "Transpose")
    if swapped is not None:
        if tuple(swapped.attributes.get_ints("perm") or ()) != SWAPPED:
            return False
        repeated = swapped.inputs[0]
    merged = producer(repeated, "Reshape")
    expand = producer(merged.inputs[0], "Expand") if merged is not None else None
    if expand is None or node.graph is None:
        return False
    few, many = static_shape(expand.inputs[0]), static_shape(expand.outputs[0])
    rows, result, flat = static_shape(query), static_shape(node.outputs[0]), static_shape(repeated)
    if few is None or many is None or rows is None or result is None or flat is None or len(many) != 5 or len(rows) != 4:
        return False
    batch, groups, repeats, *matrix = many
    if few != (batch, groups, 1, *matrix) or flat != (batch, groups * repeats, *matrix) or rows[:2] != flat[:2]:
        return False

    def reshaped(value: ir.Value | None, wanted: tuple[int, ...]) -> ir.Value:
        assert node.graph is not None
        target = edit.constant(np.array(wanted, np.int64), f"{node.outputs[0].name}_shape", node.graph)
        return edit.op("Reshape", [value, target], before=node)

    keys = reshaped(expand.inputs[0], (batch, groups, *matrix))
    if swapped is not None:
        keys = edit.op("Transpose", [keys], {"perm": list(SWAPPED)}, before=node)
    product = edit.op("MatMul", [reshaped(query, (batch, groups, repeats * rows[2], rows[3])), keys], before=node)
    return edit.replace(node.outputs[0], reshaped(product, result))


def sign_into_constant(node: ir.Node, edit: Editor) -> bool:
    """Case 3."""
    for index in (0, 1):
        joined, constant = producer(node.inputs[index], "Concat"), array(node.inputs[1 - index])
        if joined is None or constant is None or constant.dtype.kind != "f" or sole_consumer(joined.outputs[0]) is not node:
            continue
        negatives = [producer(value, "Neg") for value in joined.inputs]
        sizes, result = [static_shape(value) for value in joined.inputs], shape(joined.outputs[0])
        if not any(negatives) or None in sizes or result is None or shape(node.outputs[0]) != result:
            continue
        axis = joined.attributes["axis"].as_int() % len(result)
        lengths = [size[axis] for size in sizes if size is not None]
        signs = np.concatenate([np.full(length, -1 if n else 1) for length, n in zip(lengths, negatives, strict=True)])
        signs = signs.reshape([-1 if place == axis else 1 for place in range(len(result))])
        assert node.graph is not None
        signed = edit.constant((constant * signs).astype(constant.dtype), f"{node.outputs[0].name}_signed", node.graph)
        parts = [n.inputs[0] if n is not None else value for value, n in zip(joined.inputs, negatives, strict=True)]
        concat = edit.op("Concat", parts, {"axis": axis}, before=node)
        return edit.replace(node.outputs[0], edit.op("Mul", [concat, signed], before=node))
    return False


def scale_into_constants(node: ir.Node, edit: Editor) -> bool:
    """Case 4: `node` is the last Mul. It waits for case 1, which brings it the other operand's number."""
    reader = sole_consumer(node.outputs[0])
    if reader is not None and reader.op_type == "MatMul" and all(_scaled(value, reader) for value in reader.inputs):
        return False
    factor, total = _factor_of(node)
    add = producer(total, "Add")
    if factor is None or add is None or node.graph is None or sole_consumer(total) is not node or not is_float(total):
        return False
    terms = []
    for value in add.inputs:
        product = producer(value, "Mul")
        if value is None or product is None or sole_consumer(value) is not add:
            return False
        places = [index for index in (0, 1) if array(product.inputs[index]) is not None]
        if len(places) != 1:
            return False
        terms.append((product.inputs[1 - places[0]], array(product.inputs[places[0]])))
    name, scaled = node.outputs[0].name, []
    for data, constant in terms:
        assert constant is not None
        times = (constant.astype(np.float64) * factor).astype(constant.dtype)
        scaled.append(edit.op("Mul", [data, edit.constant(times, f"{name}_scaled", node.graph)], before=node))
    return edit.replace(node.outputs[0], edit.op("Add", scaled, before=node))


def scale_queries(node: ir.Node, edit: Editor) -> bool:
    """Case 5: `node` is the Mul or Div."""
    if node.op_type == "Div" and scalar(node.inputs[0]) is not None:
        return False
    factor, product = _factor_of(node)
    matmul = producer(product, "MatMul")
    if not factor or matmul is None or node.graph is None or sole_consumer(product) is not node or not is_float(product):
        return False
    query, keys = matmul.inputs
    sizes = [static_shape(value) for value in (query, keys, product)]
    if query is None or any(size is None for size in sizes) or array(query) is not None or array(keys) is not None:
        return False
    if shape(node.outputs[0]) != sizes[2] or np.prod(sizes[0] or ()) > np.prod(sizes[2] or ()):
        return False
    assert product.dtype is not None
    times = np.asarray(factor if node.op_type == "Mul" else 1 / factor, product.dtype.numpy())
    scaled = edit.op("Mul", [query, edit.constant(times, f"{node.outputs[0].name}_scale", node.graph)], before=node)
    return edit.replace(node.outputs[0], edit.op("MatMul", [scaled, keys], before=node))


def mix_in_place(node: ir.Node, edit: Editor) -> bool:
    """Case 6: `node` is the second Transpose."""
    add = producer(node.inputs[0], "Add")
    bias = next((array(value) for value in add.inputs if array(value) is not None), None) if add is not None else None
    product = node.inputs[0]
    if add is not None:
        product = next((value for value in add.inputs if array(value) is None), None)
    matmul = producer(product, "MatMul")
    first = producer(matmul.inputs[0], "Transpose") if matmul is not None else None
    if matmul is None or first is None or product is None or node.graph is None or (add is not None and bias is None):
        return False
    chain = (matmul.inputs[0], product, node.inputs[0]) if add is not None else (matmul.inputs[0], product)
    if any(value is None or sole_consumer(value) is None for value in chain):
        return False
    x, weight, sizes = first.inputs[0], array(matmul.inputs[1]), static_shape(first.inputs[0])
    away, back = first.attributes.get_ints("perm"), node.attributes.get_ints("perm")
    if (
        weight is None
        or weight.ndim != 2
        or weight.size > SMALL
        or sizes is None
        or not is_float(x)
        or away is None
        or back is None
    ):
        return False
    axis = away[-1]
    if [*away] != [*(i for i in range(len(sizes)) if i != axis), axis] or [away[i] for i in back] != list(range(len(sizes))):
        return False
    if axis == len(sizes) - 1 or (
        bias is not None and (bias.size not in (1, weight.shape[1]) or bias.shape[-1:] not in ((), (bias.size,)))
    ):
        return False
    name, before = node.outputs[0].name, int(np.prod(sizes[:axis]))
    left = edit.constant(np.ascontiguousarray(weight.T), f"{name}_left", node.graph)
    folded = edit.constant(np.array([before, sizes[axis], -1], np.int64), f"{name}_folded", node.graph)
    made = edit.op("MatMul", [left, edit.op("Reshape", [x, folded], before=node)], before=node)
    if bias is not None:
        column = edit.constant(bias.reshape(-1, 1), f"{name}_column", node.graph)
        made = edit.op("Add", [made, column], before=node)
    shape_again = np.array([*sizes[:axis], weight.shape[1], *sizes[axis + 1 :]], np.int64)
    target = edit.constant(shape_again, f"{name}_shape", node.graph)
    return edit.replace(node.outputs[0], edit.op("Reshape", [made, target], before=node))


RULES = {
    "Transpose": [mix_in_place],
    "MatMul": [scale_one_operand, share_keys],
    "Mul": [sign_into_constant, scale_into_constants, scale_queries],
    "Div": [scale_queries],
}
