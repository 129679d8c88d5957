"""Conv and ConvTranspose on channels-last tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.padding import Window, pad_for, windows
from edgekit.litert.lower.table import Node, lowers


@lowers("Conv")
def conv(node: Node) -> None:
    """Weights (O, I/group, …) become OHWI, or 1HWO where every group has one input channel."""
    weight = node.constant(1)
    if weight is None:
        raise node.refuse("it has no weights", "the model is not valid ONNX: export it again")
    if weight.ndim == 5:
        return _conv_3d(node, weight)
    group = node.integer("group", 1)
    out_channels, per_group, *kernel = weight.shape
    x, padding = pad_for(node, axes := windows(node, kernel))
    options: dict[str, Any] = {"padding": padding, **_strides(axes), **_dilations(axes)}
    bias = _bias(node, out_channels)
    if group > 1 and per_group == 1:
        weights = node.const(weight.transpose(1, 2, 3, 0), hint="weights")
        node.emit("DEPTHWISE_CONV_2D", [x, weights, bias], depthMultiplier=out_channels // group, **options)
        return None
    weights = node.const(weight.transpose(0, 2, 3, 1), hint="weights")
    node.emit("CONV_2D", [x, weights, bias], **options)
    return None


@lowers("ConvTranspose")
def conv_transpose(node: Node) -> None:
    """Weights (I, O/group, H, W) become OHWI; dilation is written into the kernel as zeros, groups become a split."""
    weight = node.constant(1)
    if weight is None or weight.ndim != 4:
        raise node.refuse("its weights are not a 4-D constant", "use a 1-D or 2-D transposed convolution", "weights")
    group = node.integer("group", 1)
    weight = _dilated(weight, node.integers("dilations", (1, 1)))
    kernel = weight.shape[2:]
    strides = node.integers("strides", (1, 1))
    bias = _bias(node, weight.shape[1] * group)
    size, result = node.static_shape(node.x)[1:3], node.static_shape(node.y)[1:3]
    begins = _transposed_begins(node, size, result, kernel, strides)
    full = [(s - 1) * stride + k for s, stride, k in zip(size, strides, kernel, strict=True)]
    axes = [
        Window(r, s, k, stride, 1, b, f - r - b)
        for r, s, k, stride, b, f in zip(result, size, kernel, strides, begins, full, strict=True)
    ]
    options = {"strideH": strides[0], "strideW": strides[1]}
    if all(w.begin == 0 and w.end <= 0 for w in axes):
        _transpose_conv(node, weight, group, bias, node.y, {"padding": "VALID", **options})
    elif all(w.is_same and w.begin + w.end >= 0 for w in axes):
        _transpose_conv(node, weight, group, bias, node.y, {"padding": "SAME", **options})
    else:
        spread = [max(f, b + r) for f, b, r in zip(full, begins, result, strict=True)]
        whole = node.temp((node.y.shape[0], *spread, node.y.shape[3]), "full")
        _transpose_conv(node, weight, group, bias, whole, {"padding": "VALID", **options})
        begin, length = node.ints((0, *begins, 0), "begin"), node.ints((-1, *result, -1), "size")
        node.emit("SLICE", [whole, begin, length])


def _conv_3d(node: Node, weight: np.ndarray) -> None:
    if node.integer("group", 1) != 1:
        raise node.refuse("LiteRT's CONV_3D has no groups", "use an ungrouped 3-D convolution", "group")
    x, padding = pad_for(node, axes := windows(node, weight.shape[2:]))
    options: dict[str, Any] = {f"stride{axis}": w.stride for axis, w in zip("DHW", axes, strict=True)}
    options |= {f"dilation{axis}Factor": w.dilation for axis, w in zip("DHW", axes, strict=True)}
    weights = node.const(weight.transpose(2, 3, 4, 1, 0), hint="weights")
    node.emit("CONV_3D", [x, weights, _bias(node, weight.shape[0])], padding=padding, **options)


def _bias(node: Node, channels: int) -> Tensor:
    bias = node.constant(2)
    return node.const(np.zeros(channels, np.float32) if bias is None else bias.reshape(-1), hint="bias")


def _strides(axes: list[Window]) -> dict[str, Any]:
    return {"strideH": axes[0].stride, "strideW": axes[1].stride}


def _dilations(axes: list[Window]) -> dict[str, Any]:
    return {"dilationHFactor": axes[0].dilation, "dilationWFactor": axes[1].dilation}


def _dilated(weight: np.ndarray, dilations: tuple[int, ...]) -> np.ndarray:
    if all(d == 1 for d in dilations):
        return weight
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    spread = np.zeros((*weight.shape[:2], *reach), weight.dtype)
    spread[:, :, :: dilations[0], :: dilations[1]] = weight
    return spread


def _transposed_begins(
    node: Node, size: tuple[int, ...], result: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...]
) -> list[int]:
    """Padding cut from the beginning of each axis (ONNX ConvTranspose-11: output_shape and auto_pad share the total)."""
    auto = node.string("auto_pad", "NOTSET") or "NOTSET"
    given = "output_shape" in node.onnx.attributes
    if auto == "NOTSET" and not given:
        return list(node.integers("pads", (0,) * 4)[:2])
    extra = node.integers("output_padding", (0, 0))
    begins = []
    for s, r, k, stride, more in zip(size, result, kernel, strides, extra, strict=True):
        total = max(0, stride * (s - 1) + more + k - r)
        late = auto == "SAME_LOWER"  # the odd element goes to the beginning
        begins.append(total - total // 2 if late else total // 2)
    return begins


def _transpose_conv(node: Node, weight: np.ndarray, group: int, bias: Tensor, out: Tensor, options: dict[str, Any]) -> None:
    shape = node.static_shape(out)
    if group == 1:
        weights = node.const(weight.transpose(1, 2, 3, 0), hint="weights")
        node.emit("TRANSPOSE_CONV", [node.ints(shape, "shape"), weights, node.x, bias], out, **options)
        return
    inputs = weight.shape[0] // group
    parts = [node.temp((*node.x.shape[:3], inputs), f"group{g}") for g in range(group)]
    node.emit("SPLIT", [node.const(3, np.int32, "axis"), node.x], parts, numSplits=group)
    made = []
    for g, part in enumerate(parts):
        kernel = weight[g * inputs : (g + 1) * inputs]
        channels = kernel.shape[1]
        weights = node.const(kernel.transpose(1, 2, 3, 0), hint=f"weights{g}")
        assert bias.data is not None
        part_bias = node.const(bias.data[g * channels : (g + 1) * channels], hint=f"bias{g}")
        target = node.ints((*shape[:3], channels), "shape")
        result = node.temp((*shape[:3], channels), f"result{g}")
        made.append(node.emit("TRANSPOSE_CONV", [target, weights, part, part_bias], result, **options))
    node.emit("CONCATENATION", made, out, axis=3)
