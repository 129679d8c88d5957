"""Layout assignment: in which order of axes each value of a graph is held, so that the fewest bytes are transposed.

    remove_transposes(model)            ONNX to ONNX: Transposes cancel, merge, or move to where they are cheapest
    to_channels_last(model, …)          for LiteRT: spatial operators work on N…C, marked with the domain CHANNELS_LAST

Both are one optimization over the whole graph (edgekit.layout.assign) under per-operator rules (edgekit.layout.rules), applied
by edgekit.layout.graph. docs/layout.md explains the problem and why the optimum is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgekit.layout.chains import split_before_transpose
from edgekit.layout.graph import Assignment
from edgekit.layout.permutation import Perm, channels_last, identity, inverse
from edgekit.layout.rules import CHANNELS_FIRST_RULES, CHANNELS_LAST, CHANNELS_LAST_RULES, constant, dims, rank

__all__ = ["CHANNELS_LAST", "HeldAs", "constant", "dims", "rank", "remove_transposes", "to_channels_last"]


def remove_transposes(model: ir.Model) -> int:
    """Rewrite the graph, in place, with the fewest bytes transposed; inputs and outputs stay. Returns the Transposes left."""
    graph = model.graph
    if any(node.op_type == "Transpose" for node in graph):
        split_before_transpose(graph)
        Assignment(graph, CHANNELS_FIRST_RULES).apply({}, {})
    return sum(node.op_type == "Transpose" for node in graph)


@dataclass(frozen=True)
class HeldAs:
    """How the graph's inputs and outputs are held after `to_channels_last`: name → permutation."""

    inputs: dict[str, Perm]
    outputs: dict[str, Perm]


def to_channels_last(model: ir.Model, *, input_layout: str = "keep", output_layout: str = "keep") -> HeldAs:
    """Rewrite the graph, in place, for a runtime whose spatial operators work on N…C.

    Args:
        input_layout, output_layout: `keep` leaves the model's own order of axes. `nhwc` and `nchw` hold what a spatial operator
            sees (an image, a feature map) channels-last or channels-first, and keep everything else.
    """
    split_before_transpose(model.graph)
    assignment = Assignment(model.graph, CHANNELS_LAST_RULES)
    seen = assignment.spatial_demands()

    def wanted(value: ir.Value, layout: str) -> Perm:
        nhwc = seen.get(value)
        if layout == "keep" or nhwc is None:
            return identity(rank(value))
        if layout == "nhwc":
            return nhwc
        return tuple(nhwc[axis] for axis in inverse(channels_last(rank(value))))

    inputs = {v: wanted(v, input_layout) for v in model.graph.inputs}
    # An input that is an output as well is one tensor.
    outputs = {v: inputs[v] if v in inputs else wanted(v, output_layout) for v in model.graph.outputs}
    named = {v.name or "": p for v, p in outputs.items()}
    assignment.apply(inputs, outputs)
    return HeldAs({v.name or "": p for v, p in inputs.items()}, named)
