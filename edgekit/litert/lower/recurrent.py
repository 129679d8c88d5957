"""LSTM, GRU and RNN layers: the cell of edgekit.litert.lower.recurrent_cell along a sequence.

What does not depend on the state, X·W' + bias of all steps, is one FULLY_CONNECTED in front of the recurrence. A short sequence
is unrolled; a longer one is a WHILE whose body does a few steps, so that the steps share what an iteration costs (the kernel
copies the loop variables that change). A reverse direction counts down: nothing is reversed.

UNIDIRECTIONAL_SEQUENCE_LSTM is not used: its states are variable tensors that the kernel neither clears nor takes from an operand
(tensorflow/lite/kernels/unidirectional_sequence_lstm.cc), so a second run of one interpreter goes on where the first ended. For
LSTM(64) over 50 steps that was wrong by a quarter, and took 1.6 times as long as what is written here (ai-edge-litert 2.3.0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekit.litert.graph import Dim, Tensor
from edgekit.litert.lower.control import start_at, while_loop
from edgekit.litert.lower.recurrent_cell import ACTIVATIONS, GROUPS, Activation, Cell, State
from edgekit.litert.lower.table import Node, lowers

CHUNK = 4
CHUNK_BYTES = 1 << 19
"""Steps per iteration of a WHILE, and the bytes of recurrent weights that they may take together.

