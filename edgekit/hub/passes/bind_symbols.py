"""Open sizes of inputs that other sizes decide: a layer with 64 input channels takes no other number of them.

    Before:  x [batch, k]     MatMul(x, w [64, 10])         After:  x [batch, 64]

An exporter may leave every dimension open. Where one can be a single number it is that number everywhere: runtimes plan by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx_ir as ir

from edgekit.hub import dims, facts, infer
from edgekit.hub.edit import Editor, graphs, integers, static_shape
from edgekit.hub.passes.propagate import propagate


def bind_symbols(edit: Editor) -> None:
    """Give the symbols of the model's inputs the numbers that products, convolutions and Reshapes ask for.

    A symbol that is asked to be two different numbers stays open, and is refused where it does not fit.
    """
    own = {dim for value in edit.model.graph.inputs for dim in facts.shape_of(value) or () if isinstance(dim, str)}
    if not own:
        return
    wanted: dict[str, set[int]] = {}
    for graph in graphs(edit.model):
        for node in graph:
            for pair in _equal_sizes(node):
                for dim, number in (pair, pair[::-1]):
                    if dim in own and isinstance(dim, str) and isinstance(number, int):
                        wanted.setdefault(dim, set()).add(number)
    bound: dict[str, dims.Dim] = {dim: numbers.pop() for dim, numbers in wanted.items() if len(numbers) == 1}
    if not bound:
        return
    for graph in graphs(edit.model):
        for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
            shape = facts.shape_of(value)
            if shape is not None:
                infer.set_shape(value, tuple(dims.substitute(dim, bound) for dim in shape))
    edit.forget()
    propagate(edit)


def _equal_sizes(node: ir.Node) -> Iterator[tuple[dims.Dim, dims.Dim]]:
    """Sizes of a node's first two inputs that have to be equal."""
    if node.domain != "" or node.op_type not in _DECIDING:
        return
    if node.op_type == "Reshape":
        yield from _refilled(node)
        return
    data, weights = (facts.shape_of(value) if value is not None else None for value in node.inputs[:2])
    if not data or not weights:
        return
    match node.op_type:
        case "MatMul":
            yield data[-1], weights[-2] if len(weights) > 1 else weights[0]
        case "Gemm":
            across = node.attributes.get_int("transA", 0), node.attributes.get_int("transB", 0)
            yield data[0 if across[0] else -1], weights[1 if across[1] else 0]
        case "Conv" if len(data) > 2:
            yield data[1], dims.multiply(weights[1], node.attributes.get_int("group", 1))
        case "ConvTranspose" if len(data) > 2:
            yield data[1], weights[0]
        case "GRU" | "LSTM" | "RNN":
            yield data[-1], weights[-1]
        case "AffineGrid" if grid := integers(node.inputs[1]):
            yield data[0], grid[0]


def _refilled(node: ir.Node) -> Iterator[tuple[dims.Dim, dims.Dim]]:
    """The one open size of what gets a shape of numbers."""
    data = facts.shape_of(node.inputs[0]) if node.inputs[0] is not None else None
    result = static_shape(node.outputs[0])
    opened = [dim for dim in data or () if isinstance(dim, str)]
    if result is None or len(opened) != 1:
        return
    rest = math.prod(dim for dim in data or () if isinstance(dim, int))
    if rest and math.prod(result) % rest == 0:
        yield opened[0], math.prod(result) // rest


_DECIDING = frozenset(("AffineGrid", "Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul", "RNN", "Reshape"))
