"""Bitwise operators from the two that LiteRT has: BITWISE_XOR and RIGHT_SHIFT, on up to 32 bits."""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Dim, Tensor
from edgekit.litert.lower.table import Node, lowers


@lowers("BitwiseXor")
def bitwise_xor(node: Node) -> None:
    left, right = _in_parts(node, node.x), _in_parts(node, node.input(1))
    _whole(node, node.emit("BITWISE_XOR", [left, right], _result(node, left.dtype)))


@lowers("BitwiseNot")
def bitwise_not(node: Node) -> None:
    x = _in_parts(node, node.x)
    ones = node.const(np.iinfo(x.dtype).max if x.dtype.kind == "u" else -1, x.dtype, "ones")
    _whole(node, node.emit("BITWISE_XOR", [x, ones], _result(node, x.dtype)))


@lowers("BitwiseAnd", "BitwiseOr")
def bitwise_and_or(node: Node) -> None:
    """a + b = (a ^ b) + 2 (a & b), in int32, where 16 bits cannot overflow; wider ones are taken in halves."""
    left, right = _in_parts(node, node.x), _in_parts(node, node.input(1))
    dtype = left.dtype
    left, right = (_as_int32(node, t, f"{side}32") for t, side in ((left, "left"), (right, "right")))
    shape = _result(node, np.dtype(np.int32)).shape
    narrow = dtype.itemsize < 4
    found = _small(node, left, right, shape, "low") if narrow else _in_halves(node, left, right, shape)
    if found.dtype != dtype:
        code = "CAST" if narrow else "BITCAST"
        options = {"inDataType": found.dtype, "outDataType": dtype} if narrow else {}
        found = node.emit(code, [found], _result(node, dtype), **options)
    _whole(node, found)


@lowers("BitShift")
def bit_shift(node: Node) -> None:
    """To the right RIGHT_SHIFT; to the left a product with a power of two, which wraps as a shift does.

    ONNX: a negative amount, or one beyond the width, shifts everything out (kernels leave that undefined).
    """
    x, by = node.x, node.input(1)
    width = 8 * x.dtype.itemsize
    if node.string("direction") == "RIGHT":
        if width == 64:
            raise node.refuse("LiteRT shifts up to 32 bits to the right", "use uint32 in the model", "direction")
        _shift_right(node, x, by, width)
        return
    powers = np.append((np.uint64(1) << np.arange(width, dtype=np.uint64)).astype(x.dtype), np.zeros(1, x.dtype))
    if by.data is not None:
        factor = node.const(powers[np.where(_too_far(by.data, width), width, by.data).astype(np.int64)], hint="factor")
    else:
        places = _limited(node, by, width, width)
        factor = node.emit("GATHER", [node.const(powers, hint="powers"), places], node.like(by, "factor"), axis=0, batchDims=0)
    node.emit("MUL", [x, factor])


def _shift_right(node: Node, x: Tensor, by: Tensor, width: int) -> None:
    """A signed number shifted all the way leaves its sign, which is a shift by width - 1; an unsigned one takes one more."""
    if by.data is not None:
        beyond = _too_far(by.data, width)
        near = node.const(np.where(beyond, width - 1, by.data), x.dtype, "near")
        last = node.const(beyond, x.dtype, "last") if x.dtype.kind == "u" and beyond.any() else None
    else:
        limited = _limited(node, by, width, width - 1)
        near = node.emit("CAST", [limited], node.like(by, "near"), inDataType=limited.dtype, outDataType=x.dtype)
        last = None
        if x.dtype.kind == "u":
            far = node.emit("GREATER", [by, node.const(width - 1, by.dtype, "top")], node.like(by, "far", np.bool_))
            last = node.emit("CAST", [far], node.like(by, "last"), inDataType=far.dtype, outDataType=x.dtype)
    if last is None:
        node.emit("RIGHT_SHIFT", [x, near])
    else:
        node.emit("RIGHT_SHIFT", [node.emit("RIGHT_SHIFT", [x, near], node.like(node.y, "almost")), last])


def _too_far(amount: np.ndarray, width: int) -> np.ndarray:
    return (amount.astype(np.float64) < 0) | (amount.astype(np.float64) >= width)


