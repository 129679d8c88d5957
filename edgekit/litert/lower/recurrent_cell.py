"""What a cell of an LSTM, GRU or RNN does in one step (ONNX versions 7 to 22), with the input already projected.

Names are those of the ONNX specification: gates i, o, f (input, output, forget) and z, r (update, reset); R the recurrent
weights, P the peepholes, Rb the recurrent bias.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.litert.graph import Dim, Tensor
from edgekit.litert.lower.table import Node

State = tuple[Tensor | None, ...]
"""h, and c of an LSTM; `[batch, hidden]`. None is zero: its product is not computed."""

GROUPS = {"LSTM": ((0, 4),), "GRU": ((0, 2), (2, 3)), "RNN": ((0, 1),)}
"""The gates that are projected together, as first and last. Those of a GRU's candidate apart: the state enters it otherwise."""


@dataclass(frozen=True)
class Activation:
    """An ONNX activation by its name in lower case."""

    name: str
    alpha: float
    beta: float


@dataclass(frozen=True)
class Cell:
    """One direction of a layer.

    Args:
        kind: `LSTM`, `GRU` or `RNN`.
        functions: f, g, h of an LSTM, f, g of a GRU, f of an RNN.
        clip: Bound on the gates before their activation, 0 for none. What h takes of an LSTM, c', stays unbounded: ONNX leaves
            that open, and onnxruntime does so.
        late_reset: GRU: the reset gate multiplies h·R' + Rb instead of h.
        coupled: LSTM: the forget gate is 1 - i.
        weights: `R0`, `R1` by group of gates, `Rb` (late_reset), `Pi`, `Po`, `Pf`; constants, or computed in the graph that the
            step is emitted to.
    """

    kind: str
    hidden: int
    batch: Dim
    functions: tuple[Activation, ...]
    clip: float
    late_reset: bool
    coupled: bool
    weights: dict[str, Tensor]

    def step(self, node: Node, x: Sequence[Tensor], state: State, hint: str) -> tuple[Tensor, ...]:
        """Emit one step.

        Args:
            x: What the input contributes, `[batch, gates · hidden]` per group.
            state: Before the step.

        Returns:
            The state after it.
        """
        emitter = _Emitter(node, self, hint)
        if self.kind == "LSTM":
            return _lstm(emitter, x[0], *state)
        if self.kind == "GRU":
            return (_gru(emitter, x[0], x[1], *state),)
        return (emitter.activated(0, emitter.plus_recurrent(x[0], *state, group=0), "h"),)


def _lstm(e: _Emitter, x: Tensor, h: Tensor | None, c: Tensor | None) -> tuple[Tensor, Tensor]:
    """i, o, f = f(x + h·R' + P ⊙ c), c' = f ⊙ c + i ⊙ g(x + h·R'), h' = o ⊙ h(c'); the output gate's peephole sees c'."""
    gates = e.gates(e.plus_recurrent(x, h, group=0), "iog" if c is None or e.cell.coupled else "iofg", "iofg")
    i = e.activated(0, e.plus_peephole(gates["i"], "Pi", c), "i")
    new = e.binary("MUL", i, e.activated(1, gates["g"], "g"), "new")
    if c is not None:
        forget = (
            e.activated(0, e.plus_peephole(gates["f"], "Pf", c), "f") if "f" in gates else e.binary("SUB", e.scalar(1), i, "f")
        )
        new = e.binary("ADD", e.binary("MUL", forget, c, "kept"), new, "c")
    o = e.activated(0, e.plus_peephole(gates["o"], "Po", new), "o")
    return e.binary("MUL", o, e.function(2, new, "c_out"), "h"), new


def _gru(e: _Emitter, x: Tensor, x_new: Tensor, h: Tensor | None) -> Tensor:
    """z, r = f(x + h·R'), n = g(x + (r ⊙ h)·R') or g(x + r ⊙ (h·R' + Rb)), h' = n + z ⊙ (h - n)."""
    # What the reset gate multiplies: the state, or what is made of it.
    bias = e.cell.weights.get("Rb")
    reset = h if not e.cell.late_reset else bias if h is None else e.product(h, 1, bias)
    gates = e.gates(e.activated(0, e.plus_recurrent(x, h, group=0), "zr"), "z" if reset is None else "zr", "zr")
    z, total = gates["z"], x_new
    if reset is not None:
        kept = e.binary("MUL", gates["r"], reset, "reset")
        total = e.binary("ADD", x_new, kept, "candidate") if e.cell.late_reset else e.plus_recurrent(x_new, kept, group=1)
    new = e.activated(1, total, "new")
    if h is None:
        return e.binary("SUB", new, e.binary("MUL", z, new, "less"), "h")
    return e.binary("ADD", new, e.binary("MUL", z, e.binary("SUB", h, new, "difference"), "more"), "h")


