"""How many axes the inputs of an operator have, where ONNX's own inference does not look and a pass would stumble."""

from __future__ import annotations

import onnx_ir as ir

from edgekit.hub.facts import does_not_fit, shape_of

_RANKS: dict[str, tuple[int | None, ...]] = {
    "GRU": (3, 3, 3, 2, 1, 3),
    "LSTM": (3, 3, 3, 2, 1, 3, 3, 2),
    "NonMaxSuppression": (3, 3),
    "RNN": (3, 3, 3, 2, 1, 3),
    "Slice": (None, 1, 1, 1, 1),
}
"""None is any number."""
_SAME_RANK = {"Conv": 2, "ConvTranspose": 2, "DeformConv": 3, "GatherElements": 2, "ScatterElements": 3}
"""Operators whose first inputs, so many, have one rank."""
_NO_SCALAR = ("CumProd", "CumSum")
_BY_PLACES = ("GatherND", "ScatterND")
"""Operators whose second input ends in an axis of coordinates in the first."""

_CHECKED = frozenset((*_RANKS, *_SAME_RANK, *_NO_SCALAR, *_BY_PLACES))


def check_ranks(node: ir.Node) -> None:
    """Check the inputs of an ai.onnx node whose ranks are known.

    Raises:
        SourceError: An input has another number of axes than the operator defines.
    """
    if node.op_type not in _CHECKED:
        return
    shapes = [shape_of(value) if value is not None else None for value in node.inputs]
    for place, (shape, rank) in enumerate(zip(shapes, _RANKS.get(node.op_type, ()), strict=False)):
        if shape is not None and rank is not None and len(shape) != rank:
            raise does_not_fit(node, f"its input {place} has {len(shape)} dimensions, not {rank}")
    ranks = [len(shape) for shape in shapes[: _SAME_RANK.get(node.op_type, 0)] if shape is not None]
    if len(set(ranks)) > 1:
        raise does_not_fit(node, f"its inputs have {ranks} dimensions, and must have the same number")
    if node.op_type in _NO_SCALAR and shapes[:1] == [()]:
        raise does_not_fit(node, "its input is a scalar, without an axis")
    if node.op_type in _BY_PLACES:
        data, indices = shapes[:2]
        if indices == ():
            raise does_not_fit(node, "its indices are a scalar, without an axis of coordinates")
        depth = indices[-1] if indices else None
        batch = node.attributes.get_int("batch_dims", 0)
        if batch < 0 or any(shape is not None and batch >= len(shape) for shape in (data, indices)):
            raise does_not_fit(node, f"its batch_dims is {batch}")  # ONNX's inference does not look, and may end the process
        most = len(data) - batch if data is not None else None
        if isinstance(depth, int) and most is not None and depth > most:
            raise does_not_fit(node, f"its indices have {depth} coordinates for data of {most} axes")
