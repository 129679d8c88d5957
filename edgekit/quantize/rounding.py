"""Rounding weights to int8 with an eye on what they are multiplied by.

The nearest integer is best for a weight alone, not for a sum: when the inputs of a sum are correlated, the error of one weight
can be made up for by the next. Weights are rounded one after another, and what each loses is spread over those that are left, in
the proportion that the covariance of their inputs tells (Frantar et al. 2022, "GPTQ"; Nagel et al. 2020, "Up or Down?", has the
reason). The grid stays that of the quantizers, which find every weight on a step and leave it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit.quantize.weights import Layer, steps

if TYPE_CHECKING:
    import onnx

    from edgekit.contract import Feeds

Covariances = Mapping[str, np.ndarray]

# Places of a feature map that are looked at in each sample.
PLACES = 64
# The most inputs of a sum that are looked at together.
WIDEST = 4608

# Added to the diagonal of a covariance, as a part of its mean: what was not seen on the samples must not look impossible.
_DAMPING = 0.01
# Columns that are rounded before the rest is told.
_BLOCK = 64


def covariances(model: onnx.ModelProto, feeds: Sequence[Feeds], layers: Sequence[Layer]) -> dict[str, np.ndarray]:
    """Mean products of the inputs that each layer sums, by the name of its result: groups x inputs x inputs, float64.

    Not of layers whose sums are wider than `WIDEST`, or than the number of sums seen: those would learn the samples by heart.
    """
    from edgekit.quantize.statistics import runs

    by_input: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.kernel[0].size <= WIDEST and layer.has_window:
            by_input.setdefault(layer.takes, []).append(layer)
    found: dict[str, np.ndarray] = {}
    for values in runs(model, feeds, by_input):
        for layer in (layer for name, watching in by_input.items() if name in values for layer in watching):
            patches = _patches(layer, values[layer.takes])
            if patches.shape[1] * len(feeds) >= patches.shape[2]:
                products = (patches.transpose(0, 2, 1) @ patches).astype(np.float64)
                found[layer.makes] = found.get(layer.makes, 0) + products / (patches.shape[1] * len(feeds))
    return found


def round_by_covariance(layer: Layer, covariance: np.ndarray) -> np.ndarray:
    """The kernel on its grid, rounded so that the layer's results change least."""
    groups, each = layer.groups, layer.kernel.shape[0] // layer.groups
    step = steps(layer.kernel)
    rows = (layer.kernel / step).reshape(groups, each, -1)
    return _on_grid(rows, _spread(covariance)).reshape(layer.kernel.shape) * step


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
    size = covariance.shape[-1]
    mean = np.maximum(np.trace(covariance, axis1=1, axis2=2) / size, 1e-12)
    damped = covariance + (_DAMPING * mean)[:, None, None] * np.eye(size)
    return np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)


def _patches(layer: Layer, array: np.ndarray) -> np.ndarray:
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
