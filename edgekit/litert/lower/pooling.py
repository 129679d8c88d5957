"""MaxPool and AveragePool on channels-last tensors."""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.padding import Window, pad, pad_for, windows
from edgekit.litert.lower.table import Node, lowers

NON_NEGATIVE = {"RELU", "RELU6", "RELU_0_TO_1", "LOGISTIC", "SOFTMAX", "ABS", "EXP", "SQUARE"}


@lowers("MaxPool")
def max_pool(node: Node) -> None:
    """Padding is the lowest value there is; zero does as well where the input cannot be negative, and every delegate has PAD."""
    axes = _axes(node)
    if node.has_output(1) or any(w.dilation != 1 for w in axes):
        _max_by_offsets(node, axes)
        return
    fill = 0.0
    # VALID pads nothing and SAME ignores what it pads; one of each has to be written out.
    explicit = not all(w.is_valid for w in axes) and not all(w.is_same for w in axes)
    if explicit and not _is_non_negative(node, node.x):
        fill = float(np.finfo(node.x.dtype).min) if node.x.dtype.kind == "f" else int(np.iinfo(node.x.dtype).min)
    x, padding = pad_for(node, axes, fill)
    _pool(node, "MAX_POOL_2D", x, axes, padding, node.y)


@lowers("AveragePool")
def average_pool(node: Node) -> None:
    """LiteRT leaves padding out of the average; ONNX counts it, or not, and never what ceil_mode adds."""
    axes = _axes(node)
    counted = node.integer("count_include_pad", 0) == 1
    if any(w.dilation != 1 for w in axes):
        _average_by_offsets(node, axes, counted)
        return
    if all(w.is_valid for w in axes) or (not counted and all(w.is_same for w in axes)):
        _pool(node, "AVERAGE_POOL_2D", node.x, axes, "VALID" if all(w.is_valid for w in axes) else "SAME", node.y)
        return
    x, _ = pad_for(node, axes, keep_end=False)
    if all(w.is_same for w in axes):
        x, _ = _explicitly_padded(node, axes)
    correction = _divisor_correction(node, axes, counted)
    if correction is None:
        _pool(node, "AVERAGE_POOL_2D", x, axes, "VALID", node.y)
        return
    average = _pool(node, "AVERAGE_POOL_2D", x, axes, "VALID", node.like(node.y, "average"))
    node.emit("MUL", [average, node.const(correction, hint="correction")])


def _axes(node: Node) -> list[Window]:
    kernel = node.integers("kernel_shape")
    if len(kernel) != 2:
        raise node.refuse(f"LiteRT pools over 2 axes, not {len(kernel)}", "pool one pair of axes at a time", "kernel_shape")
    return windows(node, kernel)


def _pool(node: Node, code: str, x: Tensor, axes: list[Window], padding: str, out: Tensor) -> Tensor:
    sizes = {"strideH": axes[0].stride, "strideW": axes[1].stride, "filterHeight": axes[0].kernel, "filterWidth": axes[1].kernel}
    return node.emit(code, [x], out, padding=padding, **sizes)


def _max_by_offsets(node: Node, axes: list[Window]) -> None:
    """The maximum over strided slices, one per element of the kernel: for dilations, and where the places are asked for."""
    lowest = float(np.finfo(node.x.dtype).min) if node.x.dtype.kind == "f" else int(np.iinfo(node.x.dtype).min)
    x = _padded(node, node.x, axes, lowest)
    places = _places(node, axes) if node.has_output(1) else None
    best: Tensor | None = None
    best_place: Tensor | None = None
    for i, (row, column) in enumerate(np.ndindex(axes[0].kernel, axes[1].kernel)):
        part = _taken(node, x, axes, (row, column), f"tap{i}")
        place = None
        if places is not None:
            height, width = (slice(t * w.dilation, None, w.stride) for t, w in zip((row, column), axes, strict=True))
            found = places[:, height, width, :][:, : axes[0].result, : axes[1].result, :]  # type: ignore[misc]
            place = node.const(found, hint=f"place{i}")
        if best is None:
            best, best_place = part, place
            continue
        if places is not None:
            better = node.emit("GREATER", [part, best], node.like(part, f"better{i}", np.bool_))
            best_place = node.emit("SELECT_V2", [better, place, best_place], node.like(part, f"at{i}", np.int64))
        best = node.emit("MAXIMUM", [best, part], node.like(part, f"best{i}"))
    assert best is not None
    node.reshape(best, node.y.shape, out=node.y)
    if best_place is not None:
        node.reshape(best_place, node.y.shape, out=node.outputs[1])


