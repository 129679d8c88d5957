"""Div. LiteRT divides float32 and int32; integers of 32 and 64 bits without a sign are divided in steps."""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.bitwise import shift_right
from edgekit.litert.lower.steps import Steps
from edgekit.litert.lower.table import Node, lowers

ROUNDS = 4
"""Each leaves less than 2^-19 of a quotient (and one more): four of them nothing of 63 bits but perhaps one."""


@lowers("Div")
def divide(node: Node) -> None:
    """Integers are rounded towards zero."""
    if node.y.dtype in (np.uint32, np.uint64):
        _without_sign(node)
    else:
        node.emit("DIV", [node.x, node.input(1)])


def _without_sign(node: Node) -> None:
    """Half of the dividend has no sign bit; of twice its quotient, at most one is missing.

    A divisor with the highest bit goes once or not at all. (H. S. Warren, Hacker's Delight, 9-3: unsigned from signed division.)
    """
    f, signed = Steps(node), np.dtype(f"i{node.y.dtype.itemsize}")
    x, y = (f.bits(t, signed) for t in (node.x, node.input(1)))
    half = f.bits(shift_right(f, node.x, f.constant(1, node.x.dtype)), signed)
    large = f("LESS", y, 0)
    divisor = f.select(large, f.constant(1, signed), y)
    quotient = f("DIV", half, divisor) if signed.itemsize == 4 else _divide_wide(f, half, divisor)
    twice = f.select(large, f.constant(0, signed), f("ADD", quotient, quotient))
    rest = f("SUB", x, f("MUL", twice, y))
    lowest = int(np.iinfo(signed).min)  # added, it turns the order of bits into the order of numbers
    missing = f.cast(f("GREATER_EQUAL", f("ADD", rest, lowest), f("ADD", y, lowest)), signed)
    node.emit("BITCAST", [f("ADD", twice, missing)])


def _divide_wide(f: Steps, x: Tensor, y: Tensor) -> Tensor:
    """int64, not negative: float32 gives the first bits of what is left of the quotient, and never too many."""
    below = 1 - 2.0**-20  # more than three roundings of 2^-24
    quotient, rest, divisor = f.constant(0, np.int64), x, f.cast(y, np.float32)
    for _ in range(ROUNDS):
        about = f("MUL", f("DIV", f.cast(rest, np.float32), divisor), below)
        part = f.cast(about, np.int64)
        quotient = f("ADD", part, quotient)
        rest = f("SUB", rest, f("MUL", part, y))
    return f("ADD", quotient, f.cast(f("GREATER_EQUAL", rest, y), np.int64))
