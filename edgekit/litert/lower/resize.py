"""Resize on channels-last tensors.

Along each axis, Resize is a matrix of interpolation weights (result × input) that is known at compile time. Where the pair of
matrices is one that a LiteRT kernel applies, that kernel is used; otherwise the matrices are multiplied in, or gathered where
every row has one weight. So every mode of ONNX Resize-19 with constant sizes is exact, and none needs a case of its own.
"""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.table import Node, lowers

NATIVE = [(False, True), (False, False), (True, False)]
"""(alignCorners, halfPixelCenters) of the kernels."""


@lowers("Resize")
def resize(node: Node) -> None:
    size, result = node.static_shape(node.x), node.static_shape(node.y)
    if size == result:
        node.reshape(node.x, result, out=node.y)
        return
    scales = _scales(node, size, result)
    if node.x.rank != 4 or size[0] != result[0] or size[3] != result[3]:
        raise node.refuse(
            f"it resizes {size} to {result}, and LiteRT resizes height and width", "resize the two spatial axes only", "sizes"
        )
    if node.string("coordinate_transformation_mode") == "align_corners" and any(
        abs(s * scale - r) > 1e-4 for s, scale, r in zip(size, scales, result, strict=True)
    ):
        raise node.refuse(
            "its scales give no whole sizes, and with align_corners ONNX and onnxruntime then disagree on what it computes",
            "give sizes instead of scales",
            "scales",
        )
    wanted = [_matrix(node, size[a], result[a], scales[a]) for a in (1, 2)]
    for code, kernel in (("RESIZE_BILINEAR", _bilinear), ("RESIZE_NEAREST_NEIGHBOR", _nearest)):
        for align, half in NATIVE:
            made = [kernel(size[a], result[a], align, half) for a in (1, 2)]
            if all(np.allclose(w, m, atol=1e-6) for w, m in zip(wanted, made, strict=True)):
                target = node.ints(result[1:3], "size")
                node.emit(code, [node.x, target], alignCorners=align, halfPixelCenters=half)
                return
    x = node.x
    for axis, matrix in zip((1, 2), wanted, strict=True):
        if size[axis] != result[axis] or not np.allclose(matrix, np.eye(size[axis])):
            x = _apply(node, x, matrix, axis)
    node.reshape(x, result, out=node.y)


def _scales(node: Node, size: tuple[int, ...], result: tuple[int, ...]) -> list[float]:
    """Per held axis, the scale ONNX computes with: the one given, or the ratio of the sizes."""
    given = node.constant(2)
    if given is None or given.size == 0:
        return [r / s for r, s in zip(result, size, strict=True)]
    logical = dict(zip(node.integers("axes", range(len(given))), given.tolist(), strict=True))
    order = (0, *range(2, len(size)), 1)
    return [logical.get(axis, 1.0) for axis in order]


def _matrix(node: Node, size: int, result: int, scale: float) -> np.ndarray:
    """Interpolation weights along one axis, (result, size), after the ONNX Resize-19 specification."""
    mode, coordinates = node.string("mode", "nearest"), node.string("coordinate_transformation_mode", "half_pixel")
    places = _coordinates(node, coordinates, size, result, scale)
    matrix = np.zeros((result, size))
    rows = np.arange(result)
    if mode == "nearest":
        matrix[rows, np.clip(_rounded(node, places), 0, size - 1).astype(int)] = 1.0
        return matrix
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
    return weights / weights.sum(axis=1, keepdims=True)


def _coordinates(node: Node, mode: str, size: int, result: int, scale: float) -> np.ndarray:
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
    if ((matrix == 0) | (matrix == 1)).all():
        index = node.ints(matrix.argmax(axis=1).tolist(), f"index{axis}")
        return node.emit("GATHER", [x, index], node.temp(shape, f"picked{axis}"), axis=axis, batchDims=0)
    n, h, w, c = node.static_shape(x)
    weights = node.const(matrix.astype(np.float32)[None], hint=f"matrix{axis}")
    flat = node.reshape(x, (n, h, w * c) if axis == 1 else (n * h, w, c), f"flat{axis}")
    batch = n if axis == 1 else n * h
    product = node.temp((batch, len(matrix), flat.shape[2]), f"product{axis}")
    node.emit("BATCH_MATMUL", [weights, flat], product, adjX=False, adjY=False)
    return node.reshape(product, shape, f"resized{axis}")
