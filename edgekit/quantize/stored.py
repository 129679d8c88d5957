"""Weights as the integers that a file holds in the place of float32 numbers: 8 bits per channel, or 4 bits in blocks.

Nothing here looks at data: what a weight is multiplied with is not known. The same numbers go into the files of both runtimes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgekit.errors import QuantizeError

BLOCK = 32
"""Weights that share a scale in 4 bits: what XNNPACK, LiteRT's own kernels and onnxruntime's MatMulNBits all take."""
LEAST_MATRIX = 4096
"""Weights of a matrix in 4 bits. A smaller one saves less than 2 kB, and its errors count in full: the 640 of ResNet-56's last
layer would make its error five times as large."""
TOO_COARSE = 0.05
"""Squared error over squared size of a matrix that 4 bits do not suit. Normally distributed weights have 0.008."""

# Bytes of the operator that expands a constant with its tensor, and of a scale and zero point, in a .tflite.
_OVERHEAD, _PER_CHANNEL = 512, 12

# Where the largest of a block may lie on the scale from -8 to 7. Its own best place is between 7 (nothing is cut off) and what
# cuts off the outermost few, or at 8 where it is negative.
_REACH = np.linspace(5.5, 9.0, 29)
_ROWS = 4096  # looked at together
_LEAST_SCALE = 2.0**-14  # LiteRT holds the scales of blocks in float16; below this it has fewer digits


def is_worthwhile(shape: Sequence[int], axis: int) -> bool:
    """Whether a float32 constant of this shape takes clearly less as int8 with a scale for each place along `axis`.

    The same constants are stored in both runtimes' files. Small ones are few bytes and many errors: a depthwise convolution of
    32 channels makes half of MobileNetV2's error.
    """
    size = math.prod(shape)
    return size + _PER_CHANNEL * shape[axis] + _OVERHEAD < 4 * size


def per_channel(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The array in int8, and the scale of each place along `axis` (float32): its largest weight is 127 of them."""
    others = tuple(i for i in range(array.ndim) if i != axis)
    peak = np.abs(array).max(axis=others).astype(np.float64)
    scales = np.where(peak > 0, peak / 127, 1.0).astype(np.float32)
    steps = scales.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    return np.clip(np.rint(array / steps), -127, 127).astype(np.int8), scales


def in_blocks(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """A matrix in 4 bits, along its second axis in blocks of `BLOCK`; None where that does not suit it.

    Args:
        rows: outputs x inputs of a product, or a table with one row per token.

    Returns:
        Integers from -8 to 7 (int8, in the form of `rows`), and scales (float32, rows x blocks). Of each block, the scale is
        the one of least squared error. Scales are positive numbers of 8 binary digits: XNNPACK keeps no more of them.
    """
    if rows.shape[1] % BLOCK or rows.size < LEAST_MATRIX or not np.isfinite(rows).all():
        return None
    parts = [_in_blocks(rows[begin : begin + _ROWS]) for begin in range(0, len(rows), _ROWS)]
    if sum(error for _, _, error in parts) > TOO_COARSE * sum(np.square(part, dtype=np.float64).sum() for part in rows):
        return None
    return np.concatenate([integers for integers, _, _ in parts]), np.concatenate([scales for _, scales, _ in parts])


def nothing_to_store(precision: str) -> QuantizeError:
    """For a model without weights that the precision stores in fewer bits."""
    if precision == "int4-weights":
        what = "dense layer or embedding of 4,096 weights or more, the inputs of each sum a multiple of 32"
        return QuantizeError(
            f"there is nothing to store in 4 bits: the model has no {what}",
            where=f"precision {precision}",
            fix="use int8-weights, which takes convolutions and small layers as well",
        )
    return QuantizeError(
        "there is nothing to store in 8 bits: the model has no weights of convolutions, dense layers or embeddings worth it",
        where=f"precision {precision}",
        fix="leave this precision out",
    )


def packed(integers: np.ndarray) -> np.ndarray:
    """Two 4-bit integers in each byte, the first in the lower half (uint8, flat)."""
    pairs = integers.reshape(-1, 2).view(np.uint8) & 15
    return pairs[:, 0] | (pairs[:, 1] << 4)


def _in_blocks(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Integers, scales, and the squared error in all."""
    blocks = rows.reshape(len(rows), -1, BLOCK)
    peak = np.abs(blocks).max(axis=2)
    best, scales = np.full(peak.shape, np.inf), np.ones(peak.shape, np.float32)
    for reach in _REACH:
        tried = _eight_digits(np.maximum(peak / np.float32(reach), _LEAST_SCALE))
        errors = np.square(blocks - _integers(blocks, tried) * tried[:, :, None]).sum(axis=2)
        better = (errors < best) & (peak > 0)
        best, scales = np.where(better, errors, best), np.where(better, tried, scales)
    integers = _integers(blocks, scales).reshape(rows.shape).astype(np.int8)
    return integers, scales, float(best[peak > 0].sum(dtype=np.float64))


def _integers(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(blocks / scales[:, :, None]), -8, 7)


def _eight_digits(scales: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 numbers, as float32."""
    bits = np.ascontiguousarray(scales, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
