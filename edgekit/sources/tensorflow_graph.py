"""A TensorFlow function as ONNX: trace at fixed shapes, freeze the variables, convert with tf2onnx.

Both Keras models and SavedModels come through here. Keras' own `model.export(format="onnx")` calls the same tf2onnx, but keeps
the batch open, writes to a file, and hands tf2onnx functions with captured constants that it turns into graph inputs that
nobody feeds (every model with a Normalization layer, such as EfficientNet). Freezing here instead puts these constants
into the graph, makes every shape static, and lets the recurrent layers arrive as LSTM and GRU operators
(`keras_recurrent`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.contract import TensorSpec
from edgekit.errors import MissingExtra, SourceError
from edgekit.sources.quiet import silent
from edgekit.sources.source import first_line
from edgekit.sources.tensorflow_fake_quant import put_back, take_out
from edgekit.sources.tensorflow_weights import put_weights_back, take_weights_out

if TYPE_CHECKING:
    import onnx_ir

OPSET = 18
"""The newest that tf2onnx 1.17 writes; its shapes are inputs rather than attributes, as the hub expects."""


def import_tensorflow() -> Any:
    """`tensorflow`, without its banner.

    Raises:
        MissingExtra: It is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silent():
        try:
            import tensorflow
        except ImportError as error:
            raise MissingExtra(
                "TensorFlow is needed to read this model", where=first_line(error), fix="pip install 'edgekit[keras]'"
            ) from None
    return tensorflow


def signature(inputs: Sequence[TensorSpec]) -> list[Any]:
    """`tf.TensorSpec`s of the inputs; a dynamic dimension is None."""
    tensorflow = import_tensorflow()
    return [
        tensorflow.TensorSpec([None if isinstance(d, str) else d for d in spec.shape], spec.dtype, name=f"input_{index}")
        for index, spec in enumerate(inputs)
    ]


def convert_function(
    call: Callable[..., list[Any]],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    path: str,
    handlers: Mapping[str, tuple[Callable[..., Any], list[str]]] | None = None,
    weights: Sequence[np.ndarray] = (),
) -> onnx_ir.Model:
    """Trace `call` and convert it.

    Args:
        call: Takes the tensors in the order of `inputs`, then those of `weights`, gives a list in the order of `outputs`.
        handlers: How tf2onnx writes operators of our own, by TensorFlow operator name.
        weights: Of float32; variables that `call` has to itself are constants as well, but TensorFlow copies them often.

    Raises:
        SourceError: tf2onnx cannot express an operator of the model.
    """
    tensorflow = import_tensorflow()
    specs = signature(inputs)
    specs += [tensorflow.TensorSpec(array.shape, array.dtype, name=f"weights_{i}") for i, array in enumerate(weights)]
    with silent(), tensorflow.device("/CPU:0"):
        try:
            # An Identity of its own for each output: two outputs may be one tensor, or an input.
            function = tensorflow.function(
                lambda *tensors: [tensorflow.identity(output) for output in call(*tensors)], input_signature=specs
            ).get_concrete_function()
            graph = _freeze(tensorflow, function)
            further = [tensor.op.name for tensor in function.inputs[len(inputs) : len(specs)]]
            taken = take_weights_out(tensorflow, graph, dict(zip(further, weights, strict=True)))
            quantized = take_out(tensorflow, graph)
            proto = _tf2onnx(graph, function, inputs, outputs, handlers, [*taken, *quantized])
            put_back(proto, quantized)
            _name_constants(proto.graph)
        except (SourceError, MissingExtra):
            raise
        except Exception as error:  # TensorFlow and tf2onnx raise anything
            raise SourceError(
                f"the model does not convert to ONNX: {first_line(error)}",
                where=path,
                fix="export it to ONNX by other means and give edgekit that file",
            ) from error
    _refuse_foreign_operators(proto, path)
    import onnx_ir

    model = onnx_ir.from_proto(proto)
    put_weights_back(model, taken)
    return model


