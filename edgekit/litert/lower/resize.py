"""Resize on channels-last tensors.

Along each axis, Resize is a matrix of interpolation weights (result × input) that is known at compile time. Where the pair of
matrices is one that a LiteRT kernel applies, that kernel is used; otherwise the matrices are multiplied in, or gathered where
every row has one weight. So every mode of ONNX Resize-19 with constant sizes is exact, and none needs a case of its own. Sizes
that are found when the model runs are those of `resize_computed`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.resize_computed import resize_by_sizes
from edgekit.litert.lower.table import Node, lowers

NATIVE = [(False, True), (False, False), (True, False)]
"""(alignCorners, halfPixelCenters) of the kernels."""


@lowers("Resize")
def resize(node: Node) -> None:
    crops = node.string("coordinate_transformation_mode") == "tf_crop_and_resize"
    used = [node.input(i) for i in ((1, 2, 3) if crops else (2, 3)) if node.has_input(i)]
    if any(t.data is None for t in used) or not (node.x.is_static and node.y.is_static):
        resize_by_sizes(node)
        return
    size, result = node.static_shape(node.x), node.static_shape(node.y)
    mode = node.string("coordinate_transformation_mode", "half_pixel")
    if size == result and mode != "tf_crop_and_resize":
        node.reshape(node.x, result, out=node.y)
        return
    scales = _scales(node, size, result)
    if mode == "align_corners" and any(abs(s * scale - r) > 1e-4 for s, scale, r in zip(size, scales, result, strict=True)):
        raise node.refuse(
            "its scales give no whole sizes, and with align_corners ONNX and onnxruntime then disagree on what it computes",
            "give sizes instead of scales",
            "scales",
        )
    regions = _regions(node, len(size)) if mode == "tf_crop_and_resize" else [(0.0, 1.0)] * len(size)
    wanted = [_matrix(node, *numbers) for numbers in zip(size, result, scales, regions, strict=True)]
    moved = [axis for axis in range(len(size)) if size[axis] != result[axis] or not np.allclose(wanted[axis], np.eye(size[axis]))]
    if _by_kernel(node, size, result, wanted, moved):
        return
    x = node.x
    for axis in moved:
        x = _apply(node, x, wanted[axis], axis)
    outside = _outside(wanted)
    fill = node.real("extrapolation_value", 0.0)
    if fill and outside.any():
        x = node.emit("ADD", [x, node.const(fill * outside, x.dtype, "extrapolated")], node.like(x, "filled"))
    node.reshape(x, result, out=node.y)


def _by_kernel(node: Node, size: tuple[int, ...], result: tuple[int, ...], wanted: list[np.ndarray], moved: list[int]) -> bool:
    """Write one of LiteRT's own resizes where it has just these weights: images, and signals as images of height 1."""
    rank = len(size)
    if rank not in (3, 4) or any(axis in (0, rank - 1) for axis in moved):
        return False
    spatial = range(1, rank - 1)
    for code, kernel in (("RESIZE_BILINEAR", _bilinear), ("RESIZE_NEAREST_NEIGHBOR", _nearest)):
        for align, half in NATIVE:
            made = [kernel(size[a], result[a], align, half) for a in spatial]
            if not all(np.allclose(wanted[a], m, atol=1e-6) for a, m in zip(spatial, made, strict=True)):
                continue
            options: dict[str, Any] = {"alignCorners": align, "halfPixelCenters": half}
            if rank == 4:
                node.emit(code, [node.x, node.ints(result[1:3], "size")], **options)
                return True
            image = node.reshape(node.x, (size[0], 1, *size[1:]), "image")
            resized = node.temp((result[0], 1, *result[1:]), "resized", node.x.dtype)
            node.emit(code, [image, node.ints((1, result[1]), "size")], resized, **options)
            node.reshape(resized, result, out=node.y)
            return True
    return False


