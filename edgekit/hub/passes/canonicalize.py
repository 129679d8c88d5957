"""One spelling for what ONNX can say in several ways.

 1. CastLike                          →  Cast
 2. GlobalAveragePool, GlobalMaxPool, and AveragePool, MaxPool of the whole map  →  ReduceMean, ReduceMax over the spatial axes,
    keepdims=1
 3. Sum of n                          →  Add, Add, …
 4. x - c                             →  x + (-c)                      floating point, c constant
 5. x / c                             →  x * (1/c)                     c constant and a power of two, where that is exact
 6. x ** 2, x ** 0.5, x ** -0.5, x ** -1  →  x * x, Sqrt, Reciprocal(Sqrt), Reciprocal
 7. c, a constant of equal numbers, beside a broadcasting operator  →  one number, where the result keeps its shape
 8. Expand(x) beside a broadcasting operator  →  x, where the result keeps its shape
 9. a + (-b)                          →  a - b
10. auto_pad of Conv, MaxPool, AveragePool  →  pads, where the sizes are numbers
11. Conv, ConvTranspose, MaxPool, AveragePool without kernel_shape, strides, dilations or pads say them
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.hub import facts
from edgekit.hub.edit import Editor, array, is_constant, is_float, producer, scalar, shape, static_shape

BROADCASTING = "Add Sub Mul Div Pow Max Min Where Equal Less Greater LessOrEqual GreaterOrEqual And Or PRelu".split()


def lower_cast_like(node: ir.Node, edit: Editor) -> bool:
    """Case 1."""
    data, like = node.inputs
    if data is None or like is None or like.dtype is None:
        return False
    return edit.replace(node.outputs[0], edit.op("Cast", [data], {"to": int(like.dtype)}, before=node))


def lower_global_pool(node: ir.Node, edit: Editor) -> bool:
    """Case 2."""
    data = node.inputs[0]
    rank = len(shape(data) or ())
    if rank < 3 or node.graph is None:
        return False
    axes = edit.constant(np.arange(2, rank), f"{node.outputs[0].name}_axes", node.graph)
    reduction = "ReduceMean" if "Average" in node.op_type else "ReduceMax"
    return edit.replace(node.outputs[0], edit.op(reduction, [data, axes], {"keepdims": 1}, before=node))


def lower_whole_pool(node: ir.Node, edit: Editor) -> bool:
    """Case 2 for a window as large as the map, not padded."""
    data, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    kernel = node.attributes.get_ints("kernel_shape")
    if data is None or result is None or kernel is None or tuple(kernel) != data[2:] or len(node.outputs) > 1:
        return False
    if any(size != 1 for size in result[2:]) or any(node.attributes.get_ints("pads") or ()) or "auto_pad" in node.attributes:
        return False
    return lower_global_pool(node, edit)


def split_sum(node: ir.Node, edit: Editor) -> bool:
    """Case 3."""
    total = node.inputs[0]
    for value in node.inputs[1:]:
        total = edit.op("Add", [total, value], before=node)
    return total is not None and len(node.inputs) > 1 and edit.replace(node.outputs[0], total)


def subtract_to_add(node: ir.Node, edit: Editor) -> bool:
    """Case 4."""
    data, constant = node.inputs
    found = array(constant)
    if found is None or found.dtype.kind != "f" or constant is None or node.graph is None or is_constant(data):
        return False
    negative = edit.constant(-found, f"{constant.name}_negative", node.graph)
    return edit.replace(node.outputs[0], edit.op("Add", [data, negative], before=node))


def divide_to_multiply(node: ir.Node, edit: Editor) -> bool:
    """Case 5."""
    data, constant = node.inputs
    found = array(constant)
    if found is None or found.dtype.kind != "f" or constant is None or node.graph is None or is_constant(data):
        return False
    mantissa, exponent = np.frexp(found)
    if not ((np.abs(mantissa) == 0.5) & (np.abs(exponent) < 100 if found.dtype.itemsize > 2 else np.abs(exponent) < 10)).all():
        return False
    reciprocal = edit.constant((1 / found).astype(found.dtype), f"{constant.name}_reciprocal", node.graph)
    return edit.replace(node.outputs[0], edit.op("Mul", [data, reciprocal], before=node))


def lower_power(node: ir.Node, edit: Editor) -> bool:
    """Case 6."""
    data, exponent = node.inputs
    power = scalar(exponent)
    if power not in (2.0, 0.5, -0.5, -1.0) or not is_float(data) or shape(data) != shape(node.outputs[0]):
        return False
    if power == 2.0:
        return edit.replace(node.outputs[0], edit.op("Mul", [data, data], before=node))
    value = data if power == -1.0 else edit.op("Sqrt", [data], before=node)
    return edit.replace(node.outputs[0], value if power == 0.5 else edit.op("Reciprocal", [value], before=node))  # type: ignore[arg-type]


def shrink_operands(node: ir.Node, edit: Editor) -> bool:
    """Cases 7 and 8."""
    result = shape(node.outputs[0])
    changed = False
    for index, value in enumerate(node.inputs):
        if value is None or result is None:
            continue
        smaller = _unexpanded(node, index, value, result) or _shrunk(node, index, value, result, edit)
        if smaller is None or (node.op_type == "PRelu" and index == 0):
            continue
        node.replace_input_with(index, smaller)
        edit.touched.append(node)
        changed = True
        if (origin := value.producer()) is not None:
            edit.prune(origin)
    return changed


def _unexpanded(node: ir.Node, index: int, value: ir.Value, result: facts.Dims) -> ir.Value | None:
    expand = producer(value, "Expand")
    source = shape(expand.inputs[0]) if expand is not None else None
    return expand.inputs[0] if expand is not None and _broadcasts(node, index, source, result) else None


def _shrunk(node: ir.Node, index: int, value: ir.Value, result: facts.Dims, edit: Editor) -> ir.Value | None:
    tensor = value.const_value if is_constant(value) else None
    if tensor is None or tensor.size < 2 or tensor.dtype == ir.DataType.STRING or node.graph is None:
        return None
    content = small = tensor.numpy()
    for axis in range(content.ndim):
        first = small.take([0], axis)
        if small.shape[axis] > 1 and _broadcasts(node, index, first.shape, result) and bool((small == first).all()):
            small = first
    while small.ndim and small.shape[0] == 1 and _broadcasts(node, index, small.shape[1:], result):
        small = small[0]
    return edit.constant(small, f"{value.name}_once", node.graph) if small.size < content.size else None


def _broadcasts(node: ir.Node, index: int, dims: facts.Dims | None, result: facts.Dims) -> bool:
    """Whether the result keeps its shape when one operand has another."""
    shapes = [dims if place == index else shape(other) for place, other in enumerate(node.inputs)]
    known = [found for found in shapes if found is not None]
    return len(known) == len(shapes) and facts.broadcast_shapes(known) == result


def add_negative(node: ir.Node, edit: Editor) -> bool:
    """Case 9."""
    for index in (1, 0):
        negative = producer(node.inputs[index], "Neg")
        if negative is not None and not is_constant(node.inputs[1 - index]):
            difference = edit.op("Sub", [node.inputs[1 - index], negative.inputs[0]], before=node)
            return edit.replace(node.outputs[0], difference)
    return False


def spell_out_window(node: ir.Node, edit: Editor) -> bool:
    """Cases 10 and 11."""
    if "auto_pad" not in node.attributes and all(node.attributes.get_ints(name) for name in _WINDOW):
        return False
    dims = shape(node.inputs[0])
    if dims is None or len(dims) < 3:
        return False
    rank = len(dims) - 2
    weights = static_shape(node.inputs[1]) if node.op_type.startswith("Conv") else None
    given = {name: list(node.attributes[name].as_ints()) for name in _WINDOW if name in node.attributes}
    kernel = given.get("kernel_shape") or (list(weights[2:]) if weights else None)
    if kernel is None:
        return False
    strides, dilations = given.get("strides") or [1] * rank, given.get("dilations") or [1] * rank
    pads = given.get("pads") or [0] * (2 * rank)
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto != "NOTSET":
        resolved = _resolve_auto_pad(node, auto or "", dims[2:], kernel, strides, dilations)
        if resolved is None:
            return False
        pads = resolved
    wanted = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
    node.attributes.pop("auto_pad", None)
    for name, value in wanted.items():
        node.attributes[name] = ir.AttrInt64s(name, value)
    edit.touched.append(node)
    return True


_WINDOW = ("kernel_shape", "strides", "dilations", "pads")


def _resolve_auto_pad(
    node: ir.Node, auto: str, sizes: facts.Dims, kernel: list[int], strides: list[int], dilations: list[int]
) -> list[int] | None:
    if auto == "VALID":
        return [0] * (2 * len(kernel))
    if node.op_type == "ConvTranspose" or ("ceil_mode" in node.attributes and node.attributes["ceil_mode"].as_int()):
        return None
    before, after = [], []
    for size, reach, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        if isinstance(size, str) and stride > 1:
            return None
        outputs = 1 if isinstance(size, str) else -(-size // stride)
        have = 1 if isinstance(size, str) else size
        total = max((outputs - 1) * stride + (reach - 1) * dilation + 1 - have, 0)
        small, large = total // 2, total - total // 2
        before.append(small if auto == "SAME_UPPER" else large)
        after.append(large if auto == "SAME_UPPER" else small)
    return before + after


RULES = {
    "CastLike": [lower_cast_like],
    "GlobalAveragePool": [lower_global_pool],
    "GlobalMaxPool": [lower_global_pool],
    **{name: [spell_out_window] for name in ("Conv", "ConvTranspose")},
    **{name: [spell_out_window, lower_whole_pool] for name in ("MaxPool", "AveragePool")},
    **{name: [shrink_operands] for name in BROADCASTING},
    "Sum": [split_sum],
    "Add": [shrink_operands, add_negative],
    "Sub": [shrink_operands, subtract_to_add],
    "Div": [shrink_operands, divide_to_multiply],
    "Pow": [shrink_operands, lower_power],
}
