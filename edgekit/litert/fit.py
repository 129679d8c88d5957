"""Operands are converted to what the kernels take, where that changes no value.

Kernels have gaps: there is no ADD for uint8 and no GATHER for uint16. A wider type holds every value of a narrower one, and
converting the result back wraps as the narrow type would. What no wider type can hold is done in the nearest one, with a note.
"""

from __future__ import annotations

import numpy as np

from edgekit.errors import UnsupportedOperator
from edgekit.litert.graph import Graph, Operator, Tensor
from edgekit.litert.kernels import KERNELS, Kernel

WIDER: dict[str, tuple[str, ...]] = {
    "bool": ("int32", "int8", "float32"),
    "int8": ("int32", "int16", "int64", "float32"),
    "uint8": ("int32", "int16", "int64", "float32"),
    "int16": ("int32", "int64", "float32"),
    "uint16": ("int32", "int64", "float32"),
    "int32": ("int64",),
    "uint32": ("int64",),
    "float16": ("float32",),
}
"""What holds every value of a type, in order of preference."""

NEAREST = {
    "int64": ("int32", "values of 2^31 and above do not fit"),
    "float64": ("float32", "it is rounded to 24 bits"),
}
"""What is taken where no wider type exists, and what that costs."""

EXACT_IN_FLOAT = frozenset(
    "ABS NEG SIGN RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1 CEIL FLOOR ROUND MAXIMUM MINIMUM EQUAL NOT_EQUAL GREATER GREATER_EQUAL "
    "LESS LESS_EQUAL REDUCE_MAX REDUCE_MIN ARG_MAX ARG_MIN TOPK_V2 MAX_POOL_2D CONCATENATION GATHER PAD "
    "RESIZE_NEAREST_NEIGHBOR".split()
)
"""Operators that give an integer for integers, so that small integers may pass through float32."""

BY_ORDER = frozenset("GREATER GREATER_EQUAL LESS LESS_EQUAL MAXIMUM MINIMUM REDUCE_MAX REDUCE_MIN TOPK_V2".split())
"""Operators for which nothing but the order of values counts."""


def fit_kernels(graph: Graph) -> list[str]:
    """Put CASTs around the operators that need them, in place. Returns a note on each that is not exact.

    Raises:
        UnsupportedOperator: No kernel takes the operator's dtype or a wider one.
    """
    notes: list[str] = []
    for part in graph.with_subgraphs():
        operators: list[Operator] = []
        for op in part.operators:
            before, after = _converted(op, notes)
            operators += [*before, op, *after]
        part.operators = operators
    return notes


def _converted(op: Operator, notes: list[str]) -> tuple[list[Operator], list[Operator]]:
    if op.code == "CAST":
        return _converted_cast(op, notes)
    kernel = KERNELS.get(op.code)
    if kernel is None:
        return [], []
    places = range(len(op.inputs)) if kernel.inputs is None else kernel.inputs
    data = [i for i in places if i < len(op.inputs) and op.inputs[i] is not None]
    first = op.inputs[data[0]] if data else None
    if first is None or first.dtype.name in kernel.dtypes:
        return [], []
    dtype = first.dtype
    results = range(len(op.outputs)) if kernel.outputs is None else kernel.outputs
    carrier, code = _carrier(op, kernel, dtype, notes)
    before: list[Operator] = []
    after: list[Operator] = []
    is_moved = code == "BITCAST" and op.code in BY_ORDER
    for i in data:
        operand = op.inputs[i]
        assert operand is not None
        if operand.dtype == dtype:
            made = _convert(operand, carrier, code, f"{op.outputs[0].name}/{operand.name}", before)
            op.inputs[i] = _moved_by_half(made, before) if is_moved else made
    for i in results:
        out = op.outputs[i]
        if out.dtype == dtype:
            made = op.outputs[i] = Tensor(f"{out.name}/{carrier}", out.shape, carrier)
            after.append(_operator(code, _moved_by_half(made, after) if is_moved else made, out))
    return before, after


