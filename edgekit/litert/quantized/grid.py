"""Numbers and the integers that stand for them."""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Quantization, Tensor


def exact_integers(tensor: Tensor) -> np.ndarray | None:
    """The int8 array that a float32 constant was dequantized from; None where some value is not on its grid."""
    assert tensor.data is not None
    assert tensor.quantization is not None
    stored = _unrounded(tensor.data, tensor.quantization)
    whole = np.rint(stored)
    # A float32 product of an 8-bit integer and a scale is off by at most 2^-24 of itself.
    if not np.allclose(stored, whole, rtol=0, atol=1e-4) or whole.min(initial=0) < -128 or whole.max(initial=0) > 127:
        return None
    return whole.astype(np.int8)


def rounded(data: np.ndarray, grid: Quantization) -> np.ndarray:
    """The nearest integers, half to even, saturated."""
    return np.clip(np.rint(_unrounded(data, grid)), -128, 127).astype(np.int8)


def within(grid: Quantization, low: float, high: float) -> bool:
    """Whether all that an int8 tensor of that grid can hold lies between two bounds, to half a step."""
    scale, zero = float(grid.scale[0]), int(grid.zero_point[0])
    return (-128 - zero) * scale >= low - scale / 2 and (127 - zero) * scale <= high + scale / 2


def along(values: np.ndarray, grid: Quantization, rank: int) -> np.ndarray:
    """Scales or zero points of a grid in the shape that broadcasts against a tensor of that rank."""
    if grid.is_per_tensor:
        return values.reshape(())
    return values.reshape([-1 if axis == grid.axis else 1 for axis in range(rank)])


def _unrounded(data: np.ndarray, grid: Quantization) -> np.ndarray:
    scale, zero = (along(a, grid, data.ndim) for a in (grid.scale, grid.zero_point))
    return data.astype(np.float64) / scale.astype(np.float64) + zero