def _places(node: Node, axes: list[Window]) -> np.ndarray:
    """The place of every padded element in the flattened NCHW input, shape (N, H, W, C); -1 in the padding."""
    n, height, width, channels = node.static_shape(node.x)
    order = node.integer("storage_order", 0)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    inside = rows * width + columns if order == 0 else columns * height + rows
    plane = np.arange(n)[:, None] * channels + np.arange(channels)[None, :]
    whole = plane[:, None, None, :] * (height * width) + inside[None, :, :, None]
    pads = [(0, 0), *((w.begin, max(0, w.needed_end)) for w in axes), (0, 0)]
    return np.pad(whole, pads, constant_values=-1).astype(np.int64)


def _average_by_offsets(node: Node, axes: list[Window], counted: bool) -> None:
    """The mean of strided slices, one per element of a dilated kernel."""
    x = _padded(node, node.x, axes, 0.0)
    total: Tensor | None = None
    for i, tap in enumerate(np.ndindex(axes[0].kernel, axes[1].kernel)):
        part = _taken(node, x, axes, tap, f"tap{i}")
        total = part if total is None else node.emit("ADD", [total, part], node.like(part, f"sum{i}"))
    correction = _divisor_correction(node, axes, counted)
    factor = (1.0 if correction is None else correction) / (axes[0].kernel * axes[1].kernel)
    assert total is not None
    node.emit("MUL", [total, node.const(factor, node.y.dtype, "factor")])


def _padded(node: Node, x: Tensor, axes: list[Window], fill: float) -> Tensor:
    return pad(node, x, [(0, 0), *((w.begin, max(0, w.needed_end)) for w in axes), (0, 0)], fill)


def _taken(node: Node, x: Tensor, axes: list[Window], tap: tuple[int, ...], hint: str) -> Tensor:
    """What one element of the kernel sees, for every window."""
    n, _, _, channels = node.static_shape(x)
    begin = [0, *(t * w.dilation for t, w in zip(tap, axes, strict=True)), 0]
    counts = [int(w.result) for w in axes]
    end = [n, *(b + (c - 1) * w.stride + 1 for b, c, w in zip(begin[1:3], counts, axes, strict=True)), channels]
    inputs = [
        x,
        node.ints(begin, f"{hint}_begin"),
        node.ints(end, f"{hint}_end"),
        node.ints([1, *(w.stride for w in axes), 1], "by"),
    ]
    return node.emit("STRIDED_SLICE", inputs, node.temp((n, *counts, channels), hint, x.dtype))


def _explicitly_padded(node: Node, axes: list[Window]) -> tuple[Tensor, str]:
    return pad(node, node.x, [(0, 0), *((w.begin, max(0, w.needed_end)) for w in axes), (0, 0)]), "VALID"


def _divisor_correction(node: Node, axes: list[Window], counted: bool) -> np.ndarray | None:
    """kernel size / elements that count, per position, shape (1, H, W, 1); None where it is 1 everywhere."""
    ratios = []
    for w in axes:
        if isinstance(w.size, str) or isinstance(w.result, str):
            if counted and w.end == w.needed_end:
                ratios.append(np.ones(1))
                continue
            raise node.refuse(
                "padding left out of an average over a dynamic dimension", "fix that dimension with --input", "pads"
            )
        taps = np.arange(w.result)[:, None] * w.stride - w.begin + np.arange(w.kernel)[None, :] * w.dilation
        first, last = (-w.begin, w.size + w.end) if counted else (0, w.size)
        count = ((taps >= first) & (taps < last)).sum(axis=1)
        ratios.append(w.kernel / count)
    correction = (ratios[0][:, None] * ratios[1][None, :]).astype(node.x.dtype)[None, :, :, None]
    return None if np.all(correction == 1) else correction


def _is_non_negative(node: Node, x: Tensor) -> bool:
    """Whether the operator that made a tensor cannot give negative values."""
    for op in reversed(node.graph.operators):
        if x in op.outputs:
            if op.code in ("MAX_POOL_2D", "AVERAGE_POOL_2D", "CONCATENATION", "PAD", "RESHAPE", "TRANSPOSE"):
                return all(
                    _is_non_negative(node, t)
                    for t in op.inputs[: len(op.inputs) if op.code == "CONCATENATION" else 1]
                    if t is not None
                )
            return op.code in NON_NEGATIVE or op.activation in NON_NEGATIVE
    return False
