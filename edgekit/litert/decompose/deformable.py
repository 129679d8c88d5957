"""DeformConv: pixels are sampled where the offsets say, and the samples of a window are one row of a convolution."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.layout import dims
from edgekit.litert.decompose.builder import Builder, Decomposition, integer, integers, operand
from edgekit.litert.lower.sample import PIXELS


def _deform_conv(node: ir.Node, b: Builder) -> list[ir.Value]:
    """GridSample of a map (windows, taps) of places, times the mask, then Conv with a kernel of one row of taps.

    Each group of offsets is an image of its own, with its share of the channels.
    """
    x, weights, offset = node.inputs[0], node.inputs[1], node.inputs[2]
    bias, mask = operand(node, 3), operand(node, 4)
    assert x is not None
    assert weights is not None
    assert offset is not None
    batch, channels, *size = b.static(x)
    outputs, per_group, *kernel = b.static(weights)
    if len(size) != 2 or len(kernel) != 2:
        raise b.refuse(
            f"it samples {len(size)} spatial axes with a kernel of {len(kernel)}", "use it on images, which have 2", "X"
        )
    result, groups = b.static(node.outputs[0]), integer(node, "offset_group", 1)
    windows, taps, images = result[2] * result[3], kernel[0] * kernel[1], batch * groups
    moved = b.transpose(b.reshape(offset, (images, taps, 2, windows)), (0, 3, 1, 2))
    at = b.op("Add", [moved, b.const(_places(node, kernel, result[2:]))], dims(moved), offset.dtype)
    maps = b.reshape(x, (images, channels // groups, *size)) if groups > 1 else x
    sampled = b.op(
        "GridSample",
        [maps, at],
        (images, channels // groups, windows, taps),
        mode="linear",
        padding_mode="zeros",
        coordinates=PIXELS,
    )
    if mask is not None:
        factor = b.transpose(b.reshape(mask, (images, taps, windows)), (0, 2, 1))
        sampled = b.binary("Mul", sampled, b.reshape(factor, (images, 1, windows, taps)))
    if groups > 1:
        sampled = b.reshape(sampled, (batch, channels, windows, taps))
    rows = b.reshape(weights, (outputs, per_group, 1, taps))
    total = b.op(
        "Conv",
        [sampled, rows, bias] if bias is not None else [sampled, rows],
        (batch, outputs, windows, 1),
        kernel_shape=[1, taps],
        strides=[1, 1],
        dilations=[1, 1],
        pads=[0] * 4,
        group=integer(node, "group", 1),
    )
    return [b.reshape(total, result)]


def _places(node: ir.Node, kernel: list[int], windows: tuple[int, ...]) -> np.ndarray:
    """Where each tap of each window is without its offset, in pixels: (1, windows, taps, 2), rows before columns."""
    strides, dilations, pads = (
        integers(node, name, default) for name, default in (("strides", (1, 1)), ("dilations", (1, 1)), ("pads", (0,) * 4))
    )
    axes = [np.arange(windows[i])[:, None] * strides[i] - pads[i] + np.arange(kernel[i])[None] * dilations[i] for i in range(2)]
    rows = np.broadcast_to(axes[0][:, None, :, None], (*windows, *kernel))
    columns = np.broadcast_to(axes[1][None, :, None, :], (*windows, *kernel))
    taps = kernel[0] * kernel[1]
    return np.stack([rows, columns], -1).reshape(1, -1, taps, 2).astype(np.float32)


DECOMPOSITIONS: dict[str, Decomposition] = {"DeformConv": _deform_conv}