More steps share the iteration's cost, but XNNPACK keeps a packed copy of the weights for each, and these have to stay in the
cache. Best on x86-64 with 1 MiB of it, over 12 to 128 steps: 4 for up to 64 units (twice as fast as 1 for 16), 3 for 96, 2 for
128, 1 for 192 and more.
"""

UNROLLED_STEPS = 32
UNROLLED_BYTES = 1 << 20
"""Up to where a sequence is unrolled: its steps, and the bytes of the recurrent weights times its steps. Beyond, a WHILE was as
fast or faster (half the time for 256 units and 32 steps) and the file is smaller."""

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
ALPHAS = {"affine": 1.0, "elu": 1.0, "hardsigmoid": 0.2, "leakyrelu": 0.01, "scaledtanh": 1.0}
BETAS = {"affine": 0.0, "hardsigmoid": 0.5, "scaledtanh": 1.0}
"""The parameters that an activation has, with their defaults (onnxruntime's, where ONNX gives none)."""


@lowers("LSTM", "GRU", "RNN")
def recurrent(node: Node) -> None:
    """Y `[steps, directions, batch, hidden]`, Y_h and Y_c `[directions, batch, hidden]`; with layout 1 the batch is in front."""
    directions = DIRECTIONS[node.string("direction", "forward")]
    if node.x.dtype != np.float32:
        raise node.refuse(f"it computes in {node.x.dtype}", "convert the model to float32", "X")
    time = node.integer("layout")
    steps, batch = node.x.shape[time], node.x.shape[1 - time]
    if not isinstance(steps, int):
        raise node.refuse("the length of its sequence is dynamic", "fix it with --input NAME=SHAPE", "X")
    mask = _mask(node, time, steps, batch)
    functions = _functions(node, len(directions))
    sequences: list[Tensor] = []
    finals: list[tuple[Tensor, ...]] = []
    for d, backwards in enumerate(directions):
        layer = _Direction(_cell(node, d, functions[d], batch), time, backwards, node.has_output(0), mask is not None, str(d))
        given = [*_projected(node, d, steps, layer), *([mask] if mask is not None else [])]
        initial = _initial_state(node, d, layer)
        sequence, state = _run(node, layer, given, steps, initial)
        sequences += [sequence] if sequence is not None else []
        finals.append(_zero_where_empty(node, initial, state, layer))
    if sequences:
        _stack(node, sequences, time + 1, node.y)
    for i in range(len(finals[0])):
        if node.has_output(1 + i):
            _stack(node, [state[i] for state in finals], time, node.outputs[1 + i])


@dataclass(frozen=True)
class _Direction:
    """One way through the sequence.

    Args:
        time: The axis of time of sequences; the batch is the other of the first two.
        wants_sequence: Whether the states of all steps are asked for.
        masked: Whether the last of the sequences says which steps count.
        hint: Its number, for names.
    """

    cell: Cell
    time: int
    backwards: bool
    wants_sequence: bool
    masked: bool
    hint: str

    def shape(self, steps: int, width: int) -> tuple[Dim, ...]:
        """Of a sequence."""
        return (self.cell.batch, steps, width) if self.time else (steps, self.cell.batch, width)


def _run(
    node: Node, layer: _Direction, sequences: Sequence[Tensor], steps: int, state: State
) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    """All steps. Returns h of each, if wanted, and the last state."""
    weights = sum(math.prod(node.static_shape(t)) for t in layer.cell.weights.values()) * np.dtype(np.float32).itemsize
    chunk = max(1, min(CHUNK, CHUNK_BYTES // weights))
    if steps <= chunk or (steps <= UNROLLED_STEPS and steps * weights <= UNROLLED_BYTES):
        return _unrolled(node, layer, sequences, steps, state, layer.hint)
    rest = steps % chunk
    if not rest:
        return _looped(node, layer, sequences, steps, chunk, state)
    # What does not fill a chunk comes first, when the state may still be zero.
    sizes = [steps - rest, rest] if layer.backwards else [rest, steps - rest]
    parts: list[list[Tensor]] = [[], []]
    for i, sequence in enumerate(sequences):
        hint = f"{layer.hint}/part{i}_"
        made = [node.temp(layer.shape(n, int(sequence.shape[2])), f"{hint}{j}", sequence.dtype) for j, n in enumerate(sizes)]
        axis = node.const(layer.time, np.int32, f"{hint}axis")
        node.emit("SPLIT_V", [sequence, node.ints(sizes, f"{hint}sizes"), axis], made, numSplits=2)
        for part, tensor in zip(parts, reversed(made) if layer.backwards else made, strict=True):
            part.append(tensor)
    begun, state = _unrolled(node, layer, parts[0], rest, state, f"{layer.hint}/rest")
    done, last = _looped(node, layer, parts[1], steps - rest, chunk, state)
    if begun is None or done is None:
        return None, last
    whole = node.temp(layer.shape(steps, layer.cell.hidden), f"{layer.hint}/states")
    node.emit("CONCATENATION", [done, begun] if layer.backwards else [begun, done], whole, axis=layer.time)
    return whole, last


def _unrolled(
    node: Node, layer: _Direction, sequences: Sequence[Tensor], steps: int, state: State, hint: str
) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    columns = [_unpack(node, layer, sequence, steps, f"{hint}/x{i}_") for i, sequence in enumerate(sequences)]
    hidden: list[Tensor] = [columns[0][0]] * steps
    for t in reversed(range(steps)) if layer.backwards else range(steps):
        x = [column[t] for column in columns]
        name = f"{hint}/{t}"
        if layer.masked:
            *x, counts = x
            zero = node.const(0, np.float32, f"{name}/zero")
            after = layer.cell.step(node, x, state, name)
            kept = tuple(
                node.emit("SELECT_V2", [counts, new, zero if old is None else old], node.like(new, f"{name}/kept{i}"))
                for i, (new, old) in enumerate(zip(after, state, strict=True))
            )
            hidden[t] = node.emit("SELECT_V2", [counts, after[0], zero], node.like(after[0], f"{name}/y"))
            state = kept
        else:
            state = layer.cell.step(node, x, state, name)
            assert state[0] is not None
            hidden[t] = state[0]
    last = tuple(s for s in state if s is not None)
    if not layer.wants_sequence:
        return None, last
    packed = node.temp(layer.shape(steps, layer.cell.hidden), f"{hint}/states")
    return node.emit("PACK", hidden, packed, valuesCount=steps, axis=layer.time), last


def _looped(
    node: Node, layer: _Direction, sequences: Sequence[Tensor], steps: int, chunk: int, state: State
) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    """A WHILE over (place, state, h of all steps, sequences, computed weights); the last two stay as they are."""
    cell, hint = layer.cell, layer.hint
    count, hidden = len(state), cell.hidden
    first, move = (steps - chunk, -chunk) if layer.backwards else (0, chunk)
    begin = [
        s if s is not None else _zeros(node, layer, sequences[0], (cell.batch, hidden), f"{hint}/zero{i}")
        for i, s in enumerate(state)
    ]
    room = layer.shape(steps, hidden)
    buffers = [_zeros(node, layer, sequences[0], room, f"{hint}/buffer")] if layer.wants_sequence else []
    computed = {name: tensor for name, tensor in cell.weights.items() if tensor.data is None}
    start = [node.const(first, np.int32, f"{hint}/first"), *begin, *buffers, *sequences, *computed.values()]
    at = 1 + count + len(buffers), 1 + count + len(buffers) + len(sequences)

    def condition(n: Node, values: list[Tensor]) -> Tensor:
        end = n.const(0 if layer.backwards else steps, np.int32, f"{hint}/end")
        return n.emit("GREATER_EQUAL" if layer.backwards else "LESS", [values[0], end], n.temp((), f"{hint}/more", bool))

    def step(n: Node, values: list[Tensor]) -> list[Tensor]:
        known = dict(zip(computed, values[at[1] :], strict=True))
        inner = replace(layer, cell=replace(cell, weights={**cell.weights, **known}))
        place = start_at(n, values[0], layer.time, 3, hint)
        taken = []
        for i, sequence in enumerate(values[at[0] : at[1]]):
            size = [-1, -1, int(sequence.shape[2])]
            size[layer.time] = chunk
            out = n.temp(layer.shape(chunk, size[2]), f"{hint}/chunk{i}", sequence.dtype)
            taken.append(n.emit("SLICE", [sequence, place, n.ints(size, f"{hint}/chunk{i}_size")], out))
        made, after = _unrolled(n, inner, taken, chunk, tuple(values[1 : 1 + count]), f"{hint}/step")
        filled = []
        if made is not None:
            buffer = values[1 + count]
            filled = [n.emit("DYNAMIC_UPDATE_SLICE", [buffer, made, place], n.like(buffer, f"{hint}/filled"))]
        following = n.emit("ADD", [values[0], n.const(move, np.int32, f"{hint}/move")], n.temp((), f"{hint}/next", np.int32))
        return [following, *after, *filled, *values[at[0] :]]

    ends = while_loop(node, start, condition, step, hint=hint)
    return ends[1 + count] if buffers else None, tuple(ends[1 : 1 + count])


def _unpack(node: Node, layer: _Direction, sequence: Tensor, steps: int, hint: str) -> list[Tensor]:
    parts = [node.temp((layer.cell.batch, sequence.shape[2]), f"{hint}{t}", sequence.dtype) for t in range(steps)]
    node.emit("UNPACK", [sequence], parts, num=steps, axis=layer.time)
    return parts


def _stack(node: Node, parts: Sequence[Tensor], axis: int, out: Tensor) -> None:
    """The directions side by side."""
    if len(parts) == 1:
        node.reshape(parts[0], out.shape, out=out)
    else:
        node.emit("PACK", parts, out, valuesCount=len(parts), axis=axis)


def _zeros(node: Node, layer: _Direction, sequence: Tensor, shape: Sequence[Dim], hint: str) -> Tensor:
    """Zeros that take no room in the file; a dynamic batch is read off the sequence."""
    if isinstance(layer.cell.batch, int):
        dims = node.ints([int(d) for d in shape], f"{hint}/shape")
    else:
        sizes = node.emit("SHAPE", [sequence], node.temp((3,), f"{hint}/sizes", np.int32), outType=np.dtype(np.int32))
        begin, one = node.ints([1 - layer.time], f"{hint}/begin"), node.ints([1], f"{hint}/one")
        batch = node.emit("SLICE", [sizes, begin, one], node.temp((1,), f"{hint}/batch", np.int32))
        parts = [node.ints([d], f"{hint}/size") if isinstance(d, int) else batch for d in shape]
        dims = node.emit("CONCATENATION", parts, node.temp((len(parts),), f"{hint}/shape", np.int32), axis=0)
    return node.emit("FILL", [dims, node.const(0, np.float32, f"{hint}/value")], node.temp(shape, hint))


def _projected(node: Node, direction: int, steps: int, layer: _Direction) -> list[Tensor]:
    """X·W' + bias of all steps, one sequence per group of gates."""
    kind, hidden = layer.cell.kind, layer.cell.hidden
    made = []
    for group, (first, last) in enumerate(GROUPS[kind]):
        bias = _rows(node, 3, direction, first * hidden, last * hidden)
        if bias is not None and not (group and layer.cell.late_reset):
            bias = _sum(node, bias, _rows(node, 3, direction, (GATES[kind] + first) * hidden, (GATES[kind] + last) * hidden))
        weights = _rows(node, 1, direction, first * hidden, last * hidden)
        out = node.temp(layer.shape(steps, (last - first) * hidden), f"{direction}/projected{group}")
        made.append(node.emit("FULLY_CONNECTED", [node.x, weights, bias], out, keepNumDims=True))
    return made


def _cell(node: Node, direction: int, functions: tuple[Activation, ...], batch: Dim) -> Cell:
    kind, hidden = node.op_type, int(node.static_shape(node.input(2))[2])
    late_reset = kind == "GRU" and bool(node.integer("linear_before_reset"))
    weights = {
        f"R{group}": _rows(node, 2, direction, first * hidden, last * hidden) for group, (first, last) in enumerate(GROUPS[kind])
    }
    if late_reset:
        weights["Rb"] = _rows(node, 3, direction, 5 * hidden, 6 * hidden)
    if kind == "LSTM":
        weights |= {f"P{gate}": _rows(node, 7, direction, i * hidden, (i + 1) * hidden) for i, gate in enumerate("iof")}
    given = {name: tensor for name, tensor in weights.items() if tensor is not None}
    return Cell(
        kind,
        hidden,
        batch,
        functions,
        node.real("clip"),
        late_reset,
        kind == "LSTM" and bool(node.integer("input_forget")),
        given,
    )


def _rows(node: Node, i: int, direction: int, begin: int, end: int) -> Tensor | None:
    """Rows of one direction of W or R (`[directions, rows, columns]`), or elements of B or P; None where the input is absent."""
    if not node.has_input(i):
        return None
    whole, hint = node.input(i), f"{direction}/input{i}_{begin}"
    if whole.data is not None:
        return node.const(whole.data[direction, begin:end], hint=hint)
    shape = (1, end - begin, *node.static_shape(whole)[2:])
    where = node.ints([direction, begin, 0][: len(shape)], f"{hint}/begin")
    part = node.emit("SLICE", [whole, where, node.ints(shape, f"{hint}/size")], node.temp(shape, f"{hint}/part"))
    return node.reshape(part, shape[1:], hint)


def _sum(node: Node, a: Tensor, b: Tensor | None) -> Tensor:
    assert b is not None
    if a.data is not None and b.data is not None:
        return Tensor(a.name, a.shape, a.dtype, a.data + b.data)
    return node.emit("ADD", [a, b], Tensor(f"{a.name}/both", a.shape, a.dtype))


def _initial_state(node: Node, direction: int, layer: _Direction) -> State:
    return tuple(_initial(node, i, direction, layer) for i in ((5, 6) if layer.cell.kind == "LSTM" else (5,)))


def _initial(node: Node, i: int, direction: int, layer: _Direction) -> Tensor | None:
    """One direction of `[directions, batch, hidden]` (layout 1: `[batch, directions, hidden]`); None where it is all zero."""
    if not node.has_input(i):
        return None
    whole, axis, hint = node.input(i), layer.time, f"{direction}/input{i}"
    if whole.data is not None:
        data = np.take(whole.data, direction, axis)
        return node.const(data, hint=hint) if data.any() else None
    shape = layer.cell.batch, layer.cell.hidden
    if whole.shape[axis] == 1:
        return node.reshape(whole, shape, hint)
    where, size = [0, 0, 0], [-1, -1, layer.cell.hidden]
    where[axis], size[axis] = direction, 1
    part = node.temp((shape[0], 1, shape[1]) if axis else (1, *shape), f"{hint}/part")
    node.emit("SLICE", [whole, node.ints(where, f"{hint}/begin"), node.ints(size, f"{hint}/size")], part)
    return node.reshape(part, shape, hint)


def _mask(node: Node, time: int, steps: int, batch: Dim) -> Tensor | None:
    """Which steps count, bool `[steps, batch, 1]` or `[batch, steps, 1]`; None where all do. The others leave the state alone."""
    if not node.has_input(4):
        return None
    lengths = node.input(4)
    number = np.arange(steps, dtype=np.int32).reshape((1, steps, 1) if time else (steps, 1, 1))
    column = (batch, 1, 1) if time else (1, batch, 1)
    if lengths.data is not None:
        mask = number < lengths.data.reshape(-1, 1, 1) if time else number < lengths.data.reshape(1, -1, 1)
        return None if mask.all() else node.const(mask, hint="mask")
    shape = (batch, steps, 1) if time else (steps, batch, 1)
    return node.emit("LESS", [node.const(number, hint="steps"), node.reshape(lengths, column, "lengths")],
                     node.temp(shape, "mask", bool))  # fmt: skip


def _zero_where_empty(node: Node, initial: State, last: tuple[Tensor, ...], layer: _Direction) -> tuple[Tensor, ...]:
    """The last state of a sequence without steps is 0 in onnxruntime, whatever it began with; ONNX does not say."""
    lengths = node.inputs[4] if node.has_input(4) else None
    if lengths is None or all(state is None for state in initial) or (lengths.data is not None and (lengths.data > 0).all()):
        return last
    hint = f"{layer.hint}/not_empty"
    zero = node.const(0, np.float32, f"{hint}/zero")
    column = node.reshape(lengths, (layer.cell.batch, 1), f"{hint}/lengths")
    if column.data is not None:
        has_steps = node.const(column.data > 0, hint=hint)
    else:
        none = node.const(0, column.dtype, f"{hint}/none")
        has_steps = node.emit("GREATER", [column, none], node.temp(column.shape, hint, bool))
    return tuple(
        after if before is None else node.emit("SELECT_V2", [has_steps, after, zero], node.like(after, f"{layer.hint}/last{i}"))
        for i, (before, after) in enumerate(zip(initial, last, strict=True))
    )


def _functions(node: Node, directions: int) -> list[tuple[Activation, ...]]:
    """The activations of each direction; alphas and betas are given for those only that have them."""
    attribute = node.onnx.attributes.get("activations")
    names = [*DEFAULTS[node.op_type] * directions] if attribute is None else list(attribute.as_strings())
    alphas, betas = (iter(_reals(node, name)) for name in ("activation_alpha", "activation_beta"))
    made = []
    for name in (n.lower() for n in names):
        if name not in ACTIVATIONS:
            raise node.refuse(f"its activation {name} is not supported", f"use one of {', '.join(ACTIVATIONS)}", "activations")
        alpha = next(alphas, ALPHAS[name]) if name in ALPHAS else 0.0
        made.append(Activation(name, alpha, next(betas, BETAS[name]) if name in BETAS else 0.0))
    count = len(DEFAULTS[node.op_type])
    return [tuple(made[d * count : (d + 1) * count]) for d in range(directions)]


def _reals(node: Node, name: str) -> Sequence[float]:
    attribute = node.onnx.attributes.get(name)
    return () if attribute is None else attribute.as_floats()
