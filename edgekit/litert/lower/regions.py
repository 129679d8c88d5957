"""RoiAlign on channels-last tensors: the samples of all boxes are gathered at once, weighted, and pooled."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.steps import Steps
from edgekit.litert.lower.table import Node, lowers


@dataclass(frozen=True)
class Neighbour:
    """One of the two pixels around each sample of each box along one axis: place (int32) and weight, (boxes, samples)."""

    place: Tensor
    weight: Tensor


@lowers("RoiAlign")
def roi_align(node: Node) -> None:
    """ONNX RoiAlign-22. The largest of a bin is taken over the weighted pixels, as ONNX's reference and onnxruntime do."""
    x, boxes, images = node.x, node.input(1), node.input(2)
    count, height, width, channels = node.static_shape(x)
    rows, columns = node.integer("output_height", 1), node.integer("output_width", 1)
    samples, largest = node.integer("sampling_ratio", 0), node.string("mode", "avg") == "max"
    if samples < 1:
        raise node.refuse(
            "with sampling_ratio 0 each box has as many samples as its size asks for",
            "export the model with a fixed sampling ratio (2 is common)",
            "sampling_ratio",
        )
    f, number = Steps(node), boxes.shape[0]
    down = _neighbours(f, boxes, 1, height, rows, samples)
    across = _neighbours(f, boxes, 0, width, columns, samples)
    first = f("MUL", node.reshape(f.cast(images, np.int32), (number, 1, 1), "images"), height * width)
    pixels = node.reshape(x, (count * height * width, channels), "pixels")
    shape = (number, rows * samples, columns * samples)
    total: Tensor | None = None
    for low, right in itertools.product(down, across):
        line = f("ADD", f("MUL", node.reshape(low.place, (number, shape[1], 1), "lines"), width), first)
        at = f("ADD", line, node.reshape(right.place, (number, 1, shape[2]), "columns"))
        weight = f(
            "MUL",
            node.reshape(low.weight, (number, shape[1], 1, 1), "down"),
            node.reshape(right.weight, (number, 1, shape[2], 1), "across"),
        )
        found = node.emit("GATHER", [pixels, at], f.temp((*shape, channels), x.dtype), axis=0, batchDims=0)
        part = f("MUL", found, weight)
        total = part if total is None else f("MAXIMUM" if largest else "ADD", total, part)
    assert total is not None
    if samples == 1:
        node.reshape(total, node.y.shape, out=node.y)
        return
    sizes: dict[str, Any] = {"strideH": samples, "strideW": samples, "filterHeight": samples, "filterWidth": samples}
    node.emit("MAX_POOL_2D" if largest else "AVERAGE_POOL_2D", [total], padding="VALID", **sizes)


def _neighbours(f: Steps, boxes: Tensor, column: int, length: int, bins: int, samples: int) -> list[Neighbour]:
    """Along one axis, in the order of operations of ONNX's reference: a sample on the border is on the same side of it."""
    node = f.node
    half = node.string("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    ends = []
    for corner in (column, column + 2):
        end = f("MUL", f.slice(boxes, (0, corner), (boxes.shape[0], 1)), node.real("spatial_scale", 1.0))
        ends.append(f("SUB", end, 0.5) if half else end)
    start, size = ends[0], f("SUB", ends[1], ends[0])
    step = f("DIV", size if half else f("MAXIMUM", size, 1.0), float(bins))
    bin_ = f.constant(np.repeat(np.arange(bins), samples)[None])
    within = f.constant(np.tile(np.arange(samples) + 0.5, bins)[None])
    place = f("ADD", f("ADD", start, f("MUL", step, bin_)), f("DIV", f("MUL", step, within), float(samples)))
    near = f("MINIMUM", f("MAXIMUM", place, -1.0), float(length))
    counts = f.cast(f("EQUAL", place, near), np.float32)  # further out there is nothing
    inside = f("MINIMUM", f("MAXIMUM", place, 0.0), length - 1.0)
    low = f.one("FLOOR", inside)
    share = f("SUB", inside, low)
    high = f("MINIMUM", f("ADD", low, 1.0), length - 1.0)
    return [
        Neighbour(f.cast(low, np.int32), f("MUL", f("SUB", f.constant(1.0), share), counts)),
        Neighbour(f.cast(high, np.int32), f("MUL", share, counts)),
    ]
