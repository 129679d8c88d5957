"""Operators without a lowering, replaced by the function that ONNX defines them with.

Many operators of ONNX (Attention, SoftmaxCrossEntropyLoss, AffineGrid …) are functions: a body of simpler operators is part of
their definition. Where the compiler has nothing better, the body takes the node's place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from edgekit.errors import SourceError
from edgekit.litert.decompose.builder import take_over

DOMAIN = "edgekit.function"  # of a body while it is prepared
ROUNDS = 4  # a body may use functions itself


def expand(model: ir.Model, stays: Callable[[ir.Node], bool]) -> None:
    """Replace, in place, every node for which `stays` is false by its function body, as often as bodies use functions.

    A node that ONNX has no function for is left where it is.
    """
    for _ in range(ROUNDS):
        changed = False
        for graph in (model.graph, *model.graph.subgraphs()):
            for node in list(graph):
                if not stays(node):
                    changed |= _expand(node, model.opset_imports)
        if not changed:
            return
        from edgekit import hub

        hub.prepare(model)


def _expand(node: ir.Node, opsets: dict[str, int]) -> bool:
    function = _function(node, opsets.get(node.domain, 1))
    if function is None:
        return False
    body = _prepared(node, function)
    if body is None:
        return False
    _splice(node, body)
    return True


def _function(node: ir.Node, opset: int) -> ir.Function | None:
    """The body of the newest version that is not newer than `opset`."""
    import onnx.defs

    try:
        schema: Any = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return None
    plain = [v for v in schema.function_opset_versions if v <= opset]
    dependent = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    if plain and max(plain) >= max(dependent, default=0):
        data = schema.get_function_with_opset_version(max(plain))
    elif dependent:
        message = ir.serde.serialize_node(node).SerializeToString()
        data = schema.get_context_dependent_function_with_opset_version(max(dependent), message, [_type(v) for v in node.inputs])
        if not data:
            return None  # this form of the operator has no body
    else:
        return None
    proto = onnx.FunctionProto.FromString(data)
    made = {name for inner in proto.node for name in inner.output} | set(proto.input)
    # A body leaves out what nobody asked it for: those outputs of the node are absent, and are made empty here.
    for place, name in reversed(list(enumerate(proto.output))):
        if name not in made or place >= len(node.outputs):
            del proto.output[place]
    return ir.serde.deserialize_function(proto)


def _type(value: ir.Value | None) -> bytes:
    import onnx

    proto = onnx.TypeProto()
    if value is not None and value.type is not None:
        ir.serde.serialize_type_into(proto, value.type)
        if value.shape is not None:
            ir.serde.serialize_shape_into(proto, value.shape)
    return proto.SerializeToString()


def _prepared(node: ir.Node, function: ir.Function) -> ir.Model | None:
    """A model of that one call, inlined and simplified; its inputs are the node's computed ones, each once."""
    from edgekit import hub

    called = ir.Function(DOMAIN, node.op_type, "", graph=function.graph, attributes=function.attributes)
    called.opset_imports.update(function.opset_imports)
    stands: dict[ir.Value, ir.Value] = {}
    for value in node.inputs:
        if value is not None and value not in stands:
            constant = value.const_value if value.is_initializer() else None
            stands[value] = ir.Value(
                name=f"in{len(stands)}", type=value.type, shape=value.shape.copy() if value.shape else None, const_value=constant
            )
    outputs = [ir.Value(name=f"out{i}", type=v.type, shape=v.shape) for i, v in enumerate(node.outputs[: len(function.outputs)])]
    attributes = [*node.attributes.values(), *_defaults(node, function)]
    inputs = [None if v is None else stands[v] for v in node.inputs]
    call = ir.Node(DOMAIN, node.op_type, inputs, attributes, outputs=outputs)
    graph = ir.Graph(
        [v for v in stands.values() if v.const_value is None],
        outputs,
        nodes=[call],
        initializers=[v for v in stands.values() if v.const_value is not None],
        opset_imports={**function.opset_imports, DOMAIN: 1},
        name=node.op_type,
    )
    model = ir.Model(graph, ir_version=10, functions=[called])
    try:
        hub.prepare(model)
    except SourceError:
        return None  # the body does not fit this form; the node is then refused under its own name
    return model


def _defaults(node: ir.Node, function: ir.Function) -> list[ir.Attr]:
    """The attributes that the node leaves at ONNX's defaults: a body refers to them by name."""
    import onnx.defs

    found = []
    for name, attribute in onnx.defs.get_schema(node.op_type, node.domain).attributes.items():
        if name not in node.attributes and name in function.attributes and attribute.default_value.name:
            found.append(ir.serde.deserialize_attribute(attribute.default_value))
    return found


def _splice(node: ir.Node, body: ir.Model) -> None:
    """Put the body's nodes where the node is, under names of its own."""
    owner = node.graph
    assert isinstance(owner, ir.Graph)
    base = node.outputs[0].name or node.op_type
    given = list(dict.fromkeys(v for v in node.inputs if v is not None))
    actual = {f"in{i}": value for i, value in enumerate(given)}
    graph = body.graph
    results = list(graph.outputs)
    for value in list(graph.inputs):
        value.replace_all_uses_with(actual[value.name or ""], replace_graph_outputs=True)
    results = [r if not r.is_graph_input() else actual[r.name or ""] for r in results]
    for value in list(graph.initializers.values()):
        name = value.name
        graph.initializers.pop(name or "")
        value.name = f"{base}/{name}"
        owner.register_initializer(value)
    graph.outputs.clear()
    for inner in list(graph):
        graph.remove(inner)
        for out in inner.outputs:
            out.name = f"{base}/{out.name}"
        inner.name = f"{base}/{inner.name}"
        owner.insert_before(node, inner)
    for old, new in zip(node.outputs, results, strict=False):
        take_over(old, new)
    owner.remove(node, safe=True)
