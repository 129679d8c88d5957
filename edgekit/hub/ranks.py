"""How many axes the inputs of an operator have, where ONNX's own inference does not look and a pass would stumble."""

from __future__ import annotations

import onnx_ir as ir

from edgekit.hub.facts import does_not_fit, shape_of

_RANKS: dict[str, tuple[int, ...]] = {
    "GRU": (3, 3, 3, 2, 1, 3),
    "LSTM": (3, 3, 3, 2, 1, 3, 3, 2),
    "NonMaxSuppression": (3, 3),
    "RNN": (3, 3, 3, 2, 1, 3),
}
_BY_PLACES = ("GatherND", "ScatterND")
"""Operators whose second input ends in an axis of coordinates in the first."""


def check_ranks(node: ir.Node) -> None:
    """Check the inputs of an ai.onnx node whose ranks are known.

    Raises:
        SourceError: An input has another number of axes than the operator defines.
    """
    for place, (value, rank) in enumerate(zip(node.inputs, _RANKS.get(node.op_type, ()), strict=False)):
        found = shape_of(value) if value is not None else None
        if found is not None and len(found) != rank:
            raise does_not_fit(node, f"its input {place} has {len(found)} dimensions, not {rank}")
    if node.op_type in _BY_PLACES:
        data, indices = (shape_of(value) if value is not None else None for value in node.inputs[:2])
        if indices == ():
            raise does_not_fit(node, "its indices are a scalar, without an axis of coordinates")
        depth = indices[-1] if indices else None
        most = len(data) - node.attributes.get_int("batch_dims", 0) if data is not None else None
        if isinstance(depth, int) and most is not None and depth > most:
            raise does_not_fit(node, f"its indices have {depth} coordinates for data of {most} axes")
