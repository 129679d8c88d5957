"""QuantizeLinear and its relatives.

Where scale and zero point are constants and the integers are of 8 bits, QuantizeLinear and DequantizeLinear are LiteRT's
QUANTIZE and DEQUANTIZE, and a dequantized constant is a float constant that knows its integers: edgekit.litert.quantized makes
integer operators of what lies between them. Everything else is float arithmetic, which gives the integer that ONNX asks for:
rounding half to even and saturating are exact in float32 for 8 and 16 bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.litert.graph import Dim, Operator, Quantization, Tensor
from edgekit.litert.lower.table import Node, lowers
from edgekit.litert.quantized.prepare import is_dynamic_range

WEIGHTS = {
    "CONV_2D": (0, 0),
    "CONV_3D": (4, 0),
    "DEPTHWISE_CONV_2D": (3, 0),
    "FULLY_CONNECTED": (0, None),
    "TRANSPOSE_CONV": (0, 1),
}
"""LiteRT operator → the axis of its weights (input 1) that is the output channel, and that axis in ONNX (None: it varies)."""


@lowers("QuantizeLinear")
def quantize_linear(node: Node) -> None:
    """saturate(round(x / scale) + zero point)."""
    x, shape = node.x, node.x.shape
    quantization = _quantization(node, node.y.dtype)
    if quantization is not None and quantization.is_per_tensor and x.dtype == np.float32:
        _quantize(node, quantization)
        return
    scale = _along(node, node.input(1), shape, "scale")
    scaled = node.emit("DIV", [_float(node, x, "x"), scale], node.temp(shape, "scaled", np.float32))
    zero = _along(node, _float(node, node.input(2), "zero"), shape, "zero") if node.has_input(2) else None
    _saturate(node, scaled, zero, node.y)


@lowers("DequantizeLinear")
def dequantize_linear(node: Node) -> None:
    """(x - zero point) * scale."""
    x, shape = node.x, node.x.shape
    quantization = _quantization(node, x.dtype)
    if _is_constant(node) and node.y.dtype == np.float32:
        _dequantize_constant(node, quantization)
        return
    if quantization is not None and quantization.is_per_tensor and x.dtype != np.int32 and node.y.dtype == np.float32:
        _dequantize(node, quantization)
        return
    if x.dtype == np.int32 and node.has_input(2) and np.any(node.constant(2)):
        raise node.refuse("LiteRT computes it in float32, which does not hold every int32", "use a zero point of 0", "input 2")
    held = _float(node, x, "x")
    if node.has_input(2):
        zero = _along(node, _float(node, node.input(2), "zero"), shape, "zero")
        held = node.emit("SUB", [held, zero], node.temp(shape, "centred", np.float32))
    node.emit("MUL", [held, _along(node, node.input(1), shape, "scale")])


def keep_quantization(node: Node, operators: Sequence[Operator]) -> None:
    """Weights that an operator made of dequantized ones, in LiteRT's order of axes, lie on the same grid: say so.

    Nothing is taken on trust: edgekit.litert.quantized checks that the values really are multiples of the scales.
    """
    given = node.inputs[1].quantization if node.has_input(1) and node.inputs[1] is not None else None  # type: ignore[union-attr]
    if given is None:
        return
    for op in operators:
        weights = op.inputs[1] if op.code in WEIGHTS and len(op.inputs) > 1 else None
        if weights is None or weights.data is None:
            continue
        axis, given_axis = WEIGHTS[op.code]
        varies = given_axis is None or given.axis == given_axis
        if given.is_per_tensor or (varies and given.scale.size == weights.shape[axis]):
            weights.quantization = Quantization(given.scale, given.zero_point, axis)
            if is_dynamic_range(node.onnx.inputs[1]):
                op.options["dynamic_range"] = True


def _quantize(node: Node, quantization: Quantization) -> None:
    """QUANTIZE to int8; for uint8 the integers are shifted by 128, which is exact."""
    y = node.y
    held = y if y.dtype == np.int8 else node.like(y, "int8", np.int8)
    held.quantization = _as_int8(quantization, y.dtype)
    node.emit("QUANTIZE", [node.x], held)
    if held is not y:
        y.quantization = quantization
        node.emit("QUANTIZE", [held])


def _dequantize(node: Node, quantization: Quantization) -> None:
    held = node.x
    if held.dtype == np.uint8:
        held.quantization = quantization
        held = node.like(node.x, f"{node.y.name}/int8", np.int8)
        held.quantization = _as_int8(quantization, np.dtype(np.uint8))
        node.emit("QUANTIZE", [node.x], held)
    elif held.quantization is None:
        held.quantization = quantization
    elif not held.quantization.same_as(quantization):
        # The same integers, read in another way than they were written.
        held = node.like(node.x, f"{node.y.name}/reread")
        held.quantization = quantization
        node.emit("BITCAST", [node.x], held)
    node.emit("DEQUANTIZE", [held])


def _dequantize_constant(node: Node, quantization: Quantization | None) -> None:
    """The result is a constant, which knows its integers where LiteRT could store them; nothing is left to run."""
    integers, y = node.x.data, node.y
    assert integers is not None
    scale, zero = _spread(node, 1), _spread(node, 2) if node.has_input(2) else 0
    y.data = ((integers.astype(np.int64) - zero).astype(np.float32) * scale).astype(np.float32)
    y.quantization = None if quantization is None else _as_int8(quantization, integers.dtype)


def _is_constant(node: Node) -> bool:
    return all(t is None or t.data is not None for t in node.inputs) and node.x.dtype.kind in "iu"


def _spread(node: Node, i: int) -> np.ndarray:
    """Constant scales (1) or zero points (2) in a shape that broadcasts against the constant that they belong to."""
    given, shape = node.constant(i), node.static_shape(node.x)
    assert given is not None
    given = given.astype(np.float32 if i == 1 else np.int64)
    if given.size == 1:
        return given.reshape(())
    axis, block = node.integer("axis", 1) % len(shape), node.integer("block_size", 0)
    if block:
        return np.repeat(given, block, axis).take(np.arange(shape[axis]), axis)
    return given.reshape([-1 if place == axis else 1 for place in range(len(shape))])


def _as_int8(quantization: Quantization, dtype: np.dtype) -> Quantization:
    """The quantization of the same numbers as int8."""
    shift = 128 if dtype == np.uint8 else 0
    return Quantization(quantization.scale, quantization.zero_point - shift, quantization.axis)


def _quantization(node: Node, dtype: np.dtype) -> Quantization | None:
    """Scales and zero points of a node, where they are constants along one axis at most and 8 bits (or a bias) are stored."""
    scale, zero = node.input(1), node.inputs[2] if node.has_input(2) else None
    if scale.data is None or (zero is not None and zero.data is None) or scale.rank > 1 or node.integer("block_size", 0):
        return None
    if dtype not in (np.int8, np.uint8, np.int32) or scale.dtype != np.float32 or not (scale.data > 0).all():
        return None
    scales = scale.data.reshape(-1)
    zeros = np.zeros(scales.shape, np.int64) if zero is None else zero.data.reshape(-1).astype(np.int64)  # type: ignore[union-attr]
    axis = node.integer("axis", 1) % max(1, node.x.rank)
    fits = scales.size == 1 or scales.size == node.x.shape[axis]
    return Quantization(scales, zeros, axis) if fits and zeros.shape == scales.shape else None


@lowers("QLinearMatMul")
def qlinear_matmul(node: Node) -> None:
    """The product of the dequantized operands, quantized again. The integers are summed in float32, which has to hold them."""
    a, b = (_centred(node, i, i + 2) for i in (0, 3))
    _check_sum(node, a.shape[-1], node.x.dtype, node.input(3).dtype)
    a = _scaled(node, a, 1, "a_scaled")
    b = _scaled(node, b, 4, "b_scaled")
    product = node.emit("BATCH_MATMUL", [a, b], node.temp(node.y.shape, "product", np.float32), adjX=False, adjY=False)
    scale = _float(node, node.input(6), "y_scale")
    divided = node.emit("DIV", [product, scale], node.temp(node.y.shape, "divided", np.float32))
    _saturate(node, divided, _float(node, node.input(7), "y_zero"), node.y)


@lowers("MatMulInteger")
def matmul_integer(node: Node) -> None:
    a, b = _centred(node, 0, 2), _centred(node, 1, 3)
    _check_sum(node, a.shape[-1], node.x.dtype, node.input(1).dtype)
    product = node.emit("BATCH_MATMUL", [a, b], node.temp(node.y.shape, "product", np.float32), adjX=False, adjY=False)
    node.emit("CAST", [product], inDataType=product.dtype, outDataType=node.y.dtype)


def _centred(node: Node, i: int, zero: int) -> Tensor:
    """An operand as float32 with its zero point taken off; a zero point per row is a column."""
    x = _float(node, node.input(i), f"operand{i}")
    if not node.has_input(zero):
        return x
    point = _float(node, node.input(zero), f"zero{i}")
    if point.rank == 1 and point.shape != (1,) and x.rank == 2 and i == 0:
        point = node.reshape(point, (*point.shape, 1), f"column{i}")
    return node.emit("SUB", [x, point], node.like(x, f"centred{i}"))


def _scaled(node: Node, x: Tensor, i: int, hint: str) -> Tensor:
    scale = _float(node, node.input(i), f"scale{i}")
    if scale.rank == 1 and scale.shape != (1,) and x.rank == 2 and i == 1:
        scale = node.reshape(scale, (*scale.shape, 1), f"scales{i}")
    return node.emit("MUL", [x, scale], node.like(x, hint))


def _check_sum(node: Node, length: Dim, *dtypes: np.dtype) -> None:
    largest = 1
    for dtype in dtypes:
        largest *= int(np.iinfo(dtype).max) - int(np.iinfo(dtype).min)
    if not isinstance(length, int) or length * largest >= 1 << 31:
        raise node.refuse(f"a sum of {length} products does not fit 32 bits", "use a shorter inner dimension", "input 0")
    # Above 2^24 a float32 rounds: the relative error stays below 2^-24 times the number of terms.


def _saturate(node: Node, x: Tensor, zero: Tensor | None, out: Tensor) -> None:
    """round, shift, clip, cast."""
    limits = np.iinfo(out.dtype)
    x = node.emit("ROUND", [x], node.like(x, "rounded"))
    if zero is not None and not (zero.data is not None and not zero.data.any()):
        x = node.emit("ADD", [x, zero], node.like(x, "shifted"))
    x = node.emit("MAXIMUM", [x, node.const(limits.min, np.float32, "lowest")], node.like(x, "raised"))
    x = node.emit("MINIMUM", [x, node.const(limits.max, np.float32, "highest")], node.like(x, "lowered"))
    node.emit("CAST", [x], out, inDataType=x.dtype, outDataType=out.dtype)


def _float(node: Node, x: Tensor, hint: str) -> Tensor:
    if x.dtype == np.float32:
        return x
    if x.data is not None:
        return node.const(x.data, np.float32, f"{hint}_float")
    return node.emit("CAST", [x], node.like(x, f"{hint}_float", np.float32), inDataType=x.dtype, outDataType=np.dtype(np.float32))


def _along(node: Node, x: Tensor, shape: Sequence[Dim], hint: str) -> Tensor:
    """Scales or zero points so that they broadcast: one for all, one per place of `axis`, or one per block of `axis`."""
    x = _float(node, x, hint)
    if x.rank == 0 or x.shape == (1,):
        return node.reshape(x, (), f"{hint}_all")
    axis, block = node.integer("axis", 1) % len(shape), node.integer("block_size", 0)
    if x.rank == 1 and not block:
        return node.reshape(x, [d if i == axis else 1 for i, d in enumerate(shape)], f"{hint}_along")
    size = shape[axis]
    if not isinstance(size, int) or not block:
        raise node.refuse(f"its scales have shape {x.shape}", "use one scale, one per channel, or blocks", "block_size")
    places = node.ints((np.arange(size) // block).tolist(), f"{hint}_blocks")
    return node.emit("GATHER", [x, places], node.temp(shape, f"{hint}_spread", np.float32), axis=axis, batchDims=0)
