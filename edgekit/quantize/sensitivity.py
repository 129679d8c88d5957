"""How much each node of a graph loses when it alone is int8."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.quantize.conditioning import Conditioned
from edgekit.quantize.simulate import held_values, outputs, relative_error, with_rounding

if TYPE_CHECKING:
    import onnx

    from edgekit.contract import Feeds

# Nodes that only move numbers lose nothing of their own.
_MOVING = frozenset(
    "Cast Concat Constant ConstantOfShape DepthToSpace Expand Flatten Gather Identity MaxPool Pad Reshape Shape Slice "
    "SpaceToDepth Split Squeeze Tile Transpose Unsqueeze".split()
)


@dataclass(frozen=True)
class Sensitivity:
    """Of the node that makes the value `name`: squared error over squared size of the outputs when it alone is int8."""

    name: str
    operator: str
    error: float


def sensitivities(
    conditioned: Conditioned, feeds: Sequence[Feeds], tell: Callable[[int, int], None] | None = None
) -> list[Sensitivity]:
    """Every node that int8 can change, the most sensitive first.

    Alone in int8 means: what it takes and what it makes are rounded, and its weights; a node and the Relu or Clip that takes its
    result at once count as one, under the name of the latter's result.

    Args:
        conditioned: The graph, and its ranges.
        feeds: Real inputs; a dozen is enough to rank by.
        tell: Told how many nodes are done, and how many there are.
    """
    from edgekit.ort.model import to_proto

    exact, rounded = to_proto(conditioned.exact), to_proto(conditioned.hub)
    constants = {tensor.name: tensor for tensor in rounded.graph.initializer}
    want = outputs(exact, feeds)
    groups = _groups(exact)
    found = []
    for i, nodes in enumerate(groups):
        if tell:
            tell(i, len(groups))
        values = {name for node in nodes for name in (*node.input, *node.output)}
        ranges = {name: conditioned.ranges[name] for name in values if name in conditioned.ranges}
        if ranges:
            alone = with_rounding(_with_constants(exact, constants, values), ranges)
            error = relative_error(want, outputs(alone, feeds))
            found.append(Sensitivity(nodes[-1].output[0], nodes[0].op_type, error))
    return sorted(found, key=lambda each: (-each.error, each.name))


def _groups(model: onnx.ModelProto) -> list[list[onnx.NodeProto]]:
    """Nodes that compute, each with the activation behind it that is fused into it."""
    held = held_values(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    fused = {node.input[0]: node for node in model.graph.node if node.op_type in ("Relu", "Clip") and node.input[0] not in held}
    groups = []
    for node in model.graph.node:
        computed = any(name and name not in constants for name in node.input)
        if computed and node.op_type not in _MOVING and not (node.op_type in ("Relu", "Clip") and node.input[0] not in held):
            groups.append([node, fused[node.output[0]]] if node.output[0] in fused else [node])
    return groups


def _with_constants(model: onnx.ModelProto, constants: Mapping[str, onnx.TensorProto], names: set[str]) -> onnx.ModelProto:
    """A copy with other contents of the constants of these names."""
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        if tensor.name in names and tensor.name in constants:
            tensor.CopyFrom(constants[tensor.name])
    return result
