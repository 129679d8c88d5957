"""The dtype and the shape of a node's outputs, with symbolic dimensions kept symbolic.

Three sources, in this order: rules of our own for operators whose result depends on *contents* that may be symbolic (Reshape to
`[batch, -1, 64]`, computed from Shape → Gather → Concat); ONNX's own inference for one node (`onnx.shape_inference`, about 20 µs,
no weights are serialized); what the model declared. A dimension that none of them knows gets a name of its own.

`Contents` holds what is known of small integer tensors (scalars and vectors) whose elements are dimensions: flattened, with
symbols where an element is not a number. Booleans are 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import onnx_ir as ir

from edgekit.errors import SourceError
from edgekit.hub import dims
from edgekit.hub.dims import Dim

Contents = dict[ir.Value, tuple[Dim, ...]]
Dims = tuple[Dim, ...]
Known = tuple[ir.DataType | None, Dims | None]

_SMALL = 64  # elements: constants up to this size are shown to ONNX's inference, and may be contents


def infer_node(node: ir.Node, opsets: Mapping[str, int], contents: Contents) -> None:
    """Set dtype and shape of a node's outputs from those of its inputs, and record contents.

    Nodes with graphs in their attributes are left to `edgekit.hub.passes.propagate`, which walks those graphs.

    Raises:
        SourceError: The operator does not exist in this opset, or its inputs do not fit it.
    """
    rule = _SHAPES.get(node.op_type) if node.domain == "" else None
    found = rule(node, contents) if rule else None
    if found is not None:
        _assign(node, [found])
    else:
        _infer_with_onnx(node, opsets)
    infer_contents(node, contents)


def infer_contents(node: ir.Node, contents: Contents) -> None:
    """Record what is known of the elements of a node's output."""
    compute = _CONTENTS.get(node.op_type) if node.domain == "" else None
    shape = node.outputs[0].shape if compute else None
    if (
        compute
        and shape is not None
        and len(shape) < 2
        and (known := compute(node, contents)) is not None
        and len(known) <= _SMALL
    ):
        contents[node.outputs[0]] = tuple(known)


def keep_known(old: ir.Value, new: ir.Value) -> None:
    """Give `new`, which holds the same tensor, the dimensions that are known of `old` alone."""
    have, known = shape_of(new), shape_of(old)
    if known is None or (have is not None and len(have) != len(known)):
        return
    merged = known if have is None else tuple(b if isinstance(b, int) else a for a, b in zip(have, known, strict=True))
    if merged != have and not new.is_initializer() and not new.is_graph_input():
        set_shape(new, merged)


def is_static(value: ir.Value) -> bool:
    """Whether dtype and every dimension are known."""
    return value.dtype is not None and value.shape is not None and value.shape.is_static()


def shape_of(value: ir.Value) -> Dims | None:
    """A value's dimensions; a symbolic one is its name, None where the rank is not known."""
    if value.shape is None:
        return None
    found = value.shape.dims
    if {int}.issuperset(map(type, found)):
        return cast(Dims, found)
    return tuple(
        dim if isinstance(dim, int) else dim.value or f"unknown_{_identifier(value.name or '')}_{axis}"
        for axis, dim in enumerate(found)
    )


def set_shape(value: ir.Value, shape: Dims) -> None:
    """Give a value a shape of numbers and symbols."""
    value.shape = ir.Shape([dims.canonical(dim) for dim in shape])


def broadcast_shapes(shapes: Sequence[Dims]) -> Dims | None:
    """The shape that results from broadcasting; None where two symbols or numbers may differ."""
    rank = max((len(shape) for shape in shapes), default=0)
    found: list[Dim] = []
    for axis in range(-rank, 0):
        options = {shape[axis] for shape in shapes if -axis <= len(shape)} - {1}
        numbers = {dim for dim in options if isinstance(dim, int)}
        if len(numbers) > 1 or (not numbers and len(options) > 1):
            return None
        # A symbol beside a number other than 1 can only be that number or 1.
        found.append(numbers.pop() if numbers else options.pop() if options else 1)
    return tuple(found)


def known_contents(value: ir.Value | None, contents: Contents) -> Dims | None:
    """The elements of a small integer tensor, constant or computed from shapes; None where they are not known."""
    if value is None:
        return None
    if value.is_initializer() and value.const_value is not None:
        tensor = value.const_value
        if tensor.size > _SMALL or not (tensor.dtype.is_integer() or tensor.dtype == ir.DataType.BOOL):
            return None
        return tuple(int(item) for item in tensor.numpy().reshape(-1))
    return contents.get(value)


