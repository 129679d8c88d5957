"""LayerNormalization that an exporter spells out becomes the operator.

    d = x - ReduceMean(x),  v = ReduceMean(d·d),  r = 1/Sqrt(v + epsilon)         the mean over the last axes

    1. d / Sqrt(v + epsilon), d · Reciprocal(Sqrt(…))                    →  LayerNormalization(x, 1)
    2. LayerNormalization(x, s) · scale, + shift                         →  LayerNormalization(x, s·scale, shift)
    3. x·(r·scale) + (shift - mean·(r·scale))    (tf2onnx of Keras)       →  LayerNormalization(x, scale, shift)
       the same without shift, and as a difference: x·g - mean·g
    4. d·(r·scale)                                                       →  LayerNormalization(x, scale)

v may also be computed from a second Sub of the same operands. Scale and shift must be constants that broadcast over the
normalized axes alone. A mean over other axes (a channels-first LayerNorm) is LayerNormalization between two Transposes, which
`remove_transposes` then deals with. RMSNormalization exists from opset 23 on, above the hub's 20: it stays spelled out.
Source: ONNX LayerNormalization-17.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit.hub.edit import Editor, array, integers, is_constant, is_float, producer, scalar, shape, sole_consumer, static_shape


@dataclass(frozen=True)
class Deviation:
    """`1 / Sqrt(mean((x - mean)²) + epsilon)`, with the value that holds the mean."""

    x: ir.Value
    mean: ir.Value
    axes: tuple[int, ...]
    epsilon: float


def fuse_quotient(node: ir.Node, edit: Editor) -> bool:
    """Case 1 with Div."""
    root = producer(node.inputs[1], "Sqrt")
    deviation = _deviation_of_root(root)
    if deviation is None or not _is_centered(node.inputs[0], deviation):
        return False
    return _build(node, deviation, None, None, edit)


def fuse_product(node: ir.Node, edit: Editor) -> bool:
    """Cases 1 and 4 with Mul, and the scale of case 2."""
    for left, right in (node.inputs, node.inputs[::-1]):
        found = _scaled_deviation(right)
        if found is not None and _is_centered(left, found[0]):
            return _build(node, found[0], found[1], None, edit)
        norm, scale = _norm(left, node), array(right)
        if norm is not None and scale is not None:
            return _rebuild(node, norm, scale, None, edit)
    return False


def fuse_sum(node: ir.Node, edit: Editor) -> bool:
    """The shift of case 2, and case 3."""
    for left, right in (node.inputs, node.inputs[::-1]):
        norm, shift = _norm(left, node), array(right)
        if norm is not None and shift is not None:
            return _rebuild(node, norm, None, shift, edit)
        if _fuse_affine(node, left, right, edit):
            return True
    return False


def _fuse_affine(node: ir.Node, left: ir.Value | None, right: ir.Value | None, edit: Editor) -> bool:
    """Case 3: left = x·g, right = shift - mean·g, in any of the ways to write the latter."""
    product = producer(left, "Mul")
    if product is None:
        return False
    for x, gain in (product.inputs, product.inputs[::-1]):
        found = _scaled_deviation(gain)
        if found is None or found[0].x is not x or gain is None:
            continue
        shift = _shift_minus_mean(right, found[0].mean, gain)
        if shift is not None:
            return _build(node, found[0], found[1], shift[0], edit)
    return False


def fuse_difference(node: ir.Node, edit: Editor) -> bool:
    """Case 3 without shift, x·g - mean·g."""
    product = producer(node.inputs[0], "Mul")
    for x, gain in (product.inputs, product.inputs[::-1]) if product is not None else ():
        found = _scaled_deviation(gain)
        if found is None or found[0].x is not x or gain is None:
            continue
        if _is_minus_mean(node.inputs[1], found[0].mean, gain, negative=True):
            return _build(node, found[0], found[1], None, edit)
    return False


def _shift_minus_mean(value: ir.Value | None, mean: ir.Value, gain: ir.Value) -> tuple[ir.Value | None] | None:
    """The shift of `shift - mean·gain`, which may be missing; None where the value is something else."""
    if _is_minus_mean(value, mean, gain, negative=False):
        return (None,)
    node = producer(value, "Sub", "Add")
    if node is None:
        return None
    for shift, rest in (node.inputs, node.inputs[::-1]) if node.op_type == "Add" else (node.inputs,):
        if is_constant(shift) and _is_minus_mean(rest, mean, gain, negative=node.op_type == "Sub"):
            return (shift,)
    return None


def _is_minus_mean(value: ir.Value | None, mean: ir.Value, gain: ir.Value, negative: bool) -> bool:
    """Whether a value is -mean·gain (mean·gain where it is subtracted: `negative`), wherever the sign is written."""
    outer = producer(value, "Neg")
    if outer is not None:
        negative, value = not negative, outer.inputs[0]
    product = producer(value, "Mul")
    for one, other in (product.inputs, product.inputs[::-1]) if product is not None else ():
        inner = producer(one, "Neg")
        base, minus = (inner.inputs[0], not negative) if inner is not None else (one, negative)
        if base is mean and _unexpanded(other) is _unexpanded(gain) and minus:
            return True
    return False


def _unexpanded(value: ir.Value | None) -> ir.Value | None:
    expand = producer(value, "Expand")
    return value if expand is None else expand.inputs[0]


def _scaled_deviation(value: ir.Value | None) -> tuple[Deviation, ir.Value | None] | None:
    """`value` as a reciprocal deviation, times a constant scale if there is one."""
    direct = _reciprocal_deviation(_unexpanded(value))
    if direct is not None:
        return direct, None
    product = producer(value, "Mul")
    for one, other in (product.inputs, product.inputs[::-1]) if product is not None else ():
        inner = _reciprocal_deviation(one)
        if inner is not None and is_constant(other):
            return inner, other
    return None


def _reciprocal_deviation(value: ir.Value | None) -> Deviation | None:
    node = producer(value, "Reciprocal", "Div")
    if node is None:
        return None
    if node.op_type == "Div":
        return _deviation_of_root(producer(node.inputs[1], "Sqrt")) if scalar(node.inputs[0]) == 1.0 else None
    return _deviation_of_root(producer(node.inputs[0], "Sqrt"))


def _deviation_of_root(root: ir.Node | None) -> Deviation | None:
    total = producer(root.inputs[0], "Add") if root is not None else None
    for one, other in (total.inputs, total.inputs[::-1]) if total is not None else ():
        epsilon, variance = scalar(other), producer(one, "ReduceMean")
        if epsilon is None or variance is None:
            continue
        square = producer(variance.inputs[0], "Mul")
        centered = producer(square.inputs[0], "Sub") if square is not None and square.inputs[0] is square.inputs[1] else None
        mean = producer(centered.inputs[1], "ReduceMean") if centered is not None else None
        if centered is None or mean is None or mean.inputs[0] is not centered.inputs[0] or centered.inputs[0] is None:
            continue
        axes = _kept_axes(mean)
        if axes is not None and axes == _kept_axes(variance):
            return Deviation(centered.inputs[0], mean.outputs[0], axes, epsilon)
    return None


def _is_centered(value: ir.Value | None, deviation: Deviation) -> bool:
    node = producer(value, "Sub")
    return node is not None and node.inputs[0] is deviation.x and node.inputs[1] is deviation.mean


def _kept_axes(node: ir.Node) -> tuple[int, ...] | None:
    rank = len(shape(node.inputs[0]) or ())
    axes = integers(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    if not rank or axes is None or not node.attributes.get_int("keepdims", 1):
        return None
    return tuple(sorted(axis % rank for axis in axes))


@dataclass(frozen=True)
class Norm:
    """A LayerNormalization with constant scale and shift, and how its result is transposed before it is used."""

    node: ir.Node
    scale: np.ndarray
    shift: np.ndarray | None
    perm: tuple[int, ...]


def _norm(value: ir.Value | None, user: ir.Node) -> Norm | None:
    """The LayerNormalization that makes a value for one user alone, perhaps through a Transpose."""
    rank = len(shape(value) or ())
    transpose, perm = producer(value, "Transpose"), tuple(range(rank))
    if value is None or sole_consumer(value) is not user:
        return None
    if transpose is not None:
        value, perm = transpose.inputs[0], tuple(transpose.attributes.get_ints("perm") or ())
        if value is None or sole_consumer(value) is not transpose or len(perm) != rank:
            return None
    node = producer(value, "LayerNormalization")
    if node is None or len(node.outputs) > 1:
        return None
    scale, shift = (array(constant) for constant in (*node.inputs[1:3], None)[:2])
    if scale is None or (len(node.inputs) > 2 and shift is None):
        return None
    return Norm(node, scale, shift, perm)


def _build(node: ir.Node, deviation: Deviation, scale: ir.Value | None, shift: ir.Value | None, edit: Editor) -> bool:
    x = deviation.x
    dims = shape(x)
    if dims is None or not is_float(x) or x.dtype is None or node.graph is None or shape(node.outputs[0]) != dims:
        return False
    rest = [axis for axis in range(len(dims)) if axis not in deviation.axes]
    order = (*rest, *deviation.axes)  # the normalized axes come last
    suffix = tuple(dims[axis] for axis in deviation.axes)
    if not rest or any(isinstance(dim, str) for dim in suffix):
        return False
    sizes = tuple(int(dim) for dim in suffix)
    back = tuple(int(axis) for axis in np.argsort(order))
    factors = np.ones(sizes, x.dtype.numpy()) if scale is None else _over(array(scale), sizes, back)
    offsets = None if shift is None else _over(array(shift), sizes, back)
    if factors is None or (shift is not None and offsets is None):
        return False
    ahead = x if order == tuple(range(len(dims))) else edit.op("Transpose", [x], {"perm": list(order)}, before=node)
    return _replace(node, ahead, len(rest), deviation.epsilon, factors, offsets, back, edit)


def _rebuild(node: ir.Node, norm: Norm, scale: np.ndarray | None, shift: np.ndarray | None, edit: Editor) -> bool:
    """Multiply a scale, or add a shift, into a LayerNormalization."""
    suffix = norm.scale.shape
    more_scale = np.ones(suffix, norm.scale.dtype) if scale is None else _over(scale, suffix, norm.perm)
    more_shift = None if shift is None else _over(shift, suffix, norm.perm)
    x = norm.node.inputs[0]
    before = norm.node.outputs[0] if norm.perm == tuple(range(len(norm.perm))) else None
    fits = before is None or static_shape(before) is None or shape(node.outputs[0]) == shape(before)
    if more_scale is None or (shift is not None and more_shift is None) or x is None or not fits:
        return False
    offsets = None if norm.shift is None else norm.shift.astype(np.float64) * more_scale
    if more_shift is not None:
        offsets = more_shift + (0 if offsets is None else offsets)
    rank = len(shape(x) or ())
    axis = norm.node.attributes.get_int("axis", -1) % rank  # type: ignore[operator]
    epsilon = norm.node.attributes.get_float("epsilon", 1e-5)
    return _replace(node, x, axis, epsilon, norm.scale.astype(np.float64) * more_scale, offsets, norm.perm, edit)  # type: ignore[arg-type]


def _replace(
    node: ir.Node,
    x: ir.Value,
    axis: int,
    epsilon: float,
    scale: np.ndarray,
    shift: np.ndarray | None,
    perm: tuple[int, ...],
    edit: Editor,
) -> bool:
    assert node.graph is not None
    assert x.dtype is not None
    name, dtype = node.outputs[0].name, x.dtype.numpy()
    inputs: list[ir.Value | None] = [x, edit.constant(scale.astype(dtype), f"{name}_scale", node.graph)]
    if shift is not None:
        inputs.append(edit.constant(shift.astype(dtype), f"{name}_shift", node.graph))
    rank = len(shape(x) or ())
    result = edit.op("LayerNormalization", inputs, {"axis": axis - rank, "epsilon": epsilon}, before=node)
    if perm != tuple(range(rank)):
        result = edit.op("Transpose", [result], {"perm": list(perm)}, before=node)
    return edit.replace(node.outputs[0], result)


def _over(values: np.ndarray | None, suffix: tuple[int, ...], perm: tuple[int, ...]) -> np.ndarray | None:
    """A constant spread over the normalized axes; None where it varies over others.

    The constant meets a value that is held as `perm` of the one whose last axes, of sizes `suffix`, are normalized.
    """
    if values is None or values.ndim > len(perm):
        return None
    values = values.reshape((1,) * (len(perm) - values.ndim) + values.shape).transpose(np.argsort(perm))
    lead = len(perm) - len(suffix)
    if any(size != 1 for size in values.shape[:lead]):
        return None
    try:
        return np.array(np.broadcast_to(values.reshape(values.shape[lead:]), suffix))
    except ValueError:
        return None


RULES = {"Div": [fuse_quotient], "Mul": [fuse_product], "Add": [fuse_sum], "Sub": [fuse_difference]}
