"""Shapes that ONNX's own inference cannot find, or not as quickly: a function per operator.

A rule returns (dtype, dimensions) of the first output, or None where ONNX's inference should try.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import onnx_ir as ir

from edgekit.hub import dims
from edgekit.hub.dims import Dim
from edgekit.hub.facts import Contents, Known, broadcast_shapes, does_not_fit, identifier, known_contents, shape_of

# Shapes that need no contents, for the operators that models are full of ----------------------------------------------


def _same(node: ir.Node, contents: Contents) -> Known | None:
    data = node.inputs[0]
    source = shape_of(data) if data is not None else None
    return None if data is None or source is None or not isinstance(data.type, ir.TensorType) else (data.dtype, source)


def _elementwise(node: ir.Node, contents: Contents) -> Known | None:
    left, right = node.inputs
    if left is None or right is None or left.dtype != right.dtype:
        return None  # ONNX's inference words the error
    shapes = shape_of(left), shape_of(right)
    if shapes[0] is None or shapes[1] is None:
        return None
    together = broadcast_shapes([shapes[0], shapes[1]])
    return None if together is None else (left.dtype, together)


def _matmul(node: ir.Node, contents: Contents) -> Known | None:
    left, right = node.inputs
    a, b = (shape_of(value) if value is not None else None for value in (left, right))
    if left is None or a is None or b is None or len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        return None
    batch = broadcast_shapes([a[:-2], b[:-2]])
    return None if batch is None else (left.dtype, (*batch, a[-2], b[-1]))


def _normalized(node: ir.Node, contents: Contents) -> Known | None:
    known, axis = _same(node, contents), node.attributes.get_int("axis", -1)
    fits = known is not None and known[1] is not None and -len(known[1]) <= axis < len(known[1])
    return known if fits and len(node.outputs) == 1 else None


def _batch_normalized(node: ir.Node, contents: Contents) -> Known | None:
    known = _same(node, contents)
    vectors = {shape_of(value) if value is not None else None for value in node.inputs[1:]}
    fits = known is not None and known[1] is not None and len(known[1]) > 1 and vectors == {(known[1][1],)}
    return known if fits and len(node.outputs) == 1 else None


def _gather(node: ir.Node, contents: Contents) -> Known | None:
    data, index = node.inputs
    source, places = (shape_of(value) if value is not None else None for value in (data, index))
    axis = node.attributes.get_int("axis", 0)
    if data is None or source is None or places is None or not -len(source) <= axis < len(source):
        return None
    axis %= len(source)
    return data.dtype, (*source[:axis], *places, *source[axis + 1 :])


def _transpose(node: ir.Node, contents: Contents) -> Known | None:
    data = node.inputs[0]
    source = shape_of(data) if data is not None else None
    if data is None or source is None:
        return None
    perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(len(source))[::-1]
    if sorted(perm) != list(range(len(source))):  # ONNX's inference does not look, and may end the process
        raise does_not_fit(node, f"perm is {list(perm)} for an input of {len(source)} dimensions")
    return data.dtype, tuple(source[axis] for axis in perm)


def _squeeze(node: ir.Node, contents: Contents) -> Known | None:
    data, axes = node.inputs[0], known_contents(node.inputs[1], contents) if len(node.inputs) > 1 else None
    source = shape_of(data) if data is not None else None
    if data is None or source is None or axes is None:
        return None
    dropped = {axis + len(source) if isinstance(axis, int) and axis < 0 else axis for axis in axes}
    kept = [axis for axis in range(len(source)) if axis not in dropped]
    if len(kept) + len(axes) != len(source) or any(source[axis] != 1 for axis in range(len(source)) if axis in dropped):
        return None
    return data.dtype, tuple(source[axis] for axis in kept)


def _reduced(node: ir.Node, contents: Contents) -> Known | None:
    """Over axes that are computed: how many there are is how many are dropped."""
    data, axes = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    source = shape_of(data) if data is not None else None
    places = shape_of(axes) if axes is not None else None
    count = places[0] if places is not None and len(places) == 1 else None
    if data is None or source is None or not isinstance(count, int):
        return None
    keeps = node.attributes.get_int("keepdims", 1)
    if count == 0:
        return data.dtype, source if node.attributes.get_int("noop_with_empty_axes", 0) else (1,) * (len(source) * keeps)
    if known_contents(axes, contents) is not None:
        return None
    name = identifier(node.outputs[0].name or "reduced")
    return data.dtype, tuple(f"{name}_d{axis}" for axis in range(len(source) if keeps else len(source) - count))


_TERM = r"[A-Za-z ]*(\.\.\.[A-Za-z ]*)?"
_EQUATION = re.compile(rf"{_TERM}(,{_TERM})*(->{_TERM})?")


def _einsum(node: ir.Node, contents: Contents) -> Known | None:
    """ONNX's inference finds it, but never comes to an end with other characters than those of an equation."""
    equation = node.attributes["equation"].as_string()
    if not _EQUATION.fullmatch(equation):
        raise does_not_fit(node, f"{equation!r} is no equation of letters")
    return None


# Shapes that depend on contents ---------------------------------------------------------------------------------------


