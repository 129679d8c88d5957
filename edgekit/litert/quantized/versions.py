"""Which version of an operator knows the quantized form that is asked of it.

After tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc.
"""

from __future__ import annotations

from edgekit.litert.graph import Operator

_SINCE_FIRST = frozenset(
    "BITCAST BITWISE_XOR ELU EXPAND_DIMS HARD_SWISH IF MIRROR_PAD NEG ONE_HOT PRELU RESHAPE RIGHT_SHIFT SCATTER_ND "
    "SELECT_V2 SHAPE SQUEEZE TILE WHILE".split()
)
"""Operators whose first version takes int8: those of one version, and those that had it from the start."""


def quantized_version(op: Operator) -> int:
    """The lowest version with the operator's quantized form; 1 where none of its operands is quantized."""
    operands = [t for t in op.inputs if t is not None and t.quantization is not None and t.dtype == "int8"]
    if not operands:
        return 2 if op.code == "DEQUANTIZE" and op.inputs[0] is not None and op.inputs[0].dtype == "int8" else 1
    weights = op.inputs[1] if len(op.inputs) > 1 else None
    per_channel = weights is not None and weights.quantization is not None and not weights.quantization.is_per_tensor
    match op.code:
        case "FULLY_CONNECTED":
            return 12 if per_channel else 9 if op.options.get("asymmetricQuantizeInputs") else 4
        case "CONV_2D":
            return _convolution_version(op, per_channel)
        case "DEPTHWISE_CONV_2D":
            return 3
        case "MUL":
            return 3 if _scale(op, 0) * _scale(op, 1) >= _result_scale(op) else 2
        case code if code in _SINCE_FIRST:
            return 1
        case _:
            return 2


def _convolution_version(op: Operator, per_channel: bool) -> int:
    x, weights = op.inputs[:2]
    assert x is not None
    assert weights is not None
    if x.dtype == "float32":
        return 5 if per_channel else 2
    return 6 if x.shape[-1] != weights.shape[-1] else 3


def _scale(op: Operator, place: int) -> float:
    tensor = op.inputs[place]
    return float(tensor.quantization.scale[0]) if tensor is not None and tensor.quantization is not None else 0.0


def _result_scale(op: Operator) -> float:
    quantization = op.outputs[0].quantization
    return float(quantization.scale[0]) if quantization is not None else float("inf")
