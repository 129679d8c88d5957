"""The dtype and the shape of a node's outputs, with symbolic dimensions kept symbolic.

Three sources, in this order: rules of our own for operators whose result depends on *contents* that may be symbolic (Reshape to
`[batch, -1, 64]`, computed from Shape → Gather → Concat); ONNX's own inference for one node (`onnx.shape_inference`, about 20 µs,
no weights are serialized); what the model declared. A dimension that none of them knows gets a name of its own.

A number that is declared for a size which the data decide (`edgekit.hub.data_sized`) is that of one example, and no source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from edgekit.errors import SourceError
from edgekit.hub import dims
from edgekit.hub.content_rules import CONTENTS
from edgekit.hub.data_sized import is_data_sized
from edgekit.hub.dims import Dim
from edgekit.hub.facts import SMALL, Contents, Dims, Known, does_not_fit, identifier, shape_of
from edgekit.hub.ranks import check_ranks
from edgekit.hub.schemas import check_types
from edgekit.hub.shape_rules import SHAPES

_CONTRADICTIONS = (ArithmeticError, IndexError, ValueError)
"""What arithmetic on ranks, axes and sizes that contradict each other raises."""


def infer_node(node: ir.Node, opsets: Mapping[str, int], contents: Contents) -> None:
    """Set dtype and shape of a node's outputs from those of its inputs, and record contents.

    Nodes with graphs in their attributes are left to `edgekit.hub.passes.propagate`, which walks those graphs.

    Raises:
        SourceError: The operator does not exist in this opset, or its inputs do not fit it.
    """
    rule = SHAPES.get(node.op_type) if node.domain == "" else None
    found = None
    if node.domain == "":
        check_ranks(node)
    if is_data_sized(node, contents):
        for output in node.outputs:
            _forget_numbers(output)
    if rule is not None:
        check_types(node, opsets[""])
        try:
            found = rule(node, contents)
        except _CONTRADICTIONS as error:
            _infer_with_onnx(node, opsets)  # which says better what does not fit
            raise does_not_fit(node, f"its shape cannot be computed ({error})") from error
    if found is not None:
        _assign(node, [found])
    else:
        _infer_with_onnx(node, opsets)
    for output in node.outputs:
        check_size(output, node)
    infer_contents(node, contents)


def check_size(value: ir.Value, node: ir.Node) -> None:
    """Raise SourceError for a value with a dimension that cannot be: negative, or beyond int32, in which LiteRT counts."""
    found = value.shape.dims if value.shape is not None else ()
    if any(isinstance(dim, int) and not 0 <= dim < 1 << 31 for dim in found):
        raise does_not_fit(node, f"{value.name!r} would have the shape {list(found)}")


def infer_contents(node: ir.Node, contents: Contents) -> None:
    """Record what is known of the elements of a node's output."""
    compute = CONTENTS.get(node.op_type) if node.domain == "" else None
    shape = node.outputs[0].shape if compute else None
    if (
        compute
        and shape is not None
        and len(shape) < 2
        and (known := compute(node, contents)) is not None
        and len(known) <= SMALL
    ):
        contents[node.outputs[0]] = tuple(known)


def keep_known(old: ir.Value, new: ir.Value) -> None:
    """Give `new`, which holds the same tensor, the dimensions that are known of `old` alone."""
    have, known = shape_of(new), shape_of(old)
    if known is None or (have is not None and len(have) != len(known)):
        return
    merged = known if have is None else tuple(a if isinstance(a, int) else b for a, b in zip(have, known, strict=True))
    if merged != have and not new.is_initializer() and not new.is_graph_input():
        set_shape(new, merged)


def is_static(value: ir.Value) -> bool:
    """Whether dtype and every dimension are known."""
    return value.dtype is not None and value.shape is not None and value.shape.is_static()


def set_shape(value: ir.Value, shape: Dims) -> None:
    """Give a value a shape of numbers and symbols."""
    value.shape = ir.Shape([dims.canonical(dim) for dim in shape])


def _forget_numbers(output: ir.Value) -> None:
    name, shape = identifier(output.name or "value"), shape_of(output)
    if shape is not None:
        set_shape(output, tuple(f"{name}_d{axis}" if isinstance(dim, int) else dim for axis, dim in enumerate(shape)))


def _assign(node: ir.Node, known: list[Known]) -> None:
    for output, (dtype, shape) in zip(node.outputs, known, strict=False):
        if dtype is not None and (output.dtype != dtype or not isinstance(output.type, ir.TensorType)):
            output.type = ir.TensorType(dtype)
        if shape is not None and shape_of(output) != shape:
            set_shape(output, shape)


def _infer_with_onnx(node: ir.Node, opsets: Mapping[str, int]) -> None:
    import onnx.checker
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
        if value is None or value.type is None or value.name is None or value.dtype == ir.DataType.UNDEFINED:
            continue
        proto = onnx.TypeProto()
        ir.serde.serialize_type_into(proto, value.type)
        if value.shape is not None:
            ir.serde.serialize_shape_into(proto, value.shape)
        types[value.name] = proto
        tensor = value.const_value if value.is_initializer() else None
        if tensor is not None and tensor.size <= SMALL:
            data[value.name] = ir.serde.serialize_tensor(tensor)
    if any(value is not None and value.name not in types for value in node.inputs):
        return
    message = ir.serde.serialize_node(node)
    versions = [onnx.helper.make_opsetid(node.domain, version)]
    try:
        outputs = onnx.shape_inference.infer_node_outputs(schema, message, types, data, opset_imports=versions)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise does_not_fit(node, _reason(error)) from None
    for output in node.outputs:
        if output.name in outputs:
            _merge(output, outputs[output.name])


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
        found.append(f"{identifier(output.name or 'value')}_d{axis}" if name is None else name)
    set_shape(output, tuple(found))


def _reason(error: Exception) -> str:
    """The last sentence of ONNX's message, which is the one that says what is wrong."""
    return str(error).strip().splitlines()[-1].split("] ")[-1]
