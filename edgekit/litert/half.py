"""FP16: weights stored in half precision, computed in float32 or float16 as the delegate likes.

This is the form that LiteRT's own float16 quantization writes: a constant of type FLOAT16 and a DEQUANTIZE before its user.
XNNPACK and the GPU delegate take the half-precision weights themselves and drop the DEQUANTIZE.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from edgekit.litert.graph import Graph, Operator, Tensor

SMALLEST = 8  # elements; a smaller constant stays float32, where it costs less than the operator that would expand it
HALF_MAX = float(np.finfo(np.float16).max)
HALF_LEAST = 2.0**-12  # from here down float16 has fewer and fewer of its 11 bits, and nothing below 6e-8

COMPARED = 1 << 17  # bytes of a constant up to which equal ones are found, which are then expanded by one operator

# What a spectrum goes through between its filters and its logarithm: sums, products and powers of what the filters give, and
# operators that only move values. Anything else (an activation, a softmax) bounds the values, and the filters before it are safe.
_SPECTRAL = frozenset(
    "ABS ADD CONCATENATION CONV_2D DEPTHWISE_CONV_2D DIV EXPAND_DIMS FULLY_CONNECTED GATHER MAXIMUM MIRROR_PAD MUL NEG PACK PAD "
    "PADV2 POW RESHAPE REVERSE_V2 SLICE SPLIT SPLIT_V SQRT SQUARE SQUEEZE STRIDED_SLICE SUB SUM TRANSPOSE "
    "UNPACK BATCH_MATMUL".split()
)
_FILTERS = frozenset("BATCH_MATMUL CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED".split())


def to_half(graph: Graph) -> list[str]:
    """Store float32 constants in half precision, in place. Returns notes on what stays float32, and why.

    That is: a constant with values beyond ±65504, one with nothing but values near zero, and the filters whose results go
    through a logarithm. A filter of a spectrum passes next to nothing of most of its input; rounding it to 11 bits lets a trace
    of the rest through, which the logarithm makes as large as a signal (basic-pitch: cosine 0.9993 with its constant-Q filters
    in half precision).
    """
    notes = []
    for part in graph.with_subgraphs():
        logged = _filters_before_logarithm(part)
        if logged:
            kept = f"{len(logged)} of their constants"
            notes.append(f"the filters before a logarithm stay float32 ({kept}): in half precision their leakage would show")
        expanded: dict[Hashable, Tensor] = {}
        beyond: dict[str, list[str]] = {}
        operators: list[Operator] = []
        for op in part.operators:
            for i, tensor in enumerate(op.inputs):
                if tensor is None or tensor.data is None or tensor.dtype != np.float32 or tensor.data.size < SMALLEST:
                    continue
                if tensor in logged:
                    continue
                key = _key(tensor)
                if key not in expanded:
                    largest = np.abs(tensor.data).max(initial=0.0)
                    if largest > HALF_MAX or 0 < largest < HALF_LEAST:
                        beyond.setdefault(f"{largest:.3g}", []).append(tensor.name)
                        continue
                    half = Tensor(f"{tensor.name}/half", tensor.shape, np.dtype(np.float16), tensor.data.astype(np.float16))
                    expanded[key] = Tensor(tensor.name, tensor.shape, tensor.dtype)
                    operators.append(Operator("DEQUANTIZE", [half], [expanded[key]]))
                op.inputs[i] = expanded[key]
            operators.append(op)
        part.operators = operators
        for largest, names in beyond.items():
            more = f" (as do {len(names) - 1} others of that kind)" if len(names) > 1 else ""
            notes.append(f"{names[0]} stays float32: its largest value is {largest}{more}")
    return notes


def _key(tensor: Tensor) -> Hashable:
    """What equal constants have in common; of a large one, itself."""
    assert tensor.data is not None
    return (tensor.shape, tensor.data.tobytes()) if tensor.data.nbytes <= COMPARED else tensor


def _filters_before_logarithm(graph: Graph) -> set[Tensor]:
    """The weights of convolutions and products whose results reach a LOG through nothing but `_SPECTRAL` operators."""
    producers = graph.producers()
    waiting = [tensor for op in graph.operators if op.code == "LOG" for tensor in op.inputs]
    seen: set[Tensor] = set()
    weights: set[Tensor] = set()
    while waiting:
        tensor = waiting.pop()
        op = producers.get(tensor) if tensor is not None else None
        if tensor is None or tensor in seen or op is None or op.code not in _SPECTRAL or op.activation != "NONE":
            continue
        seen.add(tensor)
        waiting += op.inputs
        if op.code in _FILTERS:
            weights |= {t for t in op.inputs if t is not None and t.data is not None and t.data.size >= SMALLEST}
    return weights
