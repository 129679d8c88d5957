"""GridSample on channels-last tensors: a few gathered neighbours of every sampled point, weighted and summed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from edgekit.litert.graph import Dim, Tensor
from edgekit.litert.lower.steps import Steps
from edgekit.litert.lower.table import Node, lowers

PIXELS = "pixels"
"""A value of the attribute `coordinates`, which is ours: the grid has places in pixels, in the order of the spatial axes."""


@dataclass(frozen=True)
class Tap:
    """One neighbour along one axis, for every point: its place as a float, and its weight (None for 1)."""

    place: Tensor
    weight: Tensor | None


@lowers("GridSample")
def grid_sample(node: Node) -> None:
    """ONNX GridSample-22 over two or three spatial axes, every mode and padding."""
    x, grid = node.x, node.input(1)
    size, points = node.static_shape(x), node.static_shape(grid)
    spatial, mode = size[1:-1], node.string("mode", "linear")
    if mode == "cubic" and len(spatial) != 2:
        raise node.refuse("ONNX defines cubic sampling for images only", "use mode linear", "mode")
    steps = _Steps(node, (*points[:-1], 1))
    axes = []
    in_pixels = node.string("coordinates") == PIXELS
    for axis, length in enumerate(spatial):
        given = steps.coordinate(grid, axis if in_pixels else len(spatial) - 1 - axis)  # ONNX's grid has x before y
        axes.append(_taps(steps, given, length, mode))
    flat = node.reshape(x, (size[0] * int(np.prod(spatial)), size[-1]), "pixels")
    batch = node.const(
        np.arange(size[0], dtype=np.int32).reshape(-1, *(1,) * len(points[1:])) * int(np.prod(spatial)), hint="batch"
    )
    parts: list[Tensor] = []
    for taps in itertools.product(*axes):
        rows, weight = _row(steps, taps, spatial, batch)
        color = node.emit(
            "GATHER", [flat, rows], node.temp((*points[:-1], size[-1]), f"color{len(parts)}", x.dtype), axis=0, batchDims=0
        )
        if weight is not None:
            color = node.emit("MUL", [color, weight], node.like(color, f"weighted{len(parts)}"))
        parts.append(color)
    total = parts[0]
    for i, part in enumerate(parts[1:], 1):
        total = node.emit("ADD", [total, part], node.like(part, f"sum{i}"))
    node.reshape(total, node.y.shape, out=node.y)


def _taps(f: _Steps, given: Tensor, length: int, mode: str) -> list[Tap]:
    """The neighbours along one axis of a coordinate in [-1, 1]."""
    node = f.node
    aligned, padding = bool(node.integer("align_corners", 0)), node.string("padding_mode", "zeros")
    scale, shift = ((length - 1) / 2, (length - 1) / 2) if aligned else (length / 2, (length - 1) / 2)
    place = given if node.string("coordinates") == PIXELS else f("ADD", f("MUL", given, scale), shift)
    if mode == "nearest":
        place = _inside(f, place, length, padding, aligned) if padding == "reflection" else place
        return [_bounded(f, f.one("ROUND", place), None, length, padding, aligned)]
    if mode == "linear":
        place = _inside(f, place, length, padding, aligned)
        low = f.one("FLOOR", place)
        share = f("SUB", place, low)
        rest = f("SUB", f.constant(1.0), share)
        pairs = [(low, rest), (f("ADD", low, 1.0), share)]
        return [_bounded(f, at, weight, length, "border" if padding != "zeros" else padding, aligned) for at, weight in pairs]
    low = f.one("FLOOR", place)
    share = f("SUB", place, low)
    found = []
    for offset in (-1, 0, 1, 2):
        at = f("ADD", low, float(offset)) if offset else low
        found.append(_bounded(f, at, cubic_weight(f, share, offset), length, padding, aligned))
    return found


def cubic_weight(f: Steps, share: Tensor, offset: int, a: float = -0.75) -> Tensor:
    """The cubic convolution kernel at the distance between the point and its neighbour."""
    if offset in (0, 1):
        t = share if offset == 0 else f("SUB", f.constant(1.0), share)
        return f("ADD", f("MUL", f("MUL", f("SUB", f("MUL", t, a + 2), a + 3), t), t), 1.0)
    t = f("ADD", share, 1.0) if offset == -1 else f("SUB", f.constant(2.0), share)
    inner = f("ADD", f("MUL", f("SUB", f("MUL", t, a), 5 * a), t), 8 * a)
    return f("SUB", f("MUL", inner, t), 4 * a)


def _inside(f: _Steps, place: Tensor, length: int, padding: str, aligned: bool) -> Tensor:
    """A coordinate brought into the image, where the padding does so."""
    if padding == "border":
        return f.clip(place, length)
    if padding != "reflection":
        return place
    low, span = (0.0, length - 1.0) if aligned else (-0.5, float(length))
    if span == 0:
        return f("MUL", place, 0.0)
    # A triangle wave of period 2 span: it goes up to the far edge and comes back.
    from_low = f.one("ABS", f("SUB", place, low))
    wave = f("FLOOR_MOD", from_low, 2 * span)
    back = f.one("ABS", f("SUB", wave, span))
    return f.clip(f("SUB", f.constant(span + low), back), length)


def _bounded(f: _Steps, place: Tensor, weight: Tensor | None, length: int, padding: str, aligned: bool) -> Tap:
    """A neighbour whose place is a pixel: brought into the image, and of weight 0 where it was outside of a zero padding."""
    if padding == "reflection":
        return Tap(_inside(f, place, length, padding, aligned), weight)
    within = f.clip(place, length)
    if padding == "border":
        return Tap(within, weight)
    is_inside = f.as_float("EQUAL", place, within)
    return Tap(within, is_inside if weight is None else f("MUL", weight, is_inside))


def _row(f: _Steps, taps: tuple[Tap, ...], spatial: tuple[int, ...], batch: Tensor) -> tuple[Tensor, Tensor | None]:
    """Which pixel of the flattened batch a combination of neighbours is, and the product of their weights."""
    at, weight = taps[0].place, taps[0].weight
    for tap, length in zip(taps[1:], spatial[1:], strict=True):
        at = f("ADD", f("MUL", at, float(length)), tap.place)
        if tap.weight is not None:
            weight = tap.weight if weight is None else f("MUL", weight, tap.weight)
    pixel = f.cast(at, np.int32)
    return f.node.reshape(f("ADD", pixel, batch), f.shape[:-1], "rows"), weight


class _Steps(Steps):
    """Steps on one value per sampled point."""

    def __init__(self, node: Node, shape: tuple[Dim, ...]) -> None:
        super().__init__(node)
        self.shape = shape

    def clip(self, x: Tensor, length: int) -> Tensor:
        return self("MINIMUM", self("MAXIMUM", x, 0.0), length - 1.0)

    def coordinate(self, grid: Tensor, i: int) -> Tensor:
        """The i-th coordinate of every point."""
        return self.slice(grid, [0] * (grid.rank - 1) + [i], self.shape)

    def as_float(self, code: str, left: Tensor, right: Tensor) -> Tensor:
        """A comparison as 0 and 1."""
        return self.cast(self(code, left, right), np.float32)
