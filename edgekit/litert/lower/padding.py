"""Explicit ONNX paddings in a runtime that knows SAME and VALID."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.table import Node


@dataclass(frozen=True)
class Window:
    """One spatial axis of a convolution or pooling: sizes in elements."""

    size: int | str
    result: int | str
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int

    @property
    def reach(self) -> int:
        """How many elements the dilated kernel spans."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def needed_end(self) -> int:
        """How much padding the last window really touches (negative: the input has elements left over)."""
        if isinstance(self.size, str) or isinstance(self.result, str):
            return self.end
        return (self.result - 1) * self.stride + self.reach - self.size - self.begin

    @property
    def is_valid(self) -> bool:
        return self.begin == 0 and self.needed_end <= 0

    @property
    def is_same(self) -> bool:
        """Whether LiteRT's SAME pads just so: ceil(size / stride) results, the odd element of padding at the end."""
        if isinstance(self.size, str) or isinstance(self.result, str):
            return self.stride == 1 and self.begin + self.end == self.reach - 1 and self.begin == (self.reach - 1) // 2
        if self.result != -(-self.size // self.stride):
            return False
        return self.begin == max(0, (self.result - 1) * self.stride + self.reach - self.size) // 2


def windows(node: Node, kernel: Sequence[int]) -> list[Window]:
    """The spatial axes of a channels-last node, from its ONNX attributes (kernel sizes given)."""
    n = len(kernel)
    x, y = node.x, node.outputs[0]
    strides, dilations = node.integers("strides", (1,) * n), node.integers("dilations", (1,) * n)
    pads = node.integers("pads", (0,) * 2 * n)
    auto = node.string("auto_pad", "NOTSET") or "NOTSET"
    made = []
    for i in range(n):
        size, result = x.shape[1 + i], y.shape[1 + i]
        if isinstance(result, int) and result < 1:
            raise node.refuse(f"its kernel does not fit in {size} elements", "use a smaller kernel or dilation", "kernel_shape")
        begin, end = pads[i], pads[n + i]
        if auto == "VALID":
            begin = end = 0
        elif auto in ("SAME_UPPER", "SAME_LOWER"):
            if isinstance(size, str) or isinstance(result, str):
                total = (kernel[i] - 1) * dilations[i]
                if strides[i] != 1:
                    raise node.refuse(
                        "auto_pad with a stride on a dynamic dimension", "fix that dimension with --input", "auto_pad"
                    )
            else:
                total = max(0, (result - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - size)
            begin = total // 2 if auto == "SAME_UPPER" else total - total // 2
            end = total - begin
        made.append(Window(size, result, kernel[i], strides[i], dilations[i], begin, end))
    return made


def pad_for(node: Node, axes: Sequence[Window], fill: float = 0.0, *, keep_end: bool = False) -> tuple[Tensor, str]:
    """The input padded as needed, and the padding to write in the operator.

    `keep_end` pads as given even where the last window does not reach.
    """
    x = node.x
    if all(w.is_valid for w in axes):
        return x, "VALID"
    if all(w.is_same for w in axes) and fill == 0.0 and not keep_end:
        return x, "SAME"
    ends = [w.end if keep_end else max(0, w.needed_end) for w in axes]
    pads = [(0, 0), *((w.begin, end) for w, end in zip(axes, ends, strict=True)), (0, 0)]
    return pad(node, x, pads, fill), "VALID"


def pad(node: Node, x: Tensor, pads: Sequence[tuple[int, int]], fill: float = 0.0, out: Tensor | None = None) -> Tensor:
    """A constant padding before and after each axis."""
    if not any(before or after for before, after in pads) and out is None:
        return x
    shape = [d + before + after if isinstance(d, int) else d for d, (before, after) in zip(x.shape, pads, strict=True)]
    amounts = node.const(np.array(pads, np.int32), hint="paddings")
    padded = out or node.temp(shape, "padded", x.dtype)
    if fill == 0 and x.dtype not in (np.int8, np.uint8):  # there PAD fills with the zero point, where the integers have one
        return node.emit("PAD", [x, amounts], padded)
    return node.emit("PADV2", [x, amounts, node.const(fill, x.dtype, "fill")], padded)
