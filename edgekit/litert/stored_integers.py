"""Weights that are integers times a scale are stored as those integers.

Before:  CONV_2D(x, weights float32)
After:   DEQUANTIZE(weights int8, a scale per output channel) → CONV_2D(x, ·)

A model may hold its weights as int8 and widen them before it computes in float32: by DequantizeLinear, or by Cast and Mul. The
hub has computed the float32 numbers, of which the file would need four bytes each. Whatever the spelling was, such numbers give
themselves away: in each output channel they are whole multiples of the largest one's 127th part, or 126th, … XNNPACK expands
the integers once, when it loads them, as it does half-precision weights.
"""

from __future__ import annotations

import hashlib

import numpy as np

from edgekit.litert.graph import Graph, Operator, Quantization, Tensor
from edgekit.litert.quantized.grid import exact_integers
from edgekit.quantize.stored import is_worthwhile, per_channel

CHANNELS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
"""The axis of the output channel in the weights, which are input 1."""
LARGEST = (127, 128, *range(126, 63, -1))
"""What the largest number of a channel may be a multiple of: quantizers make it 127, or close to that."""
PRECISION = 2.0**-22
"""How far a weight may be off its multiple, relatively: float32 rounds the product, and again where a factor was folded in."""


def store_integers(graph: Graph, *, rounded: bool = False) -> None:
    """Apply it to this graph and its subgraphs, in place.

    Args:
        rounded: Round other weights to such numbers: it makes the file smaller, and not as exact.
    """
    for part in graph.with_subgraphs():
        expanded: dict[Tensor, Tensor] = {}
        made: dict[bytes, Tensor] = {}
        operators: list[Operator] = []
        for op in part.operators:
            weights = op.inputs[1] if op.code in CHANNELS or (rounded and op.code == "BATCH_MATMUL") else None
            if weights is not None and is_smaller(weights, CHANNELS.get(op.code, 0)):
                if weights not in expanded and (stored := _stored(weights, CHANNELS.get(op.code), rounded)) is not None:
                    key = _digest(stored)
                    if key not in made:
                        made[key] = Tensor(weights.name, weights.shape, weights.dtype)
                        operators.append(Operator("DEQUANTIZE", [stored], [made[key]]))
                    expanded[weights] = made[key]
                op.inputs[1] = expanded.get(weights, weights)
            operators.append(op)
        part.operators = operators


def _digest(stored: Tensor) -> bytes:
    """The same for tensors that stand for the same numbers, which are then expanded once."""
    grid = stored.quantization
    assert stored.data is not None
    assert grid is not None
    content = hashlib.sha256(repr((stored.shape, stored.dtype.str, grid.axis)).encode())
    for array in (stored.data, grid.scale, grid.zero_point):
        content.update(np.ascontiguousarray(array).data)
    return content.digest()


def is_smaller(weights: Tensor, axis: int) -> bool:
    """Whether a constant would be, as integers."""
    if weights.data is None or weights.dtype != np.float32:
        return False
    return is_worthwhile(weights.data.shape, axis)


def _stored(weights: Tensor, axis: int | None, rounded: bool) -> Tensor | None:
    """The int8 tensor of which a constant was made, or the nearest if it may be rounded; None where there is none.

    Without an axis of output channels, scales go along the one that loses least.
    """
    data, grid = weights.data, weights.quantization
    assert data is not None
    integers = exact_integers(weights) if grid is not None else None
    if integers is None or grid is None:
        axis = _best_axis(data) if axis is None else axis
        found = _exact(data, axis) or (per_channel(data, axis) if rounded and np.isfinite(data).all() else None)
        if found is None:
            return None
        integers, scales = found
        grid = Quantization(scales, np.zeros(len(scales), np.int64), axis)
    return Tensor(f"{weights.name}/int8", weights.shape, integers.dtype, integers, grid)


def _best_axis(data: np.ndarray) -> int:
    """That along which the squared steps are least on average."""
    others = {axis: tuple(i for i in range(data.ndim) if i != axis) for axis in range(data.ndim)}
    return min(others, key=lambda axis: float(np.square(np.abs(data).max(axis=others[axis])).mean()))


def _exact(data: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The integers and scales that give an array as it is."""
    rows = np.moveaxis(data, axis, 0).reshape(data.shape[axis], -1)
    if _grid(rows[:1]) is None or (found := _grid(rows)) is None:
        return None
    scales, multiples = found
    moved = [data.shape[axis], *(d for i, d in enumerate(data.shape) if i != axis)]
    return np.ascontiguousarray(np.moveaxis(multiples.reshape(moved), 0, axis)), scales


def _grid(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The scale of each row and the int8 multiples of it that the row holds."""
    peak = np.abs(rows).max(axis=1).astype(np.float64)
    scales = np.ones(len(rows), np.float32)
    left = np.flatnonzero(peak)
    for largest in LARGEST:
        if not left.size:
            break
        tried = (peak[left] / largest).astype(np.float32)[:, None]
        multiples = np.rint(rows[left] / tried)
        fits = (np.abs(multiples * tried - rows[left]) <= PRECISION * np.abs(rows[left])).all(axis=1) & (multiples < 128).all(
            axis=1
        )
        scales[left[fits]] = tried[fits, 0]
        left = left[~fits]
    return None if left.size else (scales, np.rint(rows / scales[:, None]).astype(np.int8))
