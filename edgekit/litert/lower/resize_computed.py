"""Resize whose sizes are found when the model runs: a kernel that takes them, or gathered neighbours along each axis."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgekit.litert.graph import Dim, Tensor
from edgekit.litert.lower.computed_axes import sizes_of
from edgekit.litert.lower.sample import cubic_weight
from edgekit.litert.lower.steps import Steps
from edgekit.litert.lower.table import Node

KERNELS = {
    ("linear", "half_pixel", ""): ("RESIZE_BILINEAR", False, True),
    ("linear", "align_corners", ""): ("RESIZE_BILINEAR", True, False),
    ("linear", "asymmetric", ""): ("RESIZE_BILINEAR", False, False),
    ("nearest", "half_pixel", "round_prefer_ceil"): ("RESIZE_NEAREST_NEIGHBOR", False, True),
    ("nearest", "align_corners", "round_prefer_ceil"): ("RESIZE_NEAREST_NEIGHBOR", True, False),
    ("nearest", "asymmetric", "floor"): ("RESIZE_NEAREST_NEIGHBOR", False, False),
}
"""(mode, coordinates, nearest_mode) → kernel, alignCorners, halfPixelCenters, where the scale is the ratio of the sizes."""


@dataclass(frozen=True)
class Axis:
    """One axis to resize: its place as held and in the logical order, sizes (int32 scalars), and its scale (float32 scalar) where
    it is not their ratio."""

    held: int
    logical: int
    size: Tensor
    result: Tensor
    scale: Tensor | None


def resize_by_sizes(node: Node) -> None:
    """ONNX Resize-19 but for antialias. Float32 throughout, in the order of onnxruntime."""
    x, f = node.x, Steps(node)
    mode, coordinates = node.string("mode", "nearest"), node.string("coordinate_transformation_mode", "half_pixel")
    if node.integer("antialias", 0):
        raise node.refuse(
            "how many pixels are averaged depends on sizes that are computed", "make the sizes constant", "antialias"
        )
    keeps = node.string("keep_aspect_ratio_policy", "stretch") != "stretch"
    whole = (_has(node, 3) and not keeps) or _whole_scales(node)
    if coordinates == "align_corners" and not whole:
        raise node.refuse(
            "its scales may give no whole sizes, and with align_corners ONNX and onnxruntime then disagree on what it computes",
            "give sizes instead of scales",
            "scales",
        )
    if mode != "nearest" and x.dtype.kind != "f":
        raise node.refuse(f"it interpolates {x.dtype}, to sizes that are computed", "cast it to float32 before", "mode")
    axes = _unless_equal(f, _in_proportion(f, [_axis(f, held, logical) for held, logical in _moved(node)]))
    if not axes:
        node.reshape(x, node.y.shape, out=node.y)
        return
    nearest = node.string("nearest_mode", "round_prefer_floor") if mode == "nearest" else ""
    kernel = KERNELS.get((mode, coordinates, nearest))
    if kernel and whole and x.rank == 4 and all(axis.held in (1, 2) for axis in axes):
        code, align, half = kernel
        found = {axis.held: axis.result for axis in axes}
        sides = [found.get(place) or _number(f, sizes_of(f, x), place) for place in (1, 2)]
        size = node.emit("PACK", sides, f.temp((2,), np.int32), valuesCount=2, axis=0)
        node.emit(code, [x, size], alignCorners=align, halfPixelCenters=half)
        return
    for axis in axes:
        x = _along(f, x, axis, mode, coordinates)
    node.emit("RESHAPE", [x, sizes_of(f, x)])


def _has(node: Node, place: int) -> bool:
    return node.has_input(place) and node.input(place).shape != (0,)


def _whole_scales(node: Node) -> bool:
    scales = node.input(2).data if _has(node, 2) else None
    return scales is not None and bool((scales == np.round(scales)).all())


def _moved(node: Node) -> list[tuple[int, int]]:
    """The axes, held and logical, whose size changes or may change."""
    rank = node.x.rank
    order = (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))
    given = {axis % rank for axis in node.integers("axes", range(rank))}
    crops = node.string("coordinate_transformation_mode") == "tf_crop_and_resize"
    keeps = node.string("keep_aspect_ratio_policy", "stretch") != "stretch"
    scales = node.input(2).data if _has(node, 2) else None
    places = {axis % rank: i for i, axis in enumerate(node.integers("axes", range(rank)))}

    def stays(held: int, logical: int) -> bool:
        if crops:
            return False
        if scales is not None:
            return bool(scales.reshape(-1)[places[logical]] == 1)
        return _has(node, 3) and not keeps and node.x.shape[held] == node.y.shape[held]

    return [(held, logical) for held, logical in enumerate(order) if logical in given and not stays(held, logical)]


def _axis(f: Steps, held: int, logical: int) -> Axis:
    node, rank = f.node, f.node.x.rank
    place = [axis % rank for axis in node.integers("axes", range(rank))].index(logical)
    size = _number(f, sizes_of(f, node.x), held)
    if _has(node, 3):
        result = _number(f, f.cast(node.input(3), np.int32), place)
        return Axis(held, logical, size, result, None)
    scale = _number(f, node.input(2), place)
    return Axis(held, logical, size, f.cast(f.one("FLOOR", f("MUL", f.cast(size, np.float32), scale)), np.int32), scale)


def _in_proportion(f: Steps, axes: list[Axis]) -> list[Axis]:
    """With an aspect ratio to keep, all axes are resized by the smallest or the largest of the ratios asked for."""
    policy = f.node.string("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch" or not _has(f.node, 3) or not axes:
        return axes
    sizes = [f.cast(axis.size, np.float32) for axis in axes]
    ratios = [f("DIV", f.cast(axis.result, np.float32), size) for axis, size in zip(axes, sizes, strict=True)]
    factor = ratios[0]
    for ratio in ratios[1:]:
        factor = f("MINIMUM" if policy == "not_larger" else "MAXIMUM", factor, ratio)
    results = [f.one("FLOOR", f("ADD", f("MUL", factor, size), 0.5)) for size in sizes]
    return [replace(axis, result=f.cast(r, np.int32), scale=factor) for axis, r in zip(axes, results, strict=True)]


def _unless_equal(f: Steps, axes: list[Axis]) -> list[Axis]:
    """Where scales leave all sizes as they are, onnxruntime resizes nothing: the scales are then 1."""
    scales = [axis.scale for axis in axes if axis.scale is not None]
    if not scales:
        return axes
    same = f("EQUAL", axes[0].size, axes[0].result)
    for axis in axes[1:]:
        same = f("LOGICAL_AND", same, f("EQUAL", axis.size, axis.result))
    one = f.constant(1.0)
    return [replace(axis, scale=f.select(same, one, scale)) for axis, scale in zip(axes, scales, strict=True)]


def _number(f: Steps, values: Tensor, place: int) -> Tensor:
    if values.data is not None:
        return f.constant(values.data.reshape(-1)[place], values.dtype)
    return f.node.reshape(f.slice(values, (place,), (1,)), (), f"number{place}")


def _along(f: Steps, x: Tensor, axis: Axis, mode: str, coordinates: str) -> Tensor:
    """Resized along one axis."""
    node, count = f.node, f"{f.node.y.name}_{axis.held}"
    steps = node.emit("RANGE", [f.constant(0, np.int32), axis.result, f.constant(1, np.int32)], f.temp((count,), np.int32))
    at = _places(f, f.cast(steps, np.float32), axis, coordinates)
    last = f.cast(f("SUB", axis.size, 1), np.float32)
    shape: tuple[Dim, ...] = (*x.shape[: axis.held], count, *x.shape[axis.held + 1 :])
    column: tuple[Dim, ...] = (count, *(1,) * (x.rank - axis.held - 1))

    def taken(place: Tensor) -> Tensor:
        index = f.cast(f("MINIMUM", f("MAXIMUM", place, 0.0), last), np.int32)
        return node.emit("GATHER", [x, index], f.temp(shape, x.dtype), axis=axis.held, batchDims=0)

    if mode == "nearest":
        total = taken(_rounded(f, at))
    else:
        low = f.one("FLOOR", at)
        weights = _weights(f, f("SUB", at, low), low, last, mode)
        parts = [
            f("MUL", taken(f("ADD", low, float(offset))), node.reshape(weight, column, f"weight{offset}"))
            for offset, weight in weights.items()
        ]
        total = parts[0]
        for part in parts[1:]:
            total = f("ADD", total, part)
    if coordinates != "tf_crop_and_resize":
        return total
    inside = f("LOGICAL_AND", f("GREATER_EQUAL", at, 0.0), f("LESS_EQUAL", at, last))
    fill = f.constant(node.real("extrapolation_value", 0.0), x.dtype)
    return f.select(node.reshape(inside, column, "inside"), total, fill)


def _places(f: Steps, x: Tensor, axis: Axis, coordinates: str) -> Tensor:
    """Where the results lie in the input."""
    size, result = f.cast(axis.size, np.float32), f.cast(axis.result, np.float32)
    several = f("MAXIMUM", f("SUB", result, 1.0), 1.0)

    def scaled(place: Tensor) -> Tensor:
        return f("DIV", place, axis.scale) if axis.scale is not None else f("DIV", f("MUL", place, size), result)

    if coordinates == "asymmetric":
        return scaled(x)
    if coordinates == "align_corners":
        return f("DIV", f("MUL", x, f("SUB", size, 1.0)), several)
    if coordinates == "tf_crop_and_resize":
        return _in_region(f, x, axis, several)
    centers = scaled(f("ADD", x, 0.5))
    if coordinates == "half_pixel_symmetric" and axis.scale is not None:
        adjustment = f("DIV", result, f("MUL", axis.scale, size))
        centers = f("ADD", centers, f("MUL", f("MUL", size, 0.5), f("SUB", f.constant(1.0), adjustment)))
    found = f("SUB", centers, 0.5)
    if coordinates == "pytorch_half_pixel":
        return f("MUL", found, f.cast(f("GREATER", result, 1.0), np.float32))
    return found


def _in_region(f: Steps, x: Tensor, axis: Axis, several: Tensor) -> Tensor:
    """From the start to the end of the region; a single result lies in its middle."""
    node, rank = f.node, f.node.x.rank
    named = [a % rank for a in node.integers("axes", range(rank))]
    place, roi = named.index(axis.logical), node.input(1)
    start, end = _number(f, roi, place), _number(f, roi, len(named) + place)
    span = f.cast(f("SUB", axis.size, 1), np.float32)
    step = f("DIV", f("MUL", f("SUB", end, start), span), several)
    middle = f("MUL", f("MUL", f("ADD", start, end), 0.5), span)
    begin = f.select(f("GREATER", axis.result, 1), f("MUL", start, span), middle)
    return f("ADD", begin, f("MUL", x, step))


def _rounded(f: Steps, at: Tensor) -> Tensor:
    match f.node.string("nearest_mode", "round_prefer_floor"):
        case "round_prefer_floor":
            return f.one("CEIL", f("SUB", at, 0.5))
        case "round_prefer_ceil":
            return f.one("FLOOR", f("ADD", at, 0.5))
        case "ceil":
            return f.one("CEIL", at)
    return f.one("FLOOR", at)


def _weights(f: Steps, share: Tensor, low: Tensor, last: Tensor, mode: str) -> dict[int, Tensor]:
    """The weight of each neighbour, by its distance from the one below."""
    if mode == "linear":
        found = {0: f("SUB", f.constant(1.0), share), 1: share}
    else:
        found = {i: cubic_weight(f, share, i, f.node.real("cubic_coeff_a", -0.75)) for i in (-1, 0, 1, 2)}
    if not f.node.integer("exclude_outside", 0):
        return found
    total: Tensor | None = None
    for offset, weight in found.items():
        place = f("ADD", low, float(offset))
        inside = f("EQUAL", place, f("MINIMUM", f("MAXIMUM", place, 0.0), last))
        found[offset] = f("MUL", weight, f.cast(inside, np.float32))
        total = found[offset] if total is None else f("ADD", total, found[offset])
    assert total is not None
    return {offset: f("DIV", weight, total) for offset, weight in found.items()}
