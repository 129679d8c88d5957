"""Convolutions and poolings over one or three spatial axes, p-norm pooling, and the inverse of max pooling."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.litert.decompose.builder import Builder, Decomposition, integer, integers, is_used, string


def _one_spatial_axis(node: ir.Node, b: Builder) -> list[ir.Value] | None:
    """A 1-D convolution or pooling is a 2-D one of height 1."""
    x, y = node.inputs[0], node.outputs[0]
    if x is None or rank(x) != 3:
        return None
    attributes: dict[str, Any] = {name: a.value for name, a in node.attributes.items()}
    for name, neutral in (("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("output_padding", 0)):
        if name in attributes:
            attributes[name] = [neutral, *attributes[name]]
    if "output_shape" in attributes:
        attributes["output_shape"] = [1, *attributes["output_shape"]]
    if "pads" in attributes:
        begin, end = attributes["pads"]
        attributes["pads"] = [0, begin, 0, end]
    inputs: list[ir.Value | None] = [_unsqueeze(b, x), *node.inputs[1:]]
    if node.op_type in ("Conv", "ConvTranspose"):
        weight = constant(node.inputs[1])
        if weight is not None:
            inputs[1] = b.const(weight[:, :, None, :])
        elif node.inputs[1] is not None:
            inputs[1] = _unsqueeze(b, node.inputs[1])
    shape = dims(y)
    wide = (*shape[:2], 1, shape[2])
    made = b.op(node.op_type, inputs, wide, outputs=len(node.outputs), **attributes)
    results = [made]
    for i, extra in enumerate(node.outputs[1:], 1):
        other = b.made[-1].outputs[i]
        other.name, other.type, other.shape = f"{extra.name}/wide", extra.type, ir.Shape(wide)
        results.append(other)
    return [b.op("Squeeze", [value, b.ints([2])], shape, value.dtype) for value in results]


def _unsqueeze(b: Builder, x: ir.Value) -> ir.Value:
    shape = dims(x)
    return b.op("Unsqueeze", [x, b.ints([2])], (*shape[:2], 1, shape[2]), x.dtype)


def _pool(node: ir.Node, b: Builder) -> list[ir.Value] | None:
    x = node.inputs[0]
    if x is not None and rank(x) == 5:
        return _three_spatial_axes(node, b)
    return _one_spatial_axis(node, b)


def _three_spatial_axes(node: ir.Node, b: Builder) -> list[ir.Value]:
    """A 3-D pooling is one over height and width and one over depth: maximum and mean are separable, padding counted or not."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    if len(node.outputs) > 1 and is_used(node.outputs[1]):
        raise b.refuse("the places of a 3-D maximum are not supported", "remove the use of its second output", "output 1")
    n, c, depth, height, width = b.static(x)
    new_depth, new_height, new_width = b.static(y)[2:]
    kernel, pads = integers(node, "kernel_shape", ()), _explicit_pads(node, b)
    strides, dilations = integers(node, "strides", (1, 1, 1)), integers(node, "dilations", (1, 1, 1))
    rest = {
        name: a.value for name, a in node.attributes.items() if name in ("ceil_mode", "count_include_pad") and a.value is not None
    }

    def pooled(value: ir.Value, shape: tuple[int, ...], axes: list[int]) -> ir.Value:
        pick = [(kernel[a], strides[a], dilations[a], pads[a], pads[a + 3]) if a >= 0 else (1, 1, 1, 0, 0) for a in axes]
        k, s, d, begin, end = (list(v) for v in zip(*pick, strict=True))
        window: dict[str, Any] = {"kernel_shape": k, "strides": s, "dilations": d, "pads": begin + end}
        return b.op(node.op_type, [value], shape, **window, **rest)

    flat = b.reshape(x, (n, c * depth, height, width))
    flat = pooled(flat, (n, c * depth, new_height, new_width), [1, 2])
    deep = b.reshape(flat, (n, c, depth, new_height * new_width))
    deep = pooled(deep, (n, c, new_depth, new_height * new_width), [0, -1])
    return [b.reshape(deep, dims(y))]


def _explicit_pads(node: ir.Node, b: Builder) -> list[int]:
    """The paddings of a pooling without auto_pad: all begins, then all ends."""
    auto = string(node, "auto_pad", "NOTSET") or "NOTSET"
    n = len(integers(node, "kernel_shape", ()))
    if auto in ("NOTSET", "VALID"):
        return integers(node, "pads", (0,) * 2 * n) if auto == "NOTSET" else [0] * 2 * n
    assert node.inputs[0] is not None
    size, result = b.static(node.inputs[0])[2:], b.static(node.outputs[0])[2:]
    kernel, strides = integers(node, "kernel_shape", ()), integers(node, "strides", (1,) * n)
    dilations = integers(node, "dilations", (1,) * n)
    total = [
        max(0, (r - 1) * s + (k - 1) * d + 1 - length)
        for length, r, k, s, d in zip(size, result, kernel, strides, dilations, strict=True)
    ]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return small + large if auto == "SAME_UPPER" else large + small


