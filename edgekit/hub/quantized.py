"""Is a model quantized already, by whoever made it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

KEPT = "the model is quantized already: its own integers are kept, and nothing was calibrated"
"""The note of an int8 artifact that is the model as it came."""

_ON_INTEGERS = frozenset(("ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QGemm", "QuantizeLinear"))


def is_quantized(model: ir.Model) -> bool:
    """Whether some node of a model, as it is read or in the hub, quantizes a value or computes on quantized ones.

    Weights that are only stored in integers (DequantizeLinear of a constant) do not make a model quantized.
    """
    from edgekit.hub.edit import graphs

    return any(node.op_type in _ON_INTEGERS or node.op_type.startswith("QLinear") for graph in graphs(model) for node in graph)