def _regions(node: Node, rank: int) -> list[tuple[float, float]]:
    """Per held axis, the start and end of the region of interest, as shares of the axis."""
    roi = node.constant(1)
    if roi is None:
        raise node.refuse("its region of interest is missing", "the model is not valid ONNX: export it again", "roi")
    axes = node.integers("axes", range(rank))
    count = len(axes)
    logical = {axis % rank: (float(roi[i]), float(roi[count + i])) for i, axis in enumerate(axes)}
    return [logical.get(axis, (0.0, 1.0)) for axis in (0, *range(2, rank), 1)]


def _outside(wanted: list[np.ndarray]) -> np.ndarray:
    """1 for every result element that lies outside of the input along any axis: its row of weights is empty."""
    covered = np.ones(())
    for matrix in wanted:
        covered = covered[..., None] * (np.abs(matrix).sum(axis=1) > 0)
    return 1.0 - covered


def _scales(node: Node, size: tuple[int, ...], result: tuple[int, ...]) -> list[float]:
    """Per held axis, the scale ONNX computes with: the one given, or the ratio of the sizes; with an aspect ratio to keep, the
    smallest or the largest of the ratios that were asked for."""
    given, asked = node.constant(2), node.constant(3)
    order = (0, *range(2, len(size)), 1)
    policy = node.string("keep_aspect_ratio_policy", "stretch")
    if given is None or given.size == 0:
        if policy == "stretch" or asked is None:
            return [r / s for r, s in zip(result, size, strict=True)]
        axes = [axis % len(size) for axis in node.integers("axes", range(len(asked)))]
        ratios = [int(sides) / size[order.index(axis)] for axis, sides in zip(axes, asked, strict=True)]
        factor = min(ratios) if policy == "not_larger" else max(ratios)
        return [factor if axis in axes else 1.0 for axis in order]
    logical = dict(zip(node.integers("axes", range(len(given))), given.tolist(), strict=True))
    return [logical.get(axis, 1.0) for axis in order]


def _matrix(node: Node, size: int, result: int, scale: float, region: tuple[float, float]) -> np.ndarray:
    """Interpolation weights along one axis, (result, size), after the ONNX Resize-19 specification.

    A row of zeros is a place outside of the input, which only tf_crop_and_resize leaves.
    """
    if size == result and scale == 1 and region == (0.0, 1.0):
        return np.eye(size)
    mode, coordinates = node.string("mode", "nearest"), node.string("coordinate_transformation_mode", "half_pixel")
    places = _coordinates(node, coordinates, size, result, scale, region)
    covered = (places >= 0) & (places <= size - 1) if coordinates == "tf_crop_and_resize" else np.ones(result, bool)
    matrix = np.zeros((result, size))
    rows = np.arange(result)
    if mode == "nearest":
        matrix[rows, np.clip(_rounded(node, places), 0, size - 1).astype(int)] = 1.0
        return matrix * covered[:, None]
    antialias = node.integer("antialias", 0) and scale < 1
    stretch = scale if antialias else 1.0
    reach = 2 if mode == "cubic" else 1
    a = node.real("cubic_coeff_a", -0.75)
    taps = int(np.ceil(reach / stretch))
    first = np.floor(places).astype(int)
    weights = np.zeros((result, size))
    for tap in range(-taps + 1, taps + 1):
        index = first + tap
        distance = np.abs((places - index) * stretch)
        weight = _cubic(distance, a) if mode == "cubic" else np.maximum(0.0, 1.0 - distance)
        inside = (index >= 0) & (index < size)
        if node.integer("exclude_outside", 0):
            weight = np.where(inside, weight, 0.0)
        np.add.at(weights, (rows, np.clip(index, 0, size - 1)), weight)
    return weights / weights.sum(axis=1, keepdims=True) * covered[:, None]