def _converted_cast(op: Operator, notes: list[str]) -> tuple[list[Operator], list[Operator]]:
    """CAST has no uint64: its bits are those of an int64, which is right below 2^63, and for floats made right above it."""
    before: list[Operator] = []
    after: list[Operator] = []
    source, result, wide = op.inputs[0], op.outputs[0], np.dtype(np.int64)
    assert source is not None
    if source.dtype == np.uint64:
        op.inputs[0] = _convert(source, wide, "BITCAST", result.name, before)
        op.options["inDataType"] = wide
    if result.dtype == np.uint64:
        op.outputs[0] = Tensor(f"{result.name}/{wide}", result.shape, wide)
        op.options["outDataType"] = wide
        after.append(_operator("BITCAST", op.outputs[0], result))
    if source.dtype == np.uint64 and result.dtype.kind == "f":
        after += _with_2_to_the_64(op, result)
    elif before or after:
        notes.append(f"CAST that makes {result.name!r}: uint64 is converted as int64, which is right below 2^63")
    return before, after


def _with_2_to_the_64(op: Operator, result: Tensor) -> list[Operator]:
    """What stands behind a CAST of int64 to float32 where negative numbers mean those of uint64 from 2^63 on."""

    def made(hint: str, dtype: type = np.float32) -> Tensor:
        return Tensor(f"{result.name}/{hint}", result.shape, np.dtype(dtype))

    def number(hint: str, value: float) -> Tensor:
        return Tensor(f"{result.name}/{hint}", (), np.dtype(np.float32), np.array(value, np.float32))

    signed, below, raised = made("signed"), made("below", bool), made("raised")
    unsigned = result if result.dtype == np.float32 else made("unsigned")
    op.outputs[0], op.options["outDataType"] = signed, signed.dtype
    return [
        Operator("LESS", [signed, number("zero", 0.0)], [below]),
        Operator("ADD", [signed, number("2^64", 2.0**64)], [raised]),
        Operator("SELECT_V2", [below, raised, signed], [unsigned]),
        *([_operator("CAST", unsigned, result)] if unsigned is not result else []),
    ]


def _carrier(op: Operator, kernel: Kernel, dtype: np.dtype, notes: list[str]) -> tuple[np.dtype, str]:
    """The dtype to compute in, and the operator that converts to it."""
    name = dtype.name
    for wider in WIDER.get(name, ()):
        if wider in kernel.dtypes and (wider != "float32" or dtype.kind == "f" or op.code in EXACT_IN_FLOAT):
            return np.dtype(wider), "CAST"
    where = f"{op.code} that makes {op.outputs[0].name!r}"
    if name == "uint64" and "int64" in kernel.dtypes:
        if kernel.ordered and op.code not in BY_ORDER:
            notes.append(f"{where}: uint64 is computed as int64, values of 2^63 and above count as negative")
        return np.dtype(np.int64), "BITCAST"
    if name in NEAREST and NEAREST[name][0] in kernel.dtypes:
        nearest, cost = NEAREST[name]
        notes.append(f"{where}: {name} is computed in {nearest}, {cost}")
        return np.dtype(nearest), "CAST"
    raise UnsupportedOperator(
        f"LiteRT's {op.code} takes {', '.join(sorted(kernel.dtypes))}, not {name}",
        where=f"tensor {op.outputs[0].name!r}",
        fix="cast the operands in the model to a type that it takes",
    )


def _moved_by_half(tensor: Tensor, operators: list[Operator]) -> Tensor:
    """An int64 plus 2^63, around the end: the order of the bits of uint64 becomes that of int64, and the other way round."""
    half = np.array(np.iinfo(np.int64).min)
    moved = Tensor(f"{tensor.name}/moved", tensor.shape, tensor.dtype)
    if tensor.data is not None:
        moved.data = tensor.data ^ half
    else:
        operators.append(Operator("ADD", [tensor, Tensor(f"{moved.name}/half", (), half.dtype, half)], [moved]))
    return moved


def _convert(tensor: Tensor, dtype: np.dtype, code: str, name: str, before: list[Operator]) -> Tensor:
    converted = Tensor(f"{name}/{dtype}", tensor.shape, dtype)
    if tensor.data is not None:
        converted.data = tensor.data.view(dtype) if code == "BITCAST" else tensor.data.astype(dtype)
        return converted
    before.append(_operator(code, tensor, converted))
    return converted


def _operator(code: str, source: Tensor, result: Tensor) -> Operator:
    options = {"inDataType": source.dtype, "outDataType": result.dtype} if code == "CAST" else {}
    return Operator(code, [source], [result], options)
