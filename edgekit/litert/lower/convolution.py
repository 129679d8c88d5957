"""Conv and ConvTranspose on channels-last tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.padding import Window, pad, pad_for, windows
from edgekit.litert.lower.steps import Steps
from edgekit.litert.lower.table import Node, lowers


@lowers("Conv")
def conv(node: Node) -> None:
    """Weights (O, I/group, …) become OHWI, or 1HWO where every group has one input channel."""
    weight = node.input(1)
    if weight.rank == 5:
        return _conv_3d(node, weight)
    group = node.integer("group", 1)
    out_channels, per_group, *kernel = node.static_shape(weight)
    x, padding = pad_for(node, axes := windows(node, kernel))
    options: dict[str, Any] = {"padding": padding, **_strides(axes), **_dilations(axes)}
    bias = _bias(node, out_channels)
    if group > 1 and per_group == 1:
        weights = _arranged(node, weight, (1, 2, 3, 0))
        node.emit("DEPTHWISE_CONV_2D", [x, weights, bias], depthMultiplier=out_channels // group, **options)
        return None
    weights = _arranged(node, weight, (0, 2, 3, 1))
    node.emit("CONV_2D", [x, weights, bias], **options)
    return None


@lowers("ConvTranspose")
def conv_transpose(node: Node) -> None:
    """Weights (I, O/group, …) become OHWI; dilation is written into the kernel as zeros, groups become a split."""
    group, n = node.integer("group", 1), node.x.rank - 2
    weight = _dilated(node, node.input(1), node.integers("dilations", (1,) * n))
    _, per_group, *kernel = node.static_shape(weight)
    strides = node.integers("strides", (1,) * n)
    bias = _bias(node, per_group * group)
    size, result = node.static_shape(node.x)[1:-1], node.static_shape(node.y)[1:-1]
    begins = _transposed_begins(node, size, result, kernel, strides)
    full = [(s - 1) * stride + k for s, stride, k in zip(size, strides, kernel, strict=True)]
    axes = [
        Window(r, s, k, stride, 1, b, f - r - b)
        for r, s, k, stride, b, f in zip(result, size, kernel, strides, begins, full, strict=True)
    ]
    names = "DHW" if n == 3 else "HW"
    options = {f"stride{name}": stride for name, stride in zip(names, strides, strict=True)}
    if all(w.begin == 0 and w.end <= 0 for w in axes):
        _transpose_conv(node, weight, group, bias, node.y, {"padding": "VALID", **options})
    elif n == 2 and all(w.is_same and w.begin + w.end >= 0 for w in axes):
        _transpose_conv(node, weight, group, bias, node.y, {"padding": "SAME", **options})
    else:
        spread = [max(f, b + r) for f, b, r in zip(full, begins, result, strict=True)]
        whole = node.temp((node.y.shape[0], *spread, node.y.shape[-1]), "full")
        _transpose_conv(node, weight, group, bias, whole, {"padding": "VALID", **options})
        begin, length = node.ints((0, *begins, 0), "begin"), node.ints((-1, *result, -1), "size")
        node.emit("SLICE", [whole, begin, length])


def _arranged(node: Node, weight: Tensor, perm: tuple[int, ...], hint: str = "weights") -> Tensor:
    """Weights in the kernel's order of axes; computed ones are transposed when the model runs."""
    if weight.data is not None:
        return node.const(weight.data.transpose(perm), hint=hint)
    shape = [weight.shape[a] for a in perm]
    return node.emit("TRANSPOSE", [weight, node.ints(perm, f"{hint}_perm")], node.temp(shape, hint, weight.dtype))


def _conv_3d(node: Node, weight: Tensor) -> None:
    if node.integer("group", 1) != 1:
        raise node.refuse("LiteRT's CONV_3D has no groups", "use an ungrouped 3-D convolution", "group")
    shape = node.static_shape(weight)
    x, padding = pad_for(node, axes := windows(node, shape[2:]))
    options: dict[str, Any] = {f"stride{axis}": w.stride for axis, w in zip("DHW", axes, strict=True)}
    options |= {f"dilation{axis}Factor": w.dilation for axis, w in zip("DHW", axes, strict=True)}
    weights = _arranged(node, weight, (2, 3, 4, 1, 0))
    node.emit("CONV_3D", [x, weights, _bias(node, shape[0])], padding=padding, **options)


def _bias(node: Node, channels: int) -> Tensor:
    if node.has_input(2) and node.input(2).data is None:
        return node.input(2)
    bias = node.constant(2)
    return node.const(np.zeros(channels, np.float32) if bias is None else bias.reshape(-1), hint="bias")


def _strides(axes: list[Window]) -> dict[str, Any]:
    return {"strideH": axes[0].stride, "strideW": axes[1].stride}