def _assign(node: ir.Node, known: list[Known]) -> None:
    for output, (dtype, shape) in zip(node.outputs, known, strict=False):
        if dtype is not None and (output.dtype != dtype or not isinstance(output.type, ir.TensorType)):
            output.type = ir.TensorType(dtype)
        if shape is not None and shape_of(output) != shape:
            set_shape(output, shape)


def _infer_with_onnx(node: ir.Node, opsets: Mapping[str, int]) -> None:
    import onnx.defs
    import onnx.shape_inference

    version = opsets.get(node.domain, 1)
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        if node.domain == "":
            raise SourceError(
                f"ONNX opset {version} has no operator {node.op_type}",
                where=f"node {node.name or node.outputs[0].name!r}",
                fix="export the model again with standard operators",
            ) from None
        return
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for value in node.inputs:
        if value is None or value.type is None or value.name is None:
            continue
        proto = onnx.TypeProto()
        ir.serde.serialize_type_into(proto, value.type)
        if value.shape is not None:
            ir.serde.serialize_shape_into(proto, value.shape)
        types[value.name] = proto
        tensor = value.const_value if value.is_initializer() else None
        if tensor is not None and tensor.size <= _SMALL:
            data[value.name] = ir.serde.serialize_tensor(tensor)
    if any(value is not None and value.name not in types for value in node.inputs):
        return
    message = ir.serde.serialize_node(node)
    versions = [onnx.helper.make_opsetid(node.domain, version)]
    try:
        outputs = onnx.shape_inference.infer_node_outputs(schema, message, types, data, opset_imports=versions)
    except onnx.shape_inference.InferenceError as error:
        raise _does_not_fit(node, _reason(error)) from None
    for output in node.outputs:
        if output.name in outputs:
            _merge(output, outputs[output.name])


def _does_not_fit(node: ir.Node, reason: str) -> SourceError:
    return SourceError(
        f"the inputs of {node.op_type} do not fit it: {reason}",
        where=f"node {node.name or node.outputs[0].name!r}",
        fix="check the shapes given with --input; if the model runs elsewhere, it declares a wrong shape or dtype",
    )


def _merge(output: ir.Value, proto: Any) -> None:
    """Take the inferred type; where a dimension is not inferred keep the declared one, else name it."""
    kind = ir.serde.deserialize_type_proto_for_type(proto)
    if kind is not None and kind.dtype != ir.DataType.UNDEFINED:
        output.type = kind
    shape = ir.serde.deserialize_type_proto_for_shape(proto)
    if shape is None:
        return
    declared = output.shape if output.shape is not None and len(output.shape) == len(shape) else None
    found: list[Dim] = []
    for axis, dim in enumerate(shape):
        name = dim if isinstance(dim, int) else dim.value
        if name is None and declared is not None:
            known = declared[axis]
            name = known if isinstance(known, int) else known.value
        found.append(f"{_identifier(output.name or 'value')}_d{axis}" if name is None else name)
    set_shape(output, tuple(found))


def _identifier(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name).strip("_") or "value"


def _reason(error: Exception) -> str:
    """The last sentence of ONNX's message, which is the one that says what is wrong."""
    return str(error).strip().splitlines()[-1].split("] ")[-1]


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


def _transpose(node: ir.Node, contents: Contents) -> Known | None:
    data = node.inputs[0]
    source = shape_of(data) if data is not None else None
    if data is None or source is None:
        return None
    perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(len(source))[::-1]
    return (data.dtype, tuple(source[axis] for axis in perm)) if len(perm) == len(source) else None


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
        raise _does_not_fit(node, f"{sizes[0]} elements cannot have the shape {list(found)}")
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
    if all(isinstance(shape[axis], int) for shape in known):
        return None
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
    weights = shape_of(weight) if weight is not None else None
    kernel = node.attributes.get_ints("kernel_shape") or (weights[2:] if weights else None)
    if kernel is None or (node.op_type == "Conv" and weights is None):
        return None
    strides = node.attributes.get_ints("strides") or [1] * rank
    dilations = node.attributes.get_ints("dilations") or [1] * rank
    pads = node.attributes.get_ints("pads") or [0] * (2 * rank)
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    up = node.attributes.get_int("ceil_mode", 0)
    if up:
        return None
    found: list[Dim] = []
    for axis, size in enumerate(source[2:]):
        stride = strides[axis]
        if auto.startswith("SAME"):
            found.append(dims.divide(dims.add(size, stride - 1), stride))
            continue
        around = 0 if auto == "VALID" else pads[axis] + pads[axis + rank]
        reach = dims.add(dims.multiply(dims.subtract(kernel[axis], 1), dilations[axis]), 1)
        found.append(dims.add(dims.divide(dims.subtract(dims.add(size, around), reach), stride), 1))
    if weights and (len(weights) != len(source) or not _channels_fit(source[1], weights[1], node)):
        return None
    channels = weights[0] if weights else source[1]
    return data.dtype, (source[0], channels, *found)