@dataclass(frozen=True)
class _Emitter:
    """Appends the operators of one step, whose tensors are named after `hint`."""

    node: Node
    cell: Cell
    hint: str

    def plus_recurrent(self, x: Tensor, h: Tensor | None, *, group: int) -> Tensor:
        return x if h is None else self.binary("ADD", self.product(h, group, None), x, f"total{group}")

    def product(self, h: Tensor, group: int, bias: Tensor | None) -> Tensor:
        first, last = GROUPS[self.cell.kind][group]
        out = self.temp((last - first) * self.cell.hidden, f"product{group}")
        return self.node.emit("FULLY_CONNECTED", [h, self.cell.weights[f"R{group}"], bias], out)

    def plus_peephole(self, gate: Tensor, weights: str, c: Tensor | None) -> Tensor:
        if weights not in self.cell.weights or c is None:
            return gate
        seen = self.binary("MUL", c, self.cell.weights[weights], f"{weights}/seen")
        return self.binary("ADD", gate, seen, f"{weights}/total")

    def gates(self, tensor: Tensor, wanted: str, given: str) -> dict[str, Tensor]:
        """Those of the gates that lie side by side that are wanted. No part is made that nobody takes: calibration reads all."""
        hidden = self.cell.hidden
        parts = {gate: self.temp(hidden, f"gate_{gate}") for gate in wanted}
        if wanted == given:
            axis = self.node.const(1, np.int32, f"{self.hint}/axis")
            self.node.emit("SPLIT", [axis, tensor], list(parts.values()), numSplits=len(parts))
        else:
            for gate, part in parts.items():
                begin = self.node.ints([0, given.index(gate) * hidden], f"{self.hint}/{gate}_begin")
                self.node.emit("SLICE", [tensor, begin, self.node.ints([-1, hidden], f"{self.hint}/{gate}_size")], part)
        return parts

    def activated(self, which: int, x: Tensor, hint: str) -> Tensor:
        if self.cell.clip > 0:
            x = self.binary("MAXIMUM", x, self.scalar(-self.cell.clip), f"{hint}/raised")
            x = self.binary("MINIMUM", x, self.scalar(self.cell.clip), f"{hint}/clipped")
        return self.function(which, x, hint)

    def function(self, which: int, x: Tensor, hint: str) -> Tensor:
        function = self.cell.functions[which]
        return ACTIVATIONS[function.name](self, x, function, f"{hint}/{function.name}")

    def unary(self, code: str, x: Tensor, hint: str, **options: float) -> Tensor:
        return self.node.emit(code, [x], self.node.like(x, f"{self.hint}/{hint}"), **options)

    def binary(self, code: str, a: Tensor, b: Tensor, hint: str) -> Tensor:
        """Of two tensors of which one has the shape of the result."""
        shape = max(a.shape, b.shape, key=len)
        return self.node.emit(code, [a, b], self.node.temp(shape, f"{self.hint}/{hint}", a.dtype))

    def scalar(self, value: float) -> Tensor:
        return self.node.const(value, np.float32, f"{self.hint}/scalar")

    def temp(self, width: int, hint: str) -> Tensor:
        return self.node.temp((self.cell.batch, width), f"{self.hint}/{hint}")


def _affine(e: _Emitter, x: Tensor, f: Activation, hint: str) -> Tensor:
    return e.binary("ADD", e.binary("MUL", x, e.scalar(f.alpha), f"{hint}/scaled"), e.scalar(f.beta), hint)


def _hard_sigmoid(e: _Emitter, x: Tensor, f: Activation, hint: str) -> Tensor:
    line = _affine(e, x, f, f"{hint}/line")
    return e.binary("MINIMUM", e.unary("RELU", line, f"{hint}/raised"), e.scalar(1), hint)


def _elu(e: _Emitter, x: Tensor, f: Activation, hint: str) -> Tensor:
    if f.alpha != 1:
        raise e.node.refuse("Elu of another alpha than 1", "use alpha 1", "activation_alpha")
    return e.unary("ELU", x, hint)


def _scaled_tanh(e: _Emitter, x: Tensor, f: Activation, hint: str) -> Tensor:
    inner = e.unary("TANH", e.binary("MUL", x, e.scalar(f.beta), f"{hint}/inner"), f"{hint}/tanh")
    return e.binary("MUL", inner, e.scalar(f.alpha), hint)


def _softsign(e: _Emitter, x: Tensor, f: Activation, hint: str) -> Tensor:
    size = e.binary("ADD", e.unary("ABS", x, f"{hint}/size"), e.scalar(1), f"{hint}/above")
    return e.binary("DIV", x, size, hint)


def _softplus(e: _Emitter, x: Tensor, f: Activation, hint: str) -> Tensor:
    """max(x, 0) + log(1 + exp(-|x|)), which does not overflow."""
    small = e.unary("EXP", e.unary("NEG", e.unary("ABS", x, f"{hint}/size"), f"{hint}/below"), f"{hint}/exp")
    curve = e.unary("LOG", e.binary("ADD", small, e.scalar(1), f"{hint}/above"), f"{hint}/log")
    return e.binary("ADD", e.unary("RELU", x, f"{hint}/line"), curve, hint)


ACTIVATIONS: dict[str, Callable[[_Emitter, Tensor, Activation, str], Tensor]] = {
    "affine": _affine,
    "elu": _elu,
    "hardsigmoid": _hard_sigmoid,
    "leakyrelu": lambda e, x, f, hint: e.unary("LEAKY_RELU", x, hint, alpha=f.alpha),
    "relu": lambda e, x, f, hint: e.unary("RELU", x, hint),
    "scaledtanh": _scaled_tanh,
    "sigmoid": lambda e, x, f, hint: e.unary("LOGISTIC", x, hint),
    "softplus": _softplus,
    "softsign": _softsign,
    "tanh": lambda e, x, f, hint: e.unary("TANH", x, hint),
}
"""By ONNX name in lower case; each receives the emitter, its operand, its parameters and a hint for names."""
