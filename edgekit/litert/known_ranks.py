"""Before anything is rewritten: the rank of every tensor is known. No pass has to ask what an axis of it would be.

A size may be open; how many axes there are may not, for LiteRT plans its operators by it.
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit.errors import CompileError
from edgekit.hub.edit import graphs
from edgekit.litert.decompose import has_lowering


def require_known_ranks(model: ir.Model) -> None:
    """Refuse the first tensor whose rank is not known.

    Raises:
        CompileError: It names the tensor, what makes it, and what would make its shape known.
        UnsupportedOperator: An operator makes it that LiteRT has no form of anyway.
    """
    for graph in graphs(model):
        for value in graph.inputs:
            if _is_open(value):
                fix = "declare its shape in the model, or give it with --input NAME=SHAPE"
                raise CompileError(f"the input {value.name!r} has no shape", where=f"graph {graph.name!r}", fix=fix)
        for node in graph:
            for value in node.outputs:
                if _is_open(value) and (value.uses() or value.is_graph_output()):
                    raise _refusal(node, value)


def _is_open(value: ir.Value) -> bool:
    return value.shape is None and (value.type is None or isinstance(value.type, ir.TensorType))


def _refusal(node: ir.Node, value: ir.Value) -> CompileError:
    from edgekit.litert.lower import unknown_operator

    if not has_lowering(node) and value.type is None:
        return unknown_operator(node)
    return CompileError(
        f"how many axes {value.name!r} has is not known before the model runs",
        where=f"node {node.name or value.name!r}, operator {node.op_type}",
        fix="fix the model's input shapes with --input NAME=SHAPE, or declare that value's shape in the model (value_info); "
        "a number of axes that depends on data cannot be expressed in LiteRT",
    )