def _limited(node: Node, by: Tensor, width: int, beyond: int) -> Tensor:
    """The amount as int32, with `beyond` for one that shifts everything out."""
    options = {"inDataType": by.dtype, "outDataType": np.dtype(np.int32)}
    amount = by if by.dtype == np.int32 else node.emit("CAST", [by], node.like(by, "amount", np.int32), **options)
    top = node.const(width, np.int32, "width")
    # As FLOOR_MOD of the width leaves what is inside unchanged, a difference shows what is not.
    wrapped = node.emit("FLOOR_MOD", [amount, top], node.like(amount, "wrapped"))
    inside = node.emit("EQUAL", [amount, wrapped], node.like(amount, "inside", np.bool_))
    return node.emit("SELECT_V2", [inside, amount, node.const(beyond, np.int32, "beyond")], node.like(amount, "limited"))


def _in_halves(node: Node, left: Tensor, right: Tensor, shape: tuple[Dim, ...]) -> Tensor:
    """Both halves of 32 bits, put together again."""
    parts = {}
    for name, x in (("left", left), ("right", right)):
        high = node.emit("RIGHT_SHIFT", [x, node.const(16, np.int32, "sixteen")], node.like(x, f"{name}_high"))
        lifted = node.emit("MUL", [high, node.const(65536, np.int32, "scale")], node.like(x, f"{name}_lifted"))
        parts[name] = high, node.emit("SUB", [x, lifted], node.like(x, f"{name}_low"))
    highs, lows = (_small(node, parts["left"][i], parts["right"][i], shape, name) for i, name in enumerate(("high", "low")))
    lifted = node.emit("MUL", [highs, node.const(65536, np.int32, "scale")], node.temp(shape, "lifted", np.int32))
    return node.emit("ADD", [lifted, lows], node.temp(shape, "both", np.int32))


def _small(node: Node, left: Tensor, right: Tensor, shape: tuple[Dim, ...], hint: str) -> Tensor:
    """And or Or of values whose sum fits int32."""

    def step(code: str, a: Tensor, b: Tensor, name: str) -> Tensor:
        return node.emit(code, [a, b], node.temp(shape, f"{hint}_{name}", np.int32))

    total, differ = step("ADD", left, right, "sum"), step("BITWISE_XOR", left, right, "xor")
    both = step("RIGHT_SHIFT", step("SUB", total, differ, "twice"), node.const(1, np.int32, "one"), "and")
    return both if node.op_type == "BitwiseAnd" else step("ADD", both, differ, "or")


def _as_int32(node: Node, x: Tensor, hint: str) -> Tensor:
    if x.dtype == np.int32:
        return x
    code = "BITCAST" if x.dtype == np.uint32 else "CAST"
    if x.data is not None:
        return node.const(x.data.view(np.int32) if code == "BITCAST" else x.data, np.int32, hint)
    options = {"inDataType": x.dtype, "outDataType": np.dtype(np.int32)} if code == "CAST" else {}
    return node.emit(code, [x], node.like(x, hint, np.int32), **options)


def _in_parts(node: Node, x: Tensor) -> Tensor:
    """64 bits as two int32 along a new last axis."""
    if x.dtype.itemsize < 8:
        return x
    if x.data is not None:
        return node.const(np.ascontiguousarray(x.data).reshape(*x.data.shape, 1).view(np.int32), hint="parts")
    return node.emit("BITCAST", [x], node.temp((*x.shape, 2), f"{x.name}/parts", np.int32))


def _result(node: Node, dtype: np.dtype) -> Tensor:
    if node.y.dtype.itemsize < 8:
        return node.y if dtype == node.y.dtype else node.temp(node.y.shape, "bits", dtype)
    return node.temp((*node.y.shape, 2), "parts", dtype)


def _whole(node: Node, found: Tensor) -> None:
    if found is not node.y:
        node.emit("BITCAST", [found])


@lowers("BitCast")
def bit_cast(node: Node) -> None:
    if node.x.dtype.itemsize != node.y.dtype.itemsize:
        raise node.refuse("it changes the size of elements", "use BitCast between types of one size", "to")
    if node.x.dtype == node.y.dtype:
        node.reshape(node.x, node.y.shape, out=node.y)
        return
    node.emit("BITCAST", [node.x])
