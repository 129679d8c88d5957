"""From float operators between DEQUANTIZE and QUANTIZE to operators on integers. docs/quantized-onnx.md is the long form.

    before    int8 → DEQUANTIZE → CONV_2D (float weights that know their integers) → QUANTIZE → int8
    after     int8 → CONV_2D (int8 weights, int32 bias) → int8

One walk forward over the graph. It remembers which float tensors exist as integers, converts each operator that can work on
them (edgekit.litert.quantized.arithmetic, .moves), and writes a DEQUANTIZE only where a float operator needs one.
"""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Graph, Operator, Quantization, Tensor
from edgekit.litert.peephole import remove_dead
from edgekit.litert.quantized.arithmetic import ARITHMETIC, fuse_clamps
from edgekit.litert.quantized.integers import Ends, Integers, StaysFloat
from edgekit.litert.quantized.moves import MOVES, data_places, move

__all__ = ["to_integers"]


def to_integers(graph: Graph) -> list[str]:
    """Compute on integers wherever a kernel gives the same result, in place. Returns a note on each operator that stays in float.

    A graph without QUANTIZE, DEQUANTIZE and dequantized constants is left alone.
    """
    notes: list[str] = []
    for part in graph.with_subgraphs():
        if any(
            op.code in ("QUANTIZE", "DEQUANTIZE") or any(_is_quantized_constant(t) for t in op.inputs) for op in part.operators
        ):
            _name_grids(part)
            notes += _convert(part)
    return notes


def _convert(graph: Graph) -> list[str]:
    walk = Integers(graph, _ends(graph))
    kept: dict[tuple[str, str], list[str]] = {}
    for op in graph.operators:
        op.inputs = [walk.resolve(t) for t in op.inputs]
        if op.code == "QUANTIZE":
            walk.quantize(op)
        elif op.code == "DEQUANTIZE" and op.inputs[0] is not None and op.inputs[0].dtype == "int8":
            walk.hold(op.outputs[0], op.inputs[0])
        else:
            _convert_operator(walk, op, kept)
    graph.operators = walk.finish()
    remove_dead(graph)
    fuse_clamps(graph)
    walk.name_after_floats()
    return [_note(code, reason, names) for (code, reason), names in kept.items()] + walk.notes


def _note(code: str, reason: str, names: list[str]) -> str:
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return f"{code} that makes {names[0]!r}{more} stays in float: {reason}"


def _name_grids(graph: Graph) -> None:
    """Integers that are moved as they are mean before what they mean after: delegates refuse int8 without scales, or with others.

    Where the model reads them in another way than it wrote them, a BITCAST stands between the two.
    """
    for operators, forward in ((graph.operators, True), (graph.operators[::-1], False)):
        for op in operators:
            moved, results = _moved_integers(op)
            givers, takers = (moved, results) if forward else (results, moved)
            grid = next((t.quantization for t in givers if t.quantization is not None), None)
            for tensor in takers:
                tensor.quantization = tensor.quantization or grid
    graph.operators = [step for op in graph.operators for step in _on_one_grid(op)]


def _moved_integers(op: Operator) -> tuple[list[Tensor], list[Tensor]]:
    """The 8-bit operands that an operator moves, and its results of their dtype."""
    operands = [op.inputs[i] for i in data_places(op)] if op.code in MOVES else []
    moved = [t for t in operands if t is not None and t.dtype in (np.int8, np.uint8)]
    return moved, [t for t in op.outputs if moved and t.dtype == moved[0].dtype]


def _on_one_grid(op: Operator) -> list[Operator]:
    """The operator, and BITCASTs around it where its integers mean different things."""
    moved, results = _moved_integers(op)
    grids = [t.quantization for t in (*moved, *results) if t.quantization is not None]
    if all(grid.same_as(grids[0]) for grid in grids):
        return [op]
    before, after = [], []
    for i, tensor in enumerate(op.inputs):
        if tensor in moved and tensor is not None and not grids[0].same_as(tensor.quantization):
            reread = op.inputs[i] = Tensor(f"{tensor.name}/reread", tensor.shape, tensor.dtype, tensor.data, grids[0])
            before += [Operator("BITCAST", [tensor], [reread])] if tensor.data is None else []
    for i, tensor in enumerate(op.outputs):
        if tensor in results and not grids[0].same_as(tensor.quantization):
            op.outputs[i] = Tensor(f"{tensor.name}/reread", tensor.shape, tensor.dtype, None, grids[0])
            after.append(Operator("BITCAST", [op.outputs[i]], [tensor]))
    return [*before, op, *after]


def _convert_operator(walk: Integers, op: Operator, kept: dict[tuple[str, str], list[str]]) -> None:
    rule = move if op.code in MOVES else ARITHMETIC.get(op.code)
    touched = any(walk.is_held(t) for t in op.inputs) or any(walk.grid_of_result(out) is not None for out in op.outputs)
    if not touched and not any(_is_quantized_constant(t) for t in op.inputs):
        walk.keep(op)
        return
    try:
        if rule is None:
            raise StaysFloat("LiteRT has no integer kernel for it")
        rule(op, walk)
    except StaysFloat as reason:
        walk.keep(op)
        if op.code not in MOVES:
            kept.setdefault((op.code, str(reason)), []).append(op.outputs[0].name)


def _is_quantized_constant(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.data is not None and tensor.quantization is not None


def _ends(graph: Graph) -> Ends:
    """Choosing among numbers, or moving them, gives the same before and after rounding: such operators are looked through."""
    users = graph.consumers()
    outputs = set(graph.outputs)
    ends = Ends({}, {}, set())
    given_out = set(graph.outputs)

    def want(tensor: Tensor | None, grid: Quantization, is_last: bool) -> None:
        if tensor is None or tensor.data is not None or tensor.dtype != "float32" or tensor in graph.inputs:
            return
        if len(users[tensor]) == 1 and tensor not in outputs:
            ends.grids[tensor] = grid
            ends.last.update([tensor] if is_last else [])

    for op in reversed(graph.operators):
        out = op.outputs[0]
        readers = users.get(out, [])
        if readers and all(r.code in ("DEQUANTIZE", *MOVES) and r.outputs[0] in given_out for r in readers):
            given_out.add(out)
        if op.code == "QUANTIZE" and out.dtype == "int8" and out.quantization is not None:
            want(op.inputs[0], out.quantization, out in given_out)
            if op.inputs[0] in ends.grids:
                ends.results[op.inputs[0]] = out
        elif op.code in MOVES and op.activation == "NONE" and len(op.outputs) == 1 and out in ends.grids:
            for place in data_places(op):
                want(op.inputs[place], ends.grids[out], out in ends.last)
    return ends
