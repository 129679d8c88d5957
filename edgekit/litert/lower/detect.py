"""NonMaxSuppression: LiteRT's kernel works on one class of one image, so there is one for each, and their boxes are joined."""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.steps import Steps
from edgekit.litert.lower.table import Node, lowers

MOST_KERNELS = 512


@lowers("NonMaxSuppression")
def non_max_suppression(node: Node) -> None:
    """Rows (image, class, box), sorted by image, class and descending score. How many there are depends on the data.

    A limit that is computed cuts what the kernel finds without one: it finds the best first.
    """
    boxes, scores = node.x, node.input(1)
    images, classes, count = node.static_shape(scores)
    if images * classes > MOST_KERNELS:
        raise node.refuse(
            f"{images} images of {classes} classes would take as many operators",
            f"suppress at most {MOST_KERNELS} classes, or take the best class of each box first",
            "scores",
        )
    limit = node.input(2) if node.has_input(2) else node.const(0, np.int64, "none")
    if limit.data is not None and not int(limit.data.reshape(-1)[0]):
        node.reshape(node.const(np.zeros((0, 3), np.int64), hint="none"), (0, 3), out=node.y)
        return
    most = count if limit.data is None else min(count, int(limit.data.reshape(-1)[0]))
    size = node.const(most, np.int32, "most")
    limited = None if limit.data is not None else _at_most(node, limit, count)
    thresholds = [_above(node, _threshold(node, 3, 0.0, "iou")), _threshold(node, 4, float(np.finfo(np.float32).min), "score")]
    corners = _corners(node, boxes, images, count)
    order = node.const(np.arange(most, dtype=np.int32), hint="order")
    rows, kept = [], []
    for image in range(images):
        own = _part(node, corners, (image, 0, 0), (1, count, 4), (count, 4), f"boxes{image}")
        for label in range(classes):
            name = f"{image}_{label}"
            mine = _part(node, scores, (image, label, 0), (1, 1, count), (count,), f"scores{name}")
            chosen = node.temp((most,), f"chosen{name}", np.int32)
            valid = node.temp((), f"valid{name}", np.int32)
            node.emit("NON_MAX_SUPPRESSION_V4", [own, mine, size, *thresholds], [chosen, valid])
            if limited is not None:
                valid = node.emit("MINIMUM", [valid, limited], node.temp((), f"within{name}", np.int32))
            kept.append(node.emit("LESS", [order, valid], node.temp((most,), f"kept{name}", np.bool_)))
            prefix = node.const(np.tile(np.array([image, label], np.int32), (most, 1)), hint=f"prefix{name}")
            column = node.reshape(chosen, (most, 1), f"column{name}")
            rows.append(node.emit("CONCATENATION", [prefix, column], node.temp((most, 3), f"rows{name}", np.int32), axis=1))
    total = most * len(rows)
    table = node.emit("CONCATENATION", rows, node.temp((total, 3), "table", np.int32), axis=0) if len(rows) > 1 else rows[0]
    mask = node.emit("CONCATENATION", kept, node.temp((total,), "mask", np.bool_), axis=0) if len(kept) > 1 else kept[0]
    found = node.y.shape[0]
    places = node.emit("WHERE", [mask], node.temp((found, 1), "places", np.int64))
    selected = node.emit("GATHER_ND", [table, places], node.temp((found, 3), "selected", np.int32))
    node.emit("CAST", [selected], inDataType=selected.dtype, outDataType=node.y.dtype)


def _at_most(node: Node, limit: Tensor, count: int) -> Tensor:
    """The limit as an int32 scalar; it may be larger than any int32 where all boxes are wanted."""
    f = Steps(node)
    return f.cast(node.reshape(f("MINIMUM", limit, count), (), "limit"), np.int32)


def _threshold(node: Node, i: int, default: float, hint: str) -> Tensor:
    if not node.has_input(i):
        return node.const(default, np.float32, hint)
    return node.reshape(node.input(i), (), hint)


def _above(node: Node, threshold: Tensor) -> Tensor:
    """The next larger number: the kernel suppresses an overlap that equals the threshold, ONNX only a larger one."""
    if threshold.data is not None:
        return node.const(np.nextafter(threshold.data.astype(np.float32), np.float32(np.inf)), np.float32, "iou_above")
    return node.emit("MUL", [threshold, node.const(1 + 2**-23, np.float32, "step")], node.temp((), "iou_above", np.float32))


def _corners(node: Node, boxes: Tensor, images: int, count: int) -> Tensor:
    """Boxes as (y1, x1, y2, x2) with the lower corner first, which is what the kernel expects."""
    shape = (images, count, 2)

    def half(first: int, hint: str) -> Tensor:
        inputs = [boxes, node.ints([0, 0, first], f"{hint}_begin"), node.ints(shape, "half")]
        return node.emit("SLICE", inputs, node.temp(shape, hint, np.float32))

    def step(code: str, a: Tensor, b: Tensor, hint: str) -> Tensor:
        return node.emit(code, [a, b], node.temp(shape, hint, np.float32))

    first, second = half(0, "first"), half(2, "second")
    if node.integer("center_point_box", 0):  # (x, y, width, height)
        reach = step("MUL", second, node.const(0.5, np.float32, "a_half"), "reach")
        low, high = step("SUB", first, reach, "low_xy"), step("ADD", first, reach, "high_xy")
    else:
        low, high = step("MINIMUM", first, second, "low"), step("MAXIMUM", first, second, "high")
    joined = node.temp((images, count, 4), "corners", np.float32)
    return node.emit("CONCATENATION", [low, high], joined, axis=2)


def _part(node: Node, x: Tensor, begin: tuple[int, ...], size: tuple[int, ...], shape: tuple[int, ...], hint: str) -> Tensor:
    if x.shape == size:
        return node.reshape(x, shape, hint)
    cut = node.emit(
        "SLICE", [x, node.ints(begin, f"{hint}_begin"), node.ints(size, f"{hint}_size")], node.temp(size, f"{hint}_cut", x.dtype)
    )
    return node.reshape(cut, shape, hint)