def _lp_pool(node: ir.Node, b: Builder) -> list[ir.Value]:
    """The p-th root of a sum of p-th powers; the sum is a convolution with ones, one per channel."""
    x, y, p = node.inputs[0], node.outputs[0], integer(node, "p", 2)
    assert x is not None
    kernel = integers(node, "kernel_shape", ())
    n = len(kernel)
    strides, dilations = integers(node, "strides", (1,) * n), integers(node, "dilations", (1,) * n)
    size, result = b.static(x), b.static(y)
    pads = _explicit_pads(node, b)
    for i in range(n):  # what ceil_mode adds
        needed = (result[2 + i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - size[2 + i] - pads[i]
        pads[n + i] = max(pads[n + i], needed)
    inside = b.unary("Abs", x)
    powers = inside if p == 1 else b.binary("Pow", inside, float(p))
    channels, single = size[1], n == 3  # CONV_3D has no groups: there the channels become a batch
    if single:
        powers = b.reshape(powers, (size[0] * channels, 1, *size[2:]))
    groups = 1 if single else channels
    assert x.dtype is not None
    ones = b.const(np.ones((groups, 1, *kernel), x.dtype.numpy()))
    window: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
    made = (size[0] * channels, 1, *result[2:]) if single else result
    total = b.op("Conv", [powers, ones], made, group=groups, **window)
    if single:
        total = b.reshape(total, result)
    return [total if p == 1 else b.binary("Pow", total, 1.0 / p)]


def _global_lp_pool(node: ir.Node, b: Builder) -> list[ir.Value]:
    x, p = node.inputs[0], integer(node, "p", 2)
    assert x is not None
    axes, shape = b.ints(list(range(2, rank(x)))), dims(node.outputs[0])
    if p in (1, 2):
        return [b.op(f"ReduceL{p}", [x, axes], shape, keepdims=1)]
    powers = b.binary("Pow", b.unary("Abs", x), float(p))
    return [b.binary("Pow", b.op("ReduceSum", [powers, axes], shape, keepdims=1), 1.0 / p)]


def _max_unpool(node: ir.Node, b: Builder) -> list[ir.Value]:
    """Scattered to where the maxima were; a larger output shape adds zeros at the ends."""
    x, places, y = node.inputs[0], node.inputs[1], node.outputs[0]
    assert x is not None
    assert x.dtype is not None
    size, result = b.static(x), b.static(y)
    kernel = integers(node, "kernel_shape", ())
    n = len(kernel)
    strides, pads = integers(node, "strides", (1,) * n), integers(node, "pads", (0,) * 2 * n)
    inferred = [(size[2 + i] - 1) * strides[i] + kernel[i] - pads[i] - pads[n + i] for i in range(n)]
    shape = (*size[:2], *inferred)
    total, count = int(np.prod(shape)), int(np.prod(size))
    zeros = b.const(np.zeros(total, x.dtype.numpy()))
    assert places is not None
    inputs = [zeros, b.reshape(places, (count,)), b.reshape(x, (count,))]
    spread = b.op("ScatterElements", inputs, (total,), axis=0)
    whole = b.reshape(spread, shape)
    if shape == result:
        return [whole]
    amounts = [0] * len(result) + [r - s for r, s in zip(result, shape, strict=True)]
    return [b.op("Pad", [whole, b.ints(amounts)], result)]


def _global_pool(node: ir.Node, b: Builder) -> list[ir.Value] | None:
    x = node.inputs[0]
    if x is None:
        return None
    axes = b.ints(range(2, rank(x)))  # type: ignore[arg-type]
    return [
        b.op("ReduceMean" if node.op_type == "GlobalAveragePool" else "ReduceMax", [x, axes], dims(node.outputs[0]), keepdims=1)
    ]


DECOMPOSITIONS: dict[str, Decomposition] = {
    "AveragePool": _pool,
    "Conv": _one_spatial_axis,
    "ConvTranspose": _one_spatial_axis,
    "GlobalAveragePool": _global_pool,
    "GlobalLpPool": _global_lp_pool,
    "GlobalMaxPool": _global_pool,
    "LpPool": _lp_pool,
    "MaxPool": _pool,
    "MaxUnpool": _max_unpool,
}
