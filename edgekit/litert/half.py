"""FP16: weights stored in half precision, computed in float32 or float16 as the delegate likes.

This is the form that LiteRT's own float16 quantization writes: a constant of type FLOAT16 and a DEQUANTIZE before its user.
XNNPACK and the GPU delegate take the half-precision weights themselves and drop the DEQUANTIZE.
"""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Graph, Operator, Tensor

SMALLEST = 8  # elements; a smaller constant stays float32, where it costs less than the operator that would expand it
HALF_MAX = float(np.finfo(np.float16).max)


def to_half(graph: Graph) -> list[str]:
    """Store float32 constants in half precision, in place. Returns a note on each that does not fit."""
    notes = []
    for part in graph.with_subgraphs():
        expanded: dict[Tensor, Tensor] = {}
        operators: list[Operator] = []
        for op in part.operators:
            for i, tensor in enumerate(op.inputs):
                if tensor is None or tensor.data is None or tensor.dtype != np.float32 or tensor.data.size < SMALLEST:
                    continue
                if tensor not in expanded:
                    if np.abs(tensor.data).max(initial=0.0) > HALF_MAX:
                        notes.append(f"{tensor.name} stays float32: it has values beyond ±65504")
                        continue
                    half = Tensor(f"{tensor.name}/half", tensor.shape, np.dtype(np.float16), tensor.data.astype(np.float16))
                    expanded[tensor] = Tensor(tensor.name, tensor.shape, tensor.dtype)
                    operators.append(Operator("DEQUANTIZE", [half], [expanded[tensor]]))
                op.inputs[i] = expanded[tensor]
            operators.append(op)
        part.operators = operators
    return notes
