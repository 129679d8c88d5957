"""Rounding weights to int8 with an eye on what they are multiplied by.

The nearest integer is best for a weight alone, not for a sum: when the inputs of a sum are correlated, the error of one weight
can be made up for by the next. Weights are rounded one after another, and what each loses is spread over those that are left, in
the proportion that the covariance of their inputs tells (Frantar et al. 2022, "GPTQ"; Nagel et al. 2020, "Up or Down?", has the
reason). The grid stays that of the quantizers, which find every weight on a step and leave it there.
"""

from __future__ import annotations

import numpy as np

from edgekit.quantize.weights import Layer, steps

# Places of a feature map that are looked at in each sample.
PLACES = 64

# Added to the diagonal of a covariance, as a part of its mean: what was not seen on the samples must not look impossible.
_DAMPING = 0.01
# Columns that are rounded before the rest is told.
_BLOCK = 64


def covariance(sums: np.ndarray) -> np.ndarray:
    """Of what sums are made of, groups x places x inputs: groups x inputs x inputs, float64. Their means are left to the bias."""
    centred = sums - sums.mean(1, keepdims=True)
    return (centred.transpose(0, 2, 1) @ centred).astype(np.float64) / sums.shape[1]


def round_by_covariance(layer: Layer, seen: np.ndarray) -> np.ndarray:
    """The kernel on its grid, rounded so that the layer's results change least for inputs of this covariance."""
    step = steps(layer.kernel)
    rows = (layer.kernel / step).reshape(layer.groups, layer.kernel.shape[0] // layer.groups, -1)
    return _on_grid(rows, _spread(seen)).reshape(layer.kernel.shape) * step


def _on_grid(rows: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Integers from -127 to 127 for `rows` (groups x outputs x inputs, in steps), column by column.

    `spread` tells what a column's error asks of those to its right (groups x inputs x inputs, upper triangles).
    """
    result = np.empty_like(rows)
    largest = np.abs(rows) >= 127 - 1e-6  # of each output: they set its step, and stay what they are
    ends, rows = np.sign(rows) * 127, rows.copy()
    for begin in range(0, rows.shape[2], _BLOCK):
        end = min(begin + _BLOCK, rows.shape[2])
        errors = np.zeros((*rows.shape[:2], end - begin))
        for i in range(begin, end):
            result[:, :, i] = np.where(largest[:, :, i], ends[:, :, i], np.round(rows[:, :, i]).clip(-127, 127))
            error = (rows[:, :, i] - result[:, :, i]) / spread[:, None, i, i]
            rows[:, :, i:end] -= error[:, :, None] * spread[:, None, i, i:end]
            errors[:, :, i - begin] = error
        rows[:, :, end:] -= errors @ spread[:, begin:end, end:]
    return result


def _spread(covariance: np.ndarray) -> np.ndarray:
    """The upper Cholesky factor of the inverse of each group's damped covariance."""
    return np.linalg.cholesky(np.linalg.inv(covariance + _damping(covariance))).transpose(0, 2, 1)


def _damping(covariance: np.ndarray) -> np.ndarray:
    """A part of the mean of each group's diagonal, on a diagonal."""
    size = covariance.shape[-1]
    mean = np.maximum(np.trace(covariance, axis1=1, axis2=2) / size, 1e-12)
    return (_DAMPING * mean)[:, None, None] * np.eye(size)


def patches(layer: Layer, array: np.ndarray) -> np.ndarray:
    """What a layer's sums are made of at some places of its input: groups x places x inputs of a sum, float32."""
    if layer.node.op_type == "Gemm":
        return array.reshape(1, array.shape[0], -1)
    kernel = layer.node.inputs[1].shape.numpy()[2:]  # type: ignore[union-attr]
    spatial = tuple(range(2, 2 + len(kernel)))
    strides, dilations, pads = (layer.node.attributes[name].as_ints() for name in ("strides", "dilations", "pads"))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    padded = np.pad(array, [(0, 0), (0, 0), *zip(pads[: len(kernel)], pads[len(kernel) :], strict=True)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=spatial)  # type: ignore[call-overload]
    every: tuple[slice, ...] = tuple(slice(None, None, step) for step in (1, 1, *strides, *dilations))
    windows = windows[every]  # type: ignore[index]
    places = windows.shape[2 : 2 + len(kernel)]
    total = int(np.prod(places))
    chosen = np.unravel_index(np.linspace(0, total - 1, min(PLACES, total)).astype(int), places)
    taken = windows[(slice(None), slice(None), *chosen)]  # type: ignore[arg-type]  # samples x channels x places x kernel
    samples, channels, count = taken.shape[:3]
    grouped = taken.reshape(samples, layer.groups, channels // layer.groups, count, -1).transpose(1, 0, 3, 2, 4)
    return np.ascontiguousarray(grouped).reshape(layer.groups, samples * count, -1)