def _dilations(axes: list[Window]) -> dict[str, Any]:
    return {"dilationHFactor": axes[0].dilation, "dilationWFactor": axes[1].dilation}


def _dilated(node: Node, weight: Tensor, dilations: Sequence[int]) -> Tensor:
    """The kernel with zeros between its elements."""
    if all(d == 1 for d in dilations):
        return weight
    if weight.data is None:
        for axis, step in enumerate(dilations, 2):
            weight = _spread(Steps(node), weight, axis, step)
        return weight
    reach = [(k - 1) * d + 1 for k, d in zip(weight.data.shape[2:], dilations, strict=True)]
    spread = np.zeros((*weight.data.shape[:2], *reach), weight.dtype)
    spread[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = weight.data
    return node.const(spread, hint="dilated")


def _spread(f: Steps, x: Tensor, axis: int, step: int) -> Tensor:
    """`step - 1` zeros between the elements along an axis."""
    if step == 1:
        return x
    node, shape = f.node, f.node.static_shape(x)
    outer, size, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    apart = pad(node, node.reshape(x, (outer, size, 1, inner), "apart"), [(0, 0), (0, 0), (0, step - 1), (0, 0)])
    reach = (size - 1) * step + 1
    cut = f.slice(node.reshape(apart, (outer, size * step, inner), "spread"), (0, 0, 0), (outer, reach, inner))
    return node.reshape(cut, (*shape[:axis], reach, *shape[axis + 1 :]), "dilated")


def _transposed_begins(
    node: Node, size: tuple[int, ...], result: tuple[int, ...], kernel: Sequence[int], strides: Sequence[int]
) -> list[int]:
    """Padding cut from the beginning of each axis (ONNX ConvTranspose-11: output_shape and auto_pad share the total)."""
    auto = node.string("auto_pad", "NOTSET") or "NOTSET"
    given = "output_shape" in node.onnx.attributes
    if auto.startswith("SAME") and any(node.integers("output_padding")):
        raise node.refuse(
            "it has auto_pad and output_padding, and ONNX and onnxruntime then disagree on its size",
            "give pads instead of auto_pad",
            "auto_pad",
        )
    if auto == "NOTSET" and not given:
        return list(node.integers("pads", (0,) * 2 * len(size))[: len(size)])
    extra = node.integers("output_padding", (0,) * len(size))
    begins = []
    for s, r, k, stride, more in zip(size, result, kernel, strides, extra, strict=True):
        total = max(0, stride * (s - 1) + more + k - r)
        late = auto == "SAME_LOWER"  # the odd element goes to the beginning
        begins.append(total - total // 2 if late else total // 2)
    return begins


def _transpose_conv(node: Node, weight: Tensor, group: int, bias: Tensor, out: Tensor, options: dict[str, Any]) -> None:
    shape = node.static_shape(out)
    if group == 1:
        _one_group(node, weight, node.x, bias, out, options)
        return
    inputs, channels = node.static_shape(weight)[0] // group, node.static_shape(weight)[1]
    parts = [node.temp((*node.x.shape[:-1], inputs), f"group{g}") for g in range(group)]
    node.emit("SPLIT", [node.const(node.x.rank - 1, np.int32, "axis"), node.x], parts, numSplits=group)
    made, f = [], Steps(node)
    for g, part in enumerate(parts):
        kernel, own = _part(f, weight, g * inputs, inputs), _part(f, bias, g * channels, channels)
        made.append(_one_group(node, kernel, part, own, node.temp((*shape[:-1], channels), f"result{g}"), options))
    node.emit("CONCATENATION", made, out, axis=node.x.rank - 1)


def _part(f: Steps, x: Tensor, start: int, count: int) -> Tensor:
    """Some places along the first axis."""
    if x.data is not None:
        return f.constant(x.data[start : start + count], x.dtype)
    return f.slice(x, [start] + [0] * (x.rank - 1), (count, *x.shape[1:]))


def _one_group(node: Node, weight: Tensor, x: Tensor, bias: Tensor, out: Tensor, options: dict[str, Any]) -> Tensor:
    target = node.ints(node.static_shape(out), "shape")
    if x.rank == 5:
        weights = _arranged(node, weight, (2, 3, 4, 1, 0), f"{out.name}/weights")
        factors = {f"dilation{axis}Factor": 1 for axis in "DHW"}
        return node.emit("CONV_3D_TRANSPOSE", [target, weights, x, bias], out, **options, **factors)
    weights = _arranged(node, weight, (1, 2, 3, 0), f"{out.name}/weights")
    return node.emit("TRANSPOSE_CONV", [target, weights, x, bias], out, **options)
