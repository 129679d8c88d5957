"""Bitwise operators from the two that LiteRT has: BITWISE_XOR and RIGHT_SHIFT, on up to 32 bits."""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Dim, Tensor
from edgekit.litert.lower.steps import Steps
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
        shift_right(Steps(node), x, by, node.y)
        return
    powers = np.append((np.uint64(1) << np.arange(width, dtype=np.uint64)).astype(x.dtype), np.zeros(1, x.dtype))
    if by.data is not None:
        factor = node.const(powers[np.where(_too_far(by.data, width), width, by.data).astype(np.int64)], hint="factor")
    else:
        places = _limited(Steps(node), by, width, width)
        factor = node.emit("GATHER", [node.const(powers, hint="powers"), places], node.like(by, "factor"), axis=0, batchDims=0)
    node.emit("MUL", [x, factor])


def shift_right(f: Steps, x: Tensor, by: Tensor, out: Tensor | None = None) -> Tensor:
    """A signed number shifted all the way leaves its sign, which is a shift by width - 1; an unsigned one takes one more."""
    width, last = 8 * x.dtype.itemsize, None
    if width == 64:
        return _shift_wide(f, x, by, out)
    if by.data is not None:
        beyond = _too_far(by.data, width)
        near = f.constant(np.where(beyond, width - 1, by.data), x.dtype)
        last = f.constant(beyond, x.dtype) if x.dtype.kind == "u" and beyond.any() else None
    else:
        limited = _limited(f, by, width, width - 1)
        near = f.cast(limited, x.dtype)
        if x.dtype.kind == "u":
            last = f.cast(f("GREATER", by, width - 1), x.dtype)
    if last is None:
        return f("RIGHT_SHIFT", x, near, out)
    return f("RIGHT_SHIFT", f("RIGHT_SHIFT", x, near), last, out)


def _shift_wide(f: Steps, x: Tensor, by: Tensor, out: Tensor | None) -> Tensor:
    """64 bits in halves of int32: below 32, the low half takes what the high one loses; from 32 on, it is the high one."""
    node, signed = f.node, x.dtype.kind == "i"
    far = 63 if signed else 64
    powers = (np.int64(1) << np.arange(32, 0, -1)).astype(np.uint32).view(np.int32)
    if by.data is not None:
        known = np.where(_too_far(by.data, 64), far, by.data).astype(np.int32)[..., None]
        within, lifts = f.constant(known % 32, np.int32), f.constant(powers[known % 32], np.int32)
        turns, gone = f.constant(known >= 32, np.bool_), f.constant(known == 64, np.bool_)
    else:
        places = node.reshape(_limited(f, by, 64, far), (*by.shape, 1), "places")
        within, turns, gone = f("FLOOR_MOD", places, 32), f("GREATER_EQUAL", places, 32), f("EQUAL", places, 64)
        table, lifts = f.constant(powers, np.int32), f.temp(within.shape, np.int32)
        node.emit("GATHER", [table, within], lifts, axis=0, batchDims=0)
    parts = _in_parts(node, x)
    low, high = (f.slice(parts, [0] * x.rank + [i], (*x.shape, 1)) for i in range(2))

    def shifted(half: Tensor) -> Tensor:
        bits = np.dtype(np.uint32)
        return f.bits(f("RIGHT_SHIFT", f.bits(half, bits), f.bits(within, bits)), np.int32)

    joined = f("ADD", shifted(low), f("MUL", high, lifts))
    moved = f("RIGHT_SHIFT", high, within) if signed else shifted(high)
    empty = f("RIGHT_SHIFT", high, 31) if signed else f.constant(0, np.int32)
    halves = [f.select(turns, moved, joined), f.select(turns, empty, moved)]
    if not signed:
        halves = [f.select(gone, f.constant(0, np.int32), half) for half in halves]
    whole = node.emit("CONCATENATION", halves, f.temp((*halves[0].shape[:-1], 2), np.int32), axis=len(halves[0].shape) - 1)
    return node.emit("BITCAST", [whole], out or f.temp(whole.shape[:-1], x.dtype))


def _too_far(amount: np.ndarray, width: int) -> np.ndarray:
    return (amount.astype(np.float64) < 0) | (amount.astype(np.float64) >= width)


def _limited(f: Steps, by: Tensor, width: int, beyond: int) -> Tensor:
    """The amount as int32, with `beyond` for one that shifts everything out."""
    amount = f.bits(by, np.int64) if by.dtype.itemsize == 8 else f.cast(by, np.int32)
    # As FLOOR_MOD of the width leaves what is inside unchanged, a difference shows what is not.
    inside = f("EQUAL", amount, f("FLOOR_MOD", amount, width))
    return f.cast(f.select(inside, amount, beyond), np.int32)


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