def _coordinates(node: Node, mode: str, size: int, result: int, scale: float, region: tuple[float, float]) -> np.ndarray:
    x = np.arange(result, dtype=np.float64)
    match mode:
        case "half_pixel":
            return (x + 0.5) / scale - 0.5
        case "half_pixel_symmetric":
            adjustment = result / (scale * size)
            return size / 2 * (1 - adjustment) + (x + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (x + 0.5) / scale - 0.5 if result > 1 else np.zeros(1)
        case "align_corners":
            return x * (size - 1) / (result - 1) if result > 1 else np.zeros(1)
        case "asymmetric":
            return x / scale
        case "tf_crop_and_resize":
            start, end = region
            step = (end - start) * (size - 1) / (result - 1) if result > 1 else 0.0
            return start * (size - 1) + x * step if result > 1 else np.full(1, 0.5 * (start + end) * (size - 1))
    raise node.refuse(
        f"its coordinates are {mode!r}", "use half_pixel, align_corners or asymmetric", "coordinate_transformation_mode"
    )


def _rounded(node: Node, places: np.ndarray) -> np.ndarray:
    match node.string("nearest_mode", "round_prefer_floor"):
        case "round_prefer_floor":
            return np.ceil(places - 0.5)
        case "round_prefer_ceil":
            return np.floor(places + 0.5)
        case "floor":
            return np.floor(places)
        case "ceil":
            return np.ceil(places)
    raise node.refuse("its nearest_mode is unknown", "use round_prefer_floor, round_prefer_ceil, floor or ceil", "nearest_mode")


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _bilinear(size: int, result: int, align: bool, half: bool) -> np.ndarray:
    """What RESIZE_BILINEAR does (tensorflow/lite/kernels/internal/reference/resize_bilinear.h)."""
    scale = (size - 1) / (result - 1) if align and result > 1 else size / result
    x = np.arange(result, dtype=np.float64)
    places = (x + 0.5) * scale - 0.5 if half else x * scale
    low = np.maximum(np.floor(places), 0).astype(int)
    high = np.minimum(np.ceil(places), size - 1).astype(int)
    share = np.clip(places - low, 0.0, 1.0)
    share = np.where(places < 0, 0.0, share)
    matrix = np.zeros((result, size))
    np.add.at(matrix, (np.arange(result), np.minimum(low, size - 1)), 1 - share)
    np.add.at(matrix, (np.arange(result), np.maximum(high, 0)), share)
    return matrix


def _nearest(size: int, result: int, align: bool, half: bool) -> np.ndarray:
    """What RESIZE_NEAREST_NEIGHBOR does (tensorflow/lite/kernels/internal/reference/resize_nearest_neighbor.h)."""
    scale = np.float32((size - 1) / (result - 1) if align and result > 1 else size / result)
    places = (np.arange(result, dtype=np.float32) + np.float32(0.5 if half else 0.0)) * scale
    index = np.floor(places + np.float32(0.5)) if align else np.floor(places)
    matrix = np.zeros((result, size))
    matrix[np.arange(result), np.clip(index.astype(int), 0, size - 1)] = 1.0
    return matrix


def _apply(node: Node, x: Tensor, matrix: np.ndarray, axis: int) -> Tensor:
    """Multiply a matrix in along one axis: a gather where it only picks, otherwise a product with the axis in place."""
    shape = list(node.static_shape(x))
    shape[axis] = len(matrix)
    if ((matrix == 0) | (matrix == 1)).all() and (matrix.sum(axis=1) == 1).all():
        index = node.ints(matrix.argmax(axis=1).tolist(), f"index{axis}")
        return node.emit("GATHER", [x, index], node.temp(shape, f"picked{axis}", x.dtype), axis=axis, batchDims=0)
    size = node.static_shape(x)
    outer, inner = int(np.prod(size[:axis])), int(np.prod(size[axis + 1 :]))
    weights = node.const(matrix.astype(np.float32)[None], hint=f"matrix{axis}")
    flat = node.reshape(x, (outer, size[axis], inner), f"flat{axis}")
    product = node.temp((outer, len(matrix), inner), f"product{axis}")
    node.emit("BATCH_MATMUL", [weights, flat], product, adjX=False, adjY=False)
    return node.reshape(product, shape, f"resized{axis}")
