"""Trigonometric and hyperbolic functions, from SIN, COS, ATAN2, EXP, LOG and ELU (which is exp(x) - 1 below zero)."""

from __future__ import annotations

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.table import Node, lowers


@lowers("Tan")
def tan(node: Node) -> None:
    f = _Steps(node)
    node.emit("DIV", [f.one("SIN", node.x), f.one("COS", node.x)])


@lowers("Asin")
def asin(node: Node) -> None:
    """atan2(x, √((1 - x)(1 + x)))."""
    node.emit("ATAN2", [node.x, _other_side(node)])


@lowers("Acos")
def acos(node: Node) -> None:
    """atan2(√((1 - x)(1 + x)), x)."""
    node.emit("ATAN2", [_other_side(node), node.x])


@lowers("Atan")
def atan(node: Node) -> None:
    f = _Steps(node)
    node.emit("ATAN2", [node.x, f("ADD", f.one("ZEROS_LIKE", node.x), 1.0)])


@lowers("Sinh")
def sinh(node: Node) -> None:
    """With e = exp(-|x|) - 1, which keeps small x: sinh|x| = -e (2 + e) exp|x| / 2."""
    f, x = _Steps(node), node.x
    size = f.one("ABS", x)
    below = f.one("ELU", f.one("NEG", size))
    product = f("MUL", f("MUL", f("ADD", below, 2.0), below), -0.5)
    node.emit("MUL", [f("MUL", product, f.one("EXP", size)), f.one("SIGN", x)])


@lowers("Cosh")
def cosh(node: Node) -> None:
    f, x = _Steps(node), node.x
    total = f("ADD", f.one("EXP", x), f.one("EXP", f.one("NEG", x)))
    node.emit("MUL", [total, node.const(0.5, x.dtype, "half")])


@lowers("Asinh")
def asinh(node: Node) -> None:
    """sign(x) log(1 + |x| + x² / (1 + √(x² + 1)))."""
    f, x = _Steps(node), node.x
    size, square = f.one("ABS", x), f("MUL", x, x)
    more = f("DIV", square, f("ADD", f.one("SQRT", f("ADD", square, 1.0)), 1.0))
    node.emit("MUL", [_log_one_plus(f, f("ADD", size, more)), f.one("SIGN", x)])


@lowers("Acosh")
def acosh(node: Node) -> None:
    """log(1 + t + √(t (t + 2))) with t = x - 1."""
    f = _Steps(node)
    t = f("SUB", node.x, 1.0)
    root = f.one("SQRT", f("MUL", t, f("ADD", t, 2.0)))
    _log_one_plus(f, f("ADD", t, root), node.y)


@lowers("Atanh")
def atanh(node: Node) -> None:
    """log(1 + 2x / (1 - x)) / 2."""
    f, x = _Steps(node), node.x
    below = f("SUB", f.constant(1.0), x)
    ratio = f("DIV", f("ADD", x, x), below)
    node.emit("MUL", [_log_one_plus(f, ratio), node.const(0.5, x.dtype, "half")])


def _other_side(node: Node) -> Tensor:
    """√(1 - x²), exact near ±1."""
    f, x = _Steps(node), node.x
    return f.one("SQRT", f("MUL", f("SUB", f.constant(1.0), x), f("ADD", x, 1.0)))


def _log_one_plus(f: _Steps, u: Tensor, out: Tensor | None = None) -> Tensor:
    """log(1 + u) for small u as well: u log(w) / (w - 1) with w = 1 + u as it was rounded, and u where w is 1."""
    w = f("ADD", u, 1.0)
    rest = f("SUB", w, 1.0)
    ratio = f("DIV", f("MUL", u, f.one("LOG", w)), rest)
    lost = f.compare("EQUAL", rest, 0.0)
    return f.node.emit("SELECT_V2", [lost, u, ratio], out or f.temp())


class _Steps:
    """Emits a chain of elementwise operators on tensors of the node's shape."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._count = 0

    def __call__(self, code: str, left: Tensor, right: Tensor | float) -> Tensor:
        other = right if isinstance(right, Tensor) else self.constant(right)
        return self.node.emit(code, [left, other], self.temp())

    def one(self, code: str, x: Tensor) -> Tensor:
        return self.node.emit(code, [x], self.temp())

    def compare(self, code: str, left: Tensor, right: float) -> Tensor:
        return self.node.emit(code, [left, self.constant(right)], self.temp(bool))

    def constant(self, value: float) -> Tensor:
        self._count += 1
        return self.node.const(value, self.node.x.dtype, f"c{self._count}")

    def temp(self, dtype: type | None = None) -> Tensor:
        self._count += 1
        return self.node.like(self.node.x, f"step{self._count}", dtype)
