"""The model's interface and names, before anything else is looked at.

1. model-local functions are inlined
2. an initializer is not a graph input (models of IR version 3 list both; a caller could override the weight there)
3. every value and node has a name, unique over all graphs; names of model inputs and outputs stay, later holders of a taken
   name get a number
4. the shapes that the caller gives replace those of the inputs; a symbol that gets a number gets it everywhere
5. a dimension of an input that has neither number nor name is named `{input}_d{axis}`
6. declared shapes that the new inputs may contradict are forgotten
7. the type and the shape of an initializer are its tensor's, whatever an output of that name declares
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir

from edgekit.contract import format_shape
from edgekit.errors import InputError, SourceError
from edgekit.hub import dims, facts, infer
from edgekit.hub.edit import graphs


def settle_interface(model: ir.Model, shapes: Mapping[str, tuple[int | str, ...]]) -> None:
    """Bring a model to the state above, in place.

    Raises:
        InputError: `shapes` names an input that the model does not have, or contradicts its rank or a fixed dimension's name.
        SourceError: A model-local function cannot be expanded.
    """
    _inline_functions(model)
    for graph in graphs(model):
        for value in [value for value in graph.inputs if value.is_initializer()]:
            if graph is model.graph:
                graph.inputs.remove(value)
        for value in graph.initializers.values():
            _know_tensor(value)
    _name(model)
    _fix_shapes(model, shapes)


def _know_tensor(value: ir.Value) -> None:
    tensor = value.const_value
    if tensor is not None and not value.is_graph_input():
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())


def _inline_functions(model: ir.Model) -> None:
    if model.functions:
        from onnx_ir.passes.common import InlinePass

        try:
            InlinePass()(model)
        except Exception as error:  # onnx_ir raises many types for a function that contradicts itself
            raise SourceError(
                f"a function of the model cannot be expanded: {error}",
                where="the model's functions",
                fix="export the model again; a function must not call itself",
            ) from error


def _name(model: ir.Model) -> None:
    taken = Counter({"": 1})
    graph = model.graph
    for value in dict.fromkeys((*graph.inputs, *graph.outputs)):
        taken[value.name or ""] = 1
    protected = set(graph.inputs) | set(graph.outputs)
    nodes = Counter({"": 1})
    for graph in graphs(model):
        for node in graph:
            for output in node.outputs:
                if output not in protected:
                    _rename(output, taken, f"{node.op_type}_output")
            name = node.name or (node.outputs[0].name if node.outputs else None) or node.op_type
            node.name = _unused(name, nodes)
        for value in (*graph.inputs, *list(graph.initializers.values())):
            if value not in protected:
                _rename(value, taken, "constant")


def _rename(value: ir.Value, taken: Counter[str], default: str) -> None:
    name = _unused(value.name or default, taken)
    if name != value.name:
        value.name = name


def _unused(name: str, taken: Counter[str]) -> str:
    """The name, with a number if it is taken, which it is from now on. `taken` holds how far each name has been counted."""
    candidate = name
    while candidate in taken:
        taken[name] += 1
        candidate = f"{name}_{taken[name]}"
    taken[candidate] = 1
    return candidate


def _fix_shapes(model: ir.Model, shapes: Mapping[str, tuple[int | str, ...]]) -> None:
    inputs = {value.name or "": value for value in model.graph.inputs}
    for name in shapes:
        if name not in inputs:
            raise InputError(
                f"the model has no input {name!r}", where=f"--input {name}", fix=f"its inputs are: {', '.join(inputs) or 'none'}"
            )
    values: dict[str, dims.Dim] = {}
    stale = False
    for name, given in shapes.items():
        declared = _declared(inputs[name])
        if declared is None:
            stale = True
            continue
        if len(declared) != len(given):
            raise InputError(
                f"the input {name!r} has {len(declared)} dimensions ({format_shape(declared)}), not {len(given)}",
                where=f"--input {name}={format_shape(given)}",
                fix="give one number or name per dimension",
            )
        for have, want in zip(declared, given, strict=True):
            if isinstance(have, str) and have.isidentifier():
                values.setdefault(have, want)
            stale |= have != want
    for name, value in inputs.items():
        dimensions = shapes.get(name) or _declared(value)
        if dimensions is not None:
            infer.set_shape(value, tuple(dims.substitute(dim, values) for dim in dimensions))
    for graph in graphs(model):
        for node in graph:
            for output in node.outputs:
                _settle_declared(output, values, stale)


def _declared(value: ir.Value) -> tuple[int | str, ...] | None:
    """An input's shape with a name for what has none. 0 and -1 are some exporters' way to say unknown."""
    if value.shape is None:
        return None
    name = facts.identifier(value.name or "input")
    found: list[int | str] = []
    for axis, dim in enumerate(value.shape.dims):
        known = dim if isinstance(dim, int) else dim.value
        found.append(f"{name}_d{axis}" if known is None or known == -1 else known)
    return tuple(found)


def _settle_declared(output: ir.Value, values: dict[str, dims.Dim], stale: bool) -> None:
    if isinstance(output.type, ir.TensorType) and output.dtype == ir.DataType.UNDEFINED:
        output.type = None
    if output.shape is None:
        return
    if stale:
        # Only the rank and what was named can be trusted; numbers may be those of another input size.
        output.shape = None
    elif values:
        infer.set_shape(output, tuple(dims.substitute(dim, values) for dim in facts.shape_of(output) or ()))
