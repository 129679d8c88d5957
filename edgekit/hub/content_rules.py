"""The elements of small integer tensors that are computed from shapes: a function per operator.

A rule returns the elements of the first output, flattened, or None where they are not known.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgekit.hub import dims
from edgekit.hub.dims import Dim
from edgekit.hub.facts import SMALL, Contents, Dims, known_contents, shape_of


def _shape(node: ir.Node, contents: Contents) -> Dims | None:
    data = node.inputs[0]
    source = shape_of(data) if data is not None else None
    if source is None:
        return None
    end = node.attributes.get_int("end")
    return source[node.attributes.get_int("start", 0) : end]


def _size(node: ir.Node, contents: Contents) -> Dims | None:
    source = shape_of(node.inputs[0]) if node.inputs[0] is not None else None
    return None if source is None else (dims.product(source),)


def _same(node: ir.Node, contents: Contents) -> Dims | None:
    if node.op_type == "Cast" and not ir.DataType(node.attributes["to"].as_int()).is_integer():
        return None
    return known_contents(node.inputs[0], contents)


def _gather(node: ir.Node, contents: Contents) -> Dims | None:
    data, index = (known_contents(value, contents) for value in node.inputs[:2])
    if data is None or index is None or not all(isinstance(i, int) and -len(data) <= i < len(data) for i in index):
        return None
    return tuple(data[i] for i in index if isinstance(i, int))


def _slice(node: ir.Node, contents: Contents) -> Dims | None:
    data, *given = (known_contents(value, contents) for value in node.inputs)
    numbers = [part[0] for part in given if part is not None and len(part) == 1 and isinstance(part[0], int)]
    if data is None or len(numbers) != len(given):
        return None
    start, end, _, step = (*numbers, 0, 1)[:4] if len(numbers) != 3 else (*numbers, 1)
    return data[slice(start, None if step < 0 and end < -len(data) else end, step)]


def _concat(node: ir.Node, contents: Contents) -> Dims | None:
    parts = [known_contents(value, contents) for value in node.inputs]
    found = [part for part in parts if part is not None]
    return None if len(found) != len(parts) else tuple(item for part in found for item in part)


def _binary(compute: Callable[[Dim, Dim], Dim | None]) -> Callable[[ir.Node, Contents], Dims | None]:
    def rule(node: ir.Node, contents: Contents) -> Dims | None:
        left, right = (known_contents(value, contents) for value in node.inputs[:2])
        if left is None or right is None or (len(left) != len(right) and 1 not in (len(left), len(right))):
            return None
        size = max(len(left), len(right))
        pairs = zip(left * size if len(left) == 1 else left, right * size if len(right) == 1 else right, strict=False)
        found = [compute(a, b) for a, b in pairs]
        return None if any(item is None for item in found) else tuple(item for item in found if item is not None)

    return rule


def _truncated(left: Dim, right: Dim) -> Dim | None:
    if isinstance(left, int) and isinstance(right, int):
        return None if right == 0 else int(left / right) if abs(left) < 1 << 52 else None
    return dims.divide(left, right)  # dimensions are not negative, where rounding down and to zero agree


def _equal(left: Dim, right: Dim) -> Dim | None:
    if left == right:
        return 1
    if isinstance(left, int) and isinstance(right, int):
        return 0
    number = left if isinstance(left, int) else right
    return 0 if isinstance(number, int) and number < 0 else None  # a dimension is never -1


def _where(node: ir.Node, contents: Contents) -> Dims | None:
    parts = [known_contents(value, contents) for value in node.inputs]
    found = [part for part in parts if part is not None]
    if len(found) != 3:
        return None
    size = max(len(part) for part in found)
    if any(len(part) not in (1, size) for part in found):
        return None
    picks, left, right = (part * size if len(part) == 1 else part for part in found)
    return tuple(a if pick else b for pick, a, b in zip(picks, left, right, strict=False))


def _product(node: ir.Node, contents: Contents) -> Dims | None:
    data = known_contents(node.inputs[0], contents)
    return None if data is None or len(shape_of(node.outputs[0]) or ()) > 1 else (dims.product(data),)


def _filled(node: ir.Node, contents: Contents) -> Dims | None:
    target = known_contents(node.inputs[0], contents)
    value = node.attributes.get_tensor("value")
    if value is None or not value.dtype.is_integer() or target is None or len(target) > 1:
        return None
    count = target[0] if target else 1
    return (int(value.numpy().reshape(-1)[0]),) * count if isinstance(count, int) and count <= SMALL else None


CONTENTS: dict[str, Callable[[ir.Node, Contents], Dims | None]] = {
    "Shape": _shape,
    "Size": _size,
    "Cast": _same,
    "Identity": _same,
    "Squeeze": _same,
    "Unsqueeze": _same,
    "Reshape": _same,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Add": _binary(dims.add),
    "Sub": _binary(dims.subtract),
    "Mul": _binary(dims.multiply),
    "Div": _binary(_truncated),
    "Equal": _binary(_equal),
    "Where": _where,
    "ReduceProd": _product,
    "ConstantOfShape": _filled,
}
