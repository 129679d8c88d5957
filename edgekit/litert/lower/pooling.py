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
    if node.has_output(1):
        raise node.refuse("LiteRT's MAX_POOL_2D gives no indices", "remove the use of the pooling's second output", "output 1")
    axes = _axes(node)
    fill = 0.0
    if not all(w.is_valid or w.is_same for w in axes) and not _is_non_negative(node, node.x):
        fill = float(np.finfo(node.x.dtype).min) if node.x.dtype.kind == "f" else int(np.iinfo(node.x.dtype).min)
    if all(w.is_same for w in axes):
        fill = 0.0  # SAME itself ignores what it pads
    x, padding = pad_for(node, axes, fill)
    _pool(node, "MAX_POOL_2D", x, axes, padding, node.y)


@lowers("AveragePool")
def average_pool(node: Node) -> None:
    """LiteRT leaves padding out of the average; ONNX counts it, or not, and never what ceil_mode adds."""
    axes = _axes(node)
    counted = node.integer("count_include_pad", 0) == 1
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
    axes = windows(node, kernel)
    if any(w.dilation != 1 for w in axes):
        raise node.refuse("LiteRT's pooling has no dilation", "use a pooling without dilations", "dilations")
    return axes


def _pool(node: Node, code: str, x: Tensor, axes: list[Window], padding: str, out: Tensor) -> Tensor:
    sizes = {"strideH": axes[0].stride, "strideW": axes[1].stride, "filterHeight": axes[0].kernel, "filterWidth": axes[1].kernel}
    return node.emit(code, [x], out, padding=padding, **sizes)


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
        starts = np.arange(w.result) * w.stride - w.begin
        first, last = (-w.begin, w.size + w.end) if counted else (0, w.size)
        count = np.minimum(starts + w.kernel, last) - np.maximum(starts, first)
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