def _freeze(tensorflow: Any, function: Any) -> Any:
    """The function's GraphDef with variables and captured tensors as constants and calls inlined."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    captured = {inner.op.name: outer for outer, inner in function.graph.captures if outer.dtype != tensorflow.resource}
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False, aggressive_inlining=True)
    graph = frozen.graph.as_graph_def(add_shapes=True)
    for node in graph.node:
        if node.op == "Placeholder" and node.name in captured:
            value = captured[node.name].numpy()
            dtype = node.attr["dtype"].type
            node.op = "Const"
            node.attr.clear()
            node.attr["dtype"].type = dtype
            node.attr["value"].tensor.CopyFrom(tensorflow.make_tensor_proto(value))
    for function_or_node in (*graph.node, *graph.library.function):
        # Keras compiles grouped convolutions with XLA, which keeps them from being inlined; tf2onnx's grappler run does it then.
        for mark in ("_XlaMustCompile", "_noinline"):
            function_or_node.attr.pop(mark, None)
    return _cancel_reversals(tensorflow, graph)


def _cancel_reversals(tensorflow: Any, graph: Any) -> Any:
    """ReverseV2(ReverseV2(x, axis), axis) is x: a Bidirectional layer turns what its backward layer has turned."""
    nodes = {node.name: node for node in graph.node}

    def behind_identities(name: str) -> Any:
        node = nodes.get(name.removesuffix(":0"))
        while node is not None and node.op == "Identity":
            node = nodes.get(node.input[0].removesuffix(":0"))
        return node

    def axes(node: Any) -> list[int] | None:
        constant = behind_identities(node.input[1])
        return tensorflow.make_ndarray(constant.attr["value"].tensor).tolist() if constant.op == "Const" else None

    for node in graph.node:
        if node.op == "ReverseV2":
            inner = behind_identities(node.input[0])
            if inner is not None and inner.op == "ReverseV2" and axes(node) is not None and axes(node) == axes(inner):
                source, dtype = inner.input[0], node.attr["T"].type
                node.op = "Identity"
                node.input[:] = [source]
                node.attr.clear()
                node.attr["T"].type = dtype
    return graph


def _tf2onnx(
    graph: Any,
    function: Any,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    handlers: Mapping[str, tuple[Callable[..., Any], list[str]]] | None,
    further: Sequence[str],
) -> Any:
    try:
        import tf2onnx
    except ImportError:
        raise MissingExtra("tf2onnx is needed to convert this model", fix="pip install 'edgekit[keras]'") from None
    # tf2onnx numbers the names that it makes up through the life of the process: start over, so that the same model
    # gives the same bytes however many came before it.
    tf2onnx.utils.INTERNAL_NAME = 1
    fed = {tensor.name: spec.name for tensor, spec in zip(function.inputs, inputs, strict=False)}
    given = {tensor.name: spec.name for tensor, spec in zip(function.outputs, outputs, strict=True)}
    proto, _ = tf2onnx.convert.from_graph_def(
        graph,
        name="model",
        input_names=[*fed, *further],
        output_names=list(given),
        opset=OPSET,
        custom_op_handlers={"Erfc": (_write_erfc, []), **(handlers or {})},
        tensors_to_rename={**fed, **given},
    )
    return proto


def _name_constants(graph: Any) -> None:
    """Name each constant after the first value made with it, and put the constants in that order.

    tf2onnx goes through sets of names where it folds and merges constants: which of two equal ones stays, and what number it
    gets, differs from one process to the next.
    """
    graphs = list(_with_bodies(graph))
    given = {output.name for each in graphs for output in each.output}
    constants = {tensor.name for each in graphs for tensor in each.initializer} - given
    names: dict[str, str] = {}
    for each in graphs:
        for node in each.node:
            for i, name in enumerate(node.input):
                if name in constants:
                    names.setdefault(name, f"{node.output[0] or node.name}/{i}")
    places = {name: i for i, name in enumerate(names)}
    for each in graphs:
        each.initializer.sort(key=lambda tensor: places.get(tensor.name, len(places)))
        for tensor in each.initializer:
            tensor.name = names.get(tensor.name, tensor.name)
        for node in each.node:
            node.input[:] = [names.get(name, name) for name in node.input]


def _with_bodies(graph: Any) -> Iterator[Any]:
    """A graph and the bodies of its control flow, from the outside in."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _with_bodies(body)


def _write_erfc(ctx: Any, node: Any, name: str, args: list[str]) -> None:
    """Erfc(x) is 1 - Erf(x), which tf2onnx lacks. Keras' GELU has Erfc(-x · c): that becomes 1 + Erf(x · c), as ONNX has it."""
    factor = node.inputs[0]
    negated = factor.type == "Mul" and factor.inputs[0].type == "Neg"
    dtype, shape, output = ctx.get_dtype(node.output[0]), ctx.get_shape(node.output[0]), node.output[0]
    argument = node.input[0]
    if negated:
        argument = ctx.make_node("Mul", [factor.inputs[0].input[0], factor.input[1]], name=f"{name}/Mul").output[0]
    ctx.remove_node(node.name)
    one = ctx.make_const(f"{name}/one", np.array(1, np.float32)).output[0]
    erf = ctx.make_node("Erf", [argument], name=f"{name}/Erf").output[0]
    ctx.make_node("Add" if negated else "Sub", [one, erf], outputs=[output], shapes=[shape], dtypes=[dtype])


def _refuse_foreign_operators(proto: Any, path: str) -> None:
    """tf2onnx leaves what it cannot convert in the graph under its TensorFlow name."""
    import onnx

    for node in proto.graph.node:
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type):
            raise SourceError(
                f"tf2onnx has no conversion for the TensorFlow operator {node.op_type}",
                where=f"{path}, node {node.name}",
                fix="replace the layer that makes it, or export the model to ONNX by other means",
            )