def _reshape(node: ir.Node, contents: Contents) -> Known | None:
    data, target = node.inputs[0], known_contents(node.inputs[1], contents)
    if data is None or target is None:
        return None
    source = shape_of(data)
    zero_is_copy = not node.attributes.get_int("allowzero", 0)
    if source is None and (-1 in target or (0 in target and zero_is_copy)):
        return None
    found: list[Dim] = []
    for axis, dim in enumerate(target):
        if dim == 0 and zero_is_copy:
            if source is None or axis >= len(source):
                return None
            dim = source[axis]
        found.append(dim)
    if -1 in found and source is not None:
        others = dims.product(dim for dim in found if dim != -1)
        size = dims.product(source)
        rest = dims.divide_exactly(size, others) if others != 0 else None
        if rest is None:
            if isinstance(size, int) and isinstance(others, int):
                return None  # ONNX's inference words the error
            rest = dims.divide(size, others)
        found[found.index(-1)] = rest
    sizes = dims.product(source or ()), dims.product(found)
    if source is not None and isinstance(sizes[0], int) and isinstance(sizes[1], int) and sizes[0] != sizes[1]:
        raise does_not_fit(node, f"{sizes[0]} elements cannot have the shape {list(found)}")
    return data.dtype, tuple(found)


def _expand(node: ir.Node, contents: Contents) -> Known | None:
    data, target = node.inputs[0], known_contents(node.inputs[1], contents)
    source = shape_of(data) if data is not None else None
    if data is None or target is None or source is None:
        return None
    together = broadcast_shapes([source, target])
    return None if together is None else (data.dtype, together)


def _filled(node: ir.Node, contents: Contents) -> Known | None:
    target = known_contents(node.inputs[0], contents)
    if target is None:
        return None
    value = node.attributes.get_tensor("value")
    return (ir.DataType.FLOAT if value is None else value.dtype), target


def _range(node: ir.Node, contents: Contents) -> Known | None:
    parts = [known_contents(value, contents) for value in node.inputs]
    if any(part is None or len(part) != 1 for part in parts):
        return None
    (start,), (stop,), (step,) = (part for part in parts if part is not None)
    if not isinstance(step, int) or step == 0:
        return None
    distance = dims.subtract(stop, start)
    if step < 0:
        distance, step = dims.multiply(-1, distance), -step
    count = dims.divide(dims.add(distance, step - 1), step)
    return node.inputs[0].dtype if node.inputs[0] is not None else None, (max(count, 0) if isinstance(count, int) else count,)


def _tile(node: ir.Node, contents: Contents) -> Known | None:
    data, repeats = node.inputs[0], known_contents(node.inputs[1], contents)
    source = shape_of(data) if data is not None else None
    if data is None or repeats is None or source is None or len(source) != len(repeats):
        return None
    return data.dtype, tuple(dims.multiply(a, b) for a, b in zip(source, repeats, strict=True))


def _slice(node: ir.Node, contents: Contents) -> Known | None:
    data = node.inputs[0]
    source = shape_of(data) if data is not None else None
    starts, ends = (known_contents(value, contents) for value in node.inputs[1:3])
    if data is None or source is None or starts is None or ends is None:
        return None
    given = [known_contents(value, contents) if value is not None else () for value in (*node.inputs[3:5], None, None)[:2]]
    if any(part is None for part in given):
        return None
    axes = given[0] or tuple(range(len(starts)))
    steps = given[1] or (1,) * len(starts)
    found = list(source)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if not isinstance(axis, int) or not isinstance(step, int):
            return None
        length = _slice_length(source[axis], start, end, step)
        if length is None:
            return None
        found[axis] = length
    return data.dtype, tuple(found)


_FAR = 1 << 30  # exporters write "to the end" as INT32_MAX, INT64_MAX or something near


def _slice_length(size: Dim, start: Dim, end: Dim, step: int) -> Dim | None:
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(size)[slice(start, None if step < 0 and end < -size else end, step)])
    if step < 1:
        return None
    if isinstance(start, int) and isinstance(end, int) and (start < 0) == (end < 0) and start >= end:
        return 0
    if isinstance(start, int) and start < 0:
        start = dims.add(size, start) if isinstance(size, int) or start > -_FAR else 0
    if isinstance(end, int):
        end = size if end >= _FAR else dims.add(size, end) if end < 0 else end
    if end != size and isinstance(size, str) and not _part_of(end, size):
        return None  # whether the end lies beyond the data is not known
    distance = dims.subtract(end, start)
    return distance if step == 1 else dims.divide(dims.add(distance, step - 1), step)


def _part_of(end: Dim, size: Dim) -> bool:
    """Whether `end` is surely no more than `size`: their difference is a number of at least 0."""
    rest = dims.subtract(size, end)
    return isinstance(rest, int) and rest >= 0


