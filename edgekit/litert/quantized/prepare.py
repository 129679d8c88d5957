"""Before lowering: quantized ONNX in the form that lowering reads, in place.

    1. QuantizeLinear of a constant is computed (QAT exports quantize their float weights in the graph); constants of 2 and 4 bits
       are stored in 8
    2. what moves integers moves the numbers that they stand for:  MaxPool(q)  →  QuantizeLinear(MaxPool(DequantizeLinear(q)))
    3. uint8 between QuantizeLinear and DequantizeLinear is int8 with the zero point shifted by 128, which is exact
    4. DynamicQuantizeLinear, MatMulInteger or ConvInteger, and the scaling to float:  MatMul or Conv with weights whose
       DequantizeLinear is marked as `is_dynamic_range` says: LiteRT quantizes the input itself, by rows

and after decomposition

    5. Reshape, Squeeze and Unsqueeze of a dequantized constant reshape its integers
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims
from edgekit.layout.rules.quantized import dequantized_constant
from edgekit.litert.decompose.builder import Builder

_DYNAMIC_RANGE = "edgekit.dynamic_range"
_LINEAR = ("QuantizeLinear", "DequantizeLinear")
_NARROW = {
    ir.DataType.INT2: np.int8,
    ir.DataType.INT4: np.int8,
    ir.DataType.UINT2: np.uint8,
    ir.DataType.UINT4: np.uint8,
}
_MOVES: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(
        "ArgMax ArgMin DepthToSpace Expand Flatten Gather Identity MaxPool ReduceMax ReduceMin Reshape Resize Slice SpaceToDepth "
        "Split Squeeze Tile Transpose Unsqueeze".split(),
        (0,),
    ),
    **dict.fromkeys(("Clip", "Concat", "Max", "Min"), None),
    "Pad": (0, 2),
    "Where": (1, 2),
}
"""Operators that act alike on numbers and on the integers that stand for them, and the places of those (None: all)."""


def prepare_quantized(model: ir.Model) -> list[str]:
    """Cases 1 to 4. Returns what a reader must know."""
    notes: list[str] = []
    for graph in (model.graph, *model.graph.subgraphs()):
        if not any(node.op_type in (*_LINEAR, "DynamicQuantizeLinear") for node in graph):
            continue
        for node in list(graph):
            if node.op_type == "QuantizeLinear" and constant(node.inputs[0]) is not None:
                _quantize_constant(node)
            elif node.op_type == "DequantizeLinear":
                _widen_constants(node)
        _move_numbers(graph)
        for node in list(graph):
            if node.op_type == "QuantizeLinear":
                _as_int8(node)
            elif node.op_type in ("MatMulInteger", "ConvInteger"):
                notes += _dynamic(node)
    return notes


def is_dynamic_range(weights: ir.Value | None) -> bool:
    """Whether a product with these weights quantizes its other operand when it runs."""
    linear = dequantized_constant(weights)
    return linear is not None and _DYNAMIC_RANGE in linear.metadata_props


def reshape_quantized_constants(model: ir.Model) -> None:
    """Case 5."""
    for node in list(model.graph):
        if node.op_type not in ("Reshape", "Squeeze", "Unsqueeze") or node.domain not in ("", "ai.onnx"):
            continue
        linear = dequantized_constant(node.inputs[0])
        shape = dims(node.outputs[0])
        if linear is None or not all(isinstance(d, int) for d in shape):
            continue
        data, scale = constant(linear.inputs[0]), constant(linear.inputs[1])
        axis = _moved_axis(linear, data.shape, shape) if data is not None and scale is not None else None  # type: ignore[arg-type]
        if data is None or scale is None or scale.ndim > 1 or axis is None:
            continue
        b = Builder(node)
        inputs = [b.const(data.reshape([int(d) for d in shape])), *linear.inputs[1:]]
        reshaped = b.op("DequantizeLinear", inputs, shape, axis=axis if scale.size > 1 else None)
        b.made[-1].metadata_props.update(linear.metadata_props)
        _replace(node, reshaped)


def _moved_axis(linear: ir.Node, old: Sequence[int], new: Sequence[int]) -> int | None:
    """Where the axis of the scales is after a reshape; None where it is torn apart or merged."""
    scale = constant(linear.inputs[1])
    if scale is None or scale.size == 1:
        return 0
    axis = (linear.attributes["axis"].as_int() if "axis" in linear.attributes else 1) % len(old)
    before = int(np.prod(old[:axis], dtype=np.int64))
    places = [i for i, d in enumerate(new) if d == old[axis] and int(np.prod(new[:i], dtype=np.int64)) == before]
    return places[0] if places else None


def _widen_constants(node: ir.Node) -> None:
    for i in (0, 2):
        value = _operand(node, i)
        data = constant(value)
        if value is not None and data is not None and value.dtype in _NARROW:
            node.replace_input_with(i, Builder(node).const(data.astype(_NARROW[value.dtype])))


def _quantize_constant(node: ir.Node) -> None:
    x, scale = constant(node.inputs[0]), constant(node.inputs[1])
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.uint8)
    if (
        x is None
        or scale is None
        or zero is None
        or zero.dtype.itemsize != 1
        or scale.ndim > 1
        or node.attributes.get("block_size")
    ):
        return
    if node.outputs[0].dtype != ir.DataType.from_numpy(zero.dtype) or node.outputs[0].is_graph_output():
        return
    axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else 1) % max(1, x.ndim)
    along = [-1 if i == axis else 1 for i in range(x.ndim)] if scale.size > 1 else []
    limits = np.iinfo(zero.dtype)
    steps = np.rint(x.astype(np.float32) / scale.reshape(along)) + zero.astype(np.float32).reshape(along if zero.size > 1 else [])
    b = Builder(node)
    _replace(node, b.const(np.clip(steps, limits.min, limits.max).astype(zero.dtype)))


def _move_numbers(graph: ir.Graph) -> None:
    grids: dict[ir.Value, ir.Node] = {}  # a quantized value → the node that says by which scale
    for node in list(graph):
        if node.op_type == "QuantizeLinear":
            grids[node.outputs[0]] = node
        if node.op_type not in _MOVES or node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "Pad":
            _write_fill(node)
        given = _MOVES[node.op_type]
        places = [i for i in (range(len(node.inputs)) if given is None else given) if _operand(node, i) is not None]
        linear = grids.get(node.inputs[0]) if node.inputs else None  # type: ignore[arg-type]
        if linear is None or not all(_same_grid(node.inputs[i], linear, grids) for i in places):
            continue
        b = Builder(node)
        for i in places:
            value = node.inputs[i]
            assert value is not None
            numbers = b.op("DequantizeLinear", [value, *linear.inputs[1:]], dims(value), ir.DataType.FLOAT)
            node.replace_input_with(i, numbers)
        for out in node.outputs:
            if out.dtype == linear.outputs[0].dtype and (out.uses() or out.is_graph_output()):
                grids[_quantize_again(graph, node, out, linear)] = linear


def _write_fill(node: ir.Node) -> None:
    """What ONNX pads integers with is the integer 0, not the number 0."""
    x = _operand(node, 0)
    if x is None or x.dtype not in (ir.DataType.INT8, ir.DataType.UINT8) or _operand(node, 2) is not None:
        return
    if "mode" not in node.attributes or node.attributes["mode"].as_string() == "constant":
        node.resize_inputs(max(3, len(node.inputs)))
        node.replace_input_with(2, Builder(node).const(np.zeros((), x.dtype.numpy())))


def _same_grid(value: ir.Value | None, linear: ir.Node, grids: dict[ir.Value, ir.Node]) -> bool:
    """Whether a value is quantized as that node does; an integer constant beside such values can only be meant so."""
    if value is None or value.dtype != linear.outputs[0].dtype:
        return False
    other = grids.get(value)
    return constant(value) is not None if other is None else list(other.inputs[1:]) == list(linear.inputs[1:])


def _quantize_again(graph: ir.Graph, node: ir.Node, out: ir.Value, linear: ir.Node) -> ir.Value:
    """Make `out` float, and what its readers see its quantization."""
    made = ir.node("QuantizeLinear", [out, *linear.inputs[1:]])
    made.name = f"{out.name}/quantize"
    result = made.outputs[0]
    result.type, result.shape = ir.TensorType(linear.outputs[0].dtype), out.shape  # type: ignore[arg-type]
    result.name, out.name = out.name, f"{out.name}/numbers"
    out.replace_all_uses_with(result, replace_graph_outputs=True)
    made.replace_input_with(0, out)
    out.type = ir.TensorType(ir.DataType.FLOAT)
    graph.insert_after(node, made)
    return result


def _as_int8(node: ir.Node) -> None:
    out = node.outputs[0]
    readers = [user for user, _ in out.uses()]
    if out.dtype != ir.DataType.UINT8 or out.is_graph_output():
        return
    if not all(user.op_type == "DequantizeLinear" and user.graph is node.graph for user in readers):
        return
    if not all(_operand(n, 2) is None or constant(_operand(n, 2)) is not None for n in (node, *readers)):
        return
    for user in (node, *readers):
        zero = constant(_operand(user, 2))
        scale = user.inputs[1]
        assert scale is not None
        if zero is None:
            zero = np.zeros(dims(scale), np.uint8)  # type: ignore[arg-type]
        shifted = Builder(user).const((zero.astype(np.int16) - 128).astype(np.int8))
        if len(user.inputs) < 3:
            user.resize_inputs(3)
        user.replace_input_with(2, shifted)
    out.type = ir.TensorType(ir.DataType.INT8)
    node.attributes.pop("output_dtype", None)


def _dynamic(node: ir.Node) -> list[str]:
    """Case 4, from the integer product on; nothing where the pattern is another, or the weights do not fit int8 around zero."""
    quantize, scaled = _dynamic_pattern(node)
    if quantize is None or scaled is None:
        return []
    x, weights, scale = quantize.inputs[0], _centred(node), _weight_scale(scaled, quantize)
    is_matrix = node.op_type == "MatMulInteger"
    if x is None or weights is None or scale is None or (is_matrix and weights.ndim != 2):
        return []
    b = Builder(scaled)
    axis = weights.ndim - 1 if is_matrix else 0
    inputs = [b.const(weights), b.const(scale)]
    held = b.op("DequantizeLinear", inputs, weights.shape, ir.DataType.FLOAT, axis=axis if scale.ndim else None)
    b.made[-1].metadata_props[_DYNAMIC_RANGE] = "true"
    attributes = {name: a.value for name, a in node.attributes.items()}
    product = b.op(node.op_type.removesuffix("Integer"), [x, held], dims(scaled.outputs[0]), ir.DataType.FLOAT, **attributes)
    name = scaled.outputs[0].name
    _replace(scaled, product)
    rows = dims(x)[:-1] if is_matrix else dims(x)[:1]
    if all(d == 1 for d in rows):
        return []
    return [f"{name!r}: its input is quantized row by row when it runs, finer than the single scale that the ONNX model computes"]


def _dynamic_pattern(node: ir.Node) -> tuple[ir.Node | None, ir.Node | None]:
    """The DynamicQuantizeLinear before an integer product, and the Mul behind its Cast to float."""
    quantize = node.inputs[0].producer() if node.inputs[0] is not None else None
    if quantize is None or quantize.op_type != "DynamicQuantizeLinear" or _operand(node, 2) is not quantize.outputs[2]:
        return None, None
    cast = _only_user(node.outputs[0], "Cast")
    return quantize, _only_user(cast.outputs[0], "Mul") if cast is not None else None


def _centred(node: ir.Node) -> np.ndarray | None:
    """The weights of an integer product without their zero point, where int8 holds them."""
    weights, zero = constant(node.inputs[1]), constant(_operand(node, 3))
    if weights is None or (zero is None and _operand(node, 3) is not None):
        return None
    if zero is not None and zero.size > 1 and (zero != zero.flat[0]).any():
        return None
    centred = weights.astype(np.int16) - (0 if zero is None else int(zero.flat[0]))
    return centred.astype(np.int8) if centred.min() >= -128 and centred.max() <= 127 else None


def _weight_scale(scaled: ir.Node, quantize: ir.Node) -> np.ndarray | None:
    """The weights' scale from the factor of a Mul, input scale * weight scale: a vector, or a scalar for all weights."""
    for factor in scaled.inputs:
        product = factor.producer() if factor is not None else None
        if product is None or product.op_type != "Mul" or quantize.outputs[1] not in product.inputs:
            continue
        scale = constant(next((v for v in product.inputs if v is not quantize.outputs[1]), None))
        if scale is not None and scale.dtype == np.float32:
            return scale.reshape(-1) if scale.size > 1 else scale.reshape(())
    return None


def _only_user(value: ir.Value, op_type: str) -> ir.Node | None:
    users = value.uses()
    node = next(iter(users)).node if len(users) == 1 and not value.is_graph_output() else None
    return node if node is not None and node.op_type == op_type else None


def _replace(node: ir.Node, new: ir.Value) -> None:
    """Let everything read `new` instead of what the node makes, under its name."""
    old = node.outputs[0]
    assert isinstance(node.graph, ir.Graph)
    if new.const_value is None:
        name, old.name = old.name, f"{old.name}/replaced"
        new.name = name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)


def _operand(node: ir.Node, i: int) -> ir.Value | None:
    return node.inputs[i] if i < len(node.inputs) else None
