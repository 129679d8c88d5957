"""Fourier transforms as products with constant matrices of cosines and sines."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.litert.decompose.builder import Builder, Decomposition, integer, operand


def _dft(node: ir.Node, b: Builder) -> list[ir.Value]:
    """The axis is brought next to the real and imaginary parts, and both are one inner dimension of a product."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    shape, n = b.static(x), rank(x)
    axis = int(_known(b, operand(node, 2), "axis", -2)) % n
    inverse, onesided = bool(integer(node, "inverse")), bool(integer(node, "onesided"))
    given = shape[axis]
    length = int(_known(b, operand(node, 1), "dft_length", 2 * (given - 1) if inverse and onesided else given))
    perm = [a for a in range(n) if a not in (axis, n - 1)] + [axis, n - 1]
    outer = [shape[a] for a in perm[:-2]]
    moved = b.transpose(x, perm) if perm != list(range(n)) else x
    matrix = _matrix(min(given, length), shape[-1], length, inverse, onesided)
    taken = min(given, matrix.shape[0] // shape[-1])
    if taken < given:
        moved = b.op("Slice", [moved, b.ints([0]), b.ints([taken]), b.ints([n - 2])], (*outer, taken, shape[-1]), x.dtype)
    flat = b.reshape(moved, (*outer, taken * shape[-1]))
    assert x.dtype is not None
    weights = b.const(matrix[: taken * shape[-1]].astype(x.dtype.numpy()))
    product = b.op("MatMul", [flat, weights], (*outer, matrix.shape[1]))
    parts = dims(y)[-1]
    assert isinstance(parts, int)
    result = b.reshape(product, (*outer, matrix.shape[1] // parts, parts))
    return [b.transpose(result, np.argsort(perm).tolist()) if perm != list(range(n)) else b.unary("Identity", result)]


def _stft(node: ir.Node, b: Builder) -> list[ir.Value]:
    """Real signals: one convolution whose kernels are the windowed cosines and sines, with a stride of one frame step."""
    x = node.inputs[0]
    assert x is not None
    assert x.dtype is not None
    batch, samples, *parts = b.static(x)
    step = int(_known(b, operand(node, 1), "frame_step", 0))
    window = operand(node, 2)
    weights = constant(window) if window is not None else None
    if window is not None and weights is None:
        raise b.refuse("its window is computed at run time", "make the window a constant in the model", "window")
    length = int(_known(b, operand(node, 3), "frame_length", len(weights) if weights is not None else 0))
    if parts and parts[0] == 2:
        raise b.refuse("the signal is complex", "transform its real and imaginary parts apart", "signal")
    matrix = _matrix(length, 1, length, False, bool(integer(node, "onesided", 1)))
    if weights is not None:
        matrix = matrix * weights.astype(np.float64)[:, None]
    kernels = matrix.T[:, None, None, :].astype(x.dtype.numpy())
    image = b.reshape(x, (batch, 1, 1, samples))
    frames = (samples - length) // step + 1
    columns = kernels.shape[0]
    made = b.op(
        "Conv", [image, b.const(kernels)], (batch, columns, 1, frames), kernel_shape=[1, length], strides=[1, step], pads=[0] * 4
    )
    last = b.transpose(made, (0, 2, 3, 1))
    return [b.reshape(last, (batch, frames, columns // 2, 2))]  # ONNX's own inference is wrong without a window


def _matrix(given: int, parts: int, length: int, inverse: bool, onesided: bool) -> np.ndarray:
    """The transform as a matrix from (sample, part) to (frequency, part), in float64.

    The forward transform is exp(-2πi kn/N); the inverse has the opposite sign and 1/N, and from one side of the spectrum gives
    real samples (each frequency but the first and the middle one stands for two).
    """
    rows = np.arange(given)
    if inverse and onesided:
        weight = np.where((rows == 0) | (2 * rows == length), 1.0, 2.0) / length
        angle = 2 * np.pi * np.outer(rows, np.arange(length)) / length
        both = np.stack([weight[:, None] * np.cos(angle), -weight[:, None] * np.sin(angle)], axis=1)
        return both[:, :parts].reshape(given * parts, length)
    columns = np.arange(length // 2 + 1 if onesided else length)
    sign = 1.0 if inverse else -1.0
    angle = sign * 2 * np.pi * np.outer(rows, columns) / length
    scale = 1.0 / length if inverse else 1.0
    real = np.stack([np.cos(angle), np.sin(angle)], -1)
    imaginary = np.stack([-np.sin(angle), np.cos(angle)], -1)
    both = np.stack([real, imaginary], 1)[:, :parts]
    return scale * both.reshape(given * parts, -1)


def _known(b: Builder, value: ir.Value | None, name: str, default: float) -> float:
    if value is None:
        return default
    array = constant(value)
    if array is None:
        raise b.refuse(f"its {name} is computed at run time", f"make {name} a constant in the model", name)
    return float(array.reshape(-1)[0]) if array.size else default


DECOMPOSITIONS: dict[str, Decomposition] = {"DFT": _dft, "STFT": _stft}