def _concat(node: ir.Node, contents: Contents) -> Known | None:
    shapes = [shape_of(value) if value is not None else None for value in node.inputs]
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes) or not known or len({len(shape) for shape in known}) != 1:
        return None
    axis = node.attributes["axis"].as_int() % len(known[0])
    if all(isinstance(shape[axis], int) for shape in known) and len({shape[:axis] + shape[axis + 1 :] for shape in known}) > 1:
        return None  # ONNX's inference words the error
    total: Dim = 0
    for shape in known:
        total = dims.add(total, shape[axis])
    found = [next((s[i] for s in known if isinstance(s[i], int)), known[0][i]) for i in range(len(known[0]))]
    found[axis] = total
    return node.inputs[0].dtype if node.inputs[0] is not None else None, tuple(found)


def _flatten(node: ir.Node, contents: Contents) -> Known | None:
    data = node.inputs[0]
    source = shape_of(data) if data is not None else None
    if data is None or source is None:
        return None
    axis = node.attributes.get_int("axis", 1)
    axis = axis + len(source) if axis < 0 else axis
    return data.dtype, (dims.product(source[:axis]), dims.product(source[axis:]))


def _resize(node: ir.Node, contents: Contents) -> Known | None:
    data = node.inputs[0]
    source = shape_of(data) if data is not None else None
    sizes = known_contents(node.inputs[3], contents) if len(node.inputs) > 3 else None
    plain = "axes" not in node.attributes and node.attributes.get_string("keep_aspect_ratio_policy", "stretch") == "stretch"
    if data is None or source is None or sizes is None or not plain or len(sizes) != len(source):
        return None
    return data.dtype, sizes


def _window(node: ir.Node, contents: Contents) -> Known | None:
    """Conv and pools; what does not fit is left to ONNX's inference, which words the error."""
    data, weight = node.inputs[0], node.inputs[1] if node.op_type == "Conv" else None
    source = shape_of(data) if data is not None else None
    if data is None or source is None or len(source) < 3 or len(node.outputs) > 1:
        return None
    rank = len(source) - 2
    _check_window(node, rank)
    weights = shape_of(weight) if weight is not None else None
    kernel = node.attributes.get_ints("kernel_shape") or (weights[2:] if weights else None)
    if kernel is None or (node.op_type == "Conv" and weights is None):
        return None
    strides = node.attributes.get_ints("strides") or [1] * rank
    dilations = node.attributes.get_ints("dilations") or [1] * rank
    pads = node.attributes.get_ints("pads") or [0] * (2 * rank)
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    up = node.attributes.get_int("ceil_mode", 0)
    if up and not all(isinstance(size, int) for size in source[2:]):
        return None
    found: list[Dim] = []
    for axis, size in enumerate(source[2:]):
        stride = strides[axis]
        if auto.startswith("SAME"):
            found.append(dims.divide(dims.add(size, stride - 1), stride))
            continue
        around = 0 if auto == "VALID" else pads[axis] + pads[axis + rank]
        reach = dims.add(dims.multiply(dims.subtract(kernel[axis], 1), dilations[axis]), 1)
        if up and isinstance(size, int) and isinstance(reach, int):
            found.append(_rounded_up(size, around, 0 if auto == "VALID" else pads[axis], reach, stride))
            continue
        found.append(dims.add(dims.divide(dims.subtract(dims.add(size, around), reach), stride), 1))
    if weights and (len(weights) != len(source) or not _channels_fit(source[1], weights[1], node)):
        return None
    channels = weights[0] if weights else source[1]
    return data.dtype, (source[0], channels, *found)


def _rounded_up(size: int, around: int, begin: int, reach: int, stride: int) -> int:
    """How many windows there are with ceil_mode; one that starts in the padding at the end is none (onnxruntime, ONNX 22)."""
    count = -(-(size + around - reach) // stride) + 1
    return count - 1 if (count - 1) * stride >= size + begin else count


def _check_window(node: ir.Node, rank: int) -> None:
    for name, count in (("kernel_shape", rank), ("strides", rank), ("dilations", rank), ("pads", 2 * rank)):
        given = node.attributes.get_ints(name)
        if given is not None and len(given) != count:
            raise does_not_fit(node, f"{name} is {list(given)} for {rank} spatial dimensions")


def _channels_fit(channels: Dim, per_group: Dim, node: ir.Node) -> bool:
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    return not isinstance(channels, int) or not isinstance(per_group, int) or channels == per_group * groups


SHAPES: dict[str, Callable[[ir.Node, Contents], Known | None]] = {
    **dict.fromkeys(
        "Relu Sigmoid Tanh Clip HardSwish HardSigmoid Gelu Softmax Exp Sqrt Neg Erf LeakyRelu Identity".split(), _same
    ),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _elementwise),
    **dict.fromkeys("ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean".split(), _reduced),
    **dict.fromkeys("ReduceMin ReduceProd ReduceSum ReduceSumSquare".split(), _reduced),
    "Einsum": _einsum,
    "MatMul": _matmul,
    "LayerNormalization": _normalized,
    "BatchNormalization": _batch_normalized,
    "Gather": _gather,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Expand": _expand,
    "ConstantOfShape": _filled,
    "Range": _range,
    "Tile": _tile,
    "Slice": _slice,
    "Concat": _concat,
    "Flatten": _flatten,
    "Resize": _resize,
    "Conv": _window,
    "MaxPool": _window,
    "AveragePool": _window,
    "LpPool": _window,
}