def _channels_fit(channels: Dim, per_group: Dim, node: ir.Node) -> bool:
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    return not isinstance(channels, int) or not isinstance(per_group, int) or channels == per_group * groups


_SHAPES: dict[str, Callable[[ir.Node, Contents], Known | None]] = {
    **dict.fromkeys(
        "Relu Sigmoid Tanh Clip HardSwish HardSigmoid Gelu Softmax Exp Sqrt Neg Erf LeakyRelu Identity".split(), _same
    ),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _elementwise),
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
}


# Contents of small integer tensors ------------------------------------------------------------------------------------


def _contents_shape(node: ir.Node, contents: Contents) -> Dims | None:
    data = node.inputs[0]
    source = shape_of(data) if data is not None else None
    if source is None:
        return None
    end = node.attributes.get_int("end")
    return source[node.attributes.get_int("start", 0) : end]


def _contents_size(node: ir.Node, contents: Contents) -> Dims | None:
    source = shape_of(node.inputs[0]) if node.inputs[0] is not None else None
    return None if source is None else (dims.product(source),)


def _contents_same(node: ir.Node, contents: Contents) -> Dims | None:
    if node.op_type == "Cast" and not ir.DataType(node.attributes["to"].as_int()).is_integer():
        return None
    return known_contents(node.inputs[0], contents)


def _contents_gather(node: ir.Node, contents: Contents) -> Dims | None:
    data, index = (known_contents(value, contents) for value in node.inputs[:2])
    if data is None or index is None or not all(isinstance(i, int) and -len(data) <= i < len(data) for i in index):
        return None
    return tuple(data[i] for i in index if isinstance(i, int))


def _contents_slice(node: ir.Node, contents: Contents) -> Dims | None:
    data, *given = (known_contents(value, contents) for value in node.inputs)
    numbers = [part[0] for part in given if part is not None and len(part) == 1 and isinstance(part[0], int)]
    if data is None or len(numbers) != len(given):
        return None
    start, end, _, step = (*numbers, 0, 1)[:4] if len(numbers) != 3 else (*numbers, 1)
    return data[slice(start, None if step < 0 and end < -len(data) else end, step)]


def _contents_concat(node: ir.Node, contents: Contents) -> Dims | None:
    parts = [known_contents(value, contents) for value in node.inputs]
    found = [part for part in parts if part is not None]
    return None if len(found) != len(parts) else tuple(item for part in found for item in part)


def _contents_binary(compute: Callable[[Dim, Dim], Dim | None]) -> Callable[[ir.Node, Contents], Dims | None]:
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


def _contents_where(node: ir.Node, contents: Contents) -> Dims | None:
    parts = [known_contents(value, contents) for value in node.inputs]
    found = [part for part in parts if part is not None]
    if len(found) != 3:
        return None
    size = max(len(part) for part in found)
    if any(len(part) not in (1, size) for part in found):
        return None
    picks, left, right = (part * size if len(part) == 1 else part for part in found)
    return tuple(a if pick else b for pick, a, b in zip(picks, left, right, strict=False))


def _contents_product(node: ir.Node, contents: Contents) -> Dims | None:
    data = known_contents(node.inputs[0], contents)
    return None if data is None or len(shape_of(node.outputs[0]) or ()) > 1 else (dims.product(data),)


def _contents_filled(node: ir.Node, contents: Contents) -> Dims | None:
    target = known_contents(node.inputs[0], contents)
    value = node.attributes.get_tensor("value")
    if value is None or not value.dtype.is_integer() or target is None or len(target) > 1:
        return None
    count = target[0] if target else 1
    return (int(value.numpy().reshape(-1)[0]),) * count if isinstance(count, int) and count <= _SMALL else None


_CONTENTS: dict[str, Callable[[ir.Node, Contents], Dims | None]] = {
    "Shape": _contents_shape,
    "Size": _contents_size,
    "Cast": _contents_same,
    "Identity": _contents_same,
    "Squeeze": _contents_same,
    "Unsqueeze": _contents_same,
    "Reshape": _contents_same,
    "Gather": _contents_gather,
    "Slice": _contents_slice,
    "Concat": _contents_concat,
    "Add": _contents_binary(dims.add),
    "Sub": _contents_binary(dims.subtract),
    "Mul": _contents_binary(dims.multiply),
    "Div": _contents_binary(_truncated),
    "Equal": _contents_binary(_equal),
    "Where": _contents_where,
    "ReduceProd": _contents_product,
    "ConstantOfShape": _contents_filled,
}
