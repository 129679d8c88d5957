"""Reductions over axes, and the searches along one."""

from __future__ import annotations

import math

import numpy as np

from edgekit.layout.rules.axes import reduced_axes
from edgekit.litert.graph import Tensor
from edgekit.litert.lower.computed_axes import named, sizes_of, without
from edgekit.litert.lower.convert import as_int32
from edgekit.litert.lower.steps import Steps
from edgekit.litert.lower.table import Node, lowers

MANY_ROWS = 4096
"""From how many positions on a sum is taken in two steps."""
DIRECT = {
    "ReduceMax": "REDUCE_MAX",
    "ReduceMean": "MEAN",
    "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD",
    "ReduceSum": "SUM",
}


@lowers(*DIRECT)
def reduce(node: Node) -> None:
    _reduce(node, DIRECT[node.op_type], node.x, node.y)


@lowers("ReduceL1")
def reduce_l1(node: Node) -> None:
    _reduce(node, "SUM", node.emit("ABS", [node.x], node.like(node.x, "size")), node.y)


@lowers("ReduceL2")
def reduce_l2(node: Node) -> None:
    total = _reduce(node, "SUM", _square(node), node.like(node.y, "sum"))
    node.emit("SQRT", [total])


@lowers("ReduceSumSquare")
def reduce_sum_square(node: Node) -> None:
    _reduce(node, "SUM", _square(node), node.y)


@lowers("ReduceLogSum")
def reduce_log_sum(node: Node) -> None:
    node.emit("LOG", [_reduce(node, "SUM", node.x, node.like(node.y, "sum"))])


@lowers("ReduceLogSumExp")
def reduce_log_sum_exp(node: Node) -> None:
    """The maximum is taken out first, so that exp does not overflow."""
    x, axes = node.x, _axes(node)
    if 0 in x.shape:
        _of_nothing(node, axes, -np.inf, node.y)
        return
    kept, keep = _kept(node, axes), bool(node.integer("keepdims", 1))
    top = node.emit("REDUCE_MAX", [x, axes], node.temp(kept, "top"), keepDims=True)
    small = node.emit("EXP", [node.emit("SUB", [x, top], node.like(x, "shifted"))], node.like(x, "small"))
    total = node.emit("SUM", [small, axes], node.like(node.y, "sum"), keepDims=keep)
    log = node.emit("LOG", [total], node.like(node.y, "log"))
    if keep:
        node.emit("ADD", [log, top])
    elif axes.data is not None:
        node.emit("ADD", [log, node.reshape(top, node.y.shape, "top_dropped")])
    else:
        node.emit("ADD", [log, node.emit("REDUCE_MAX", [x, axes], node.like(node.y, "top_dropped"), keepDims=False)])


def _axes(node: Node) -> Tensor:
    """The axes as the kernels take them: a vector of int32. Computed ones reduce all axes only if that is how many there are."""
    known = reduced_axes(node.onnx)
    if known is not None:
        return node.ints(known, "axes")
    axes = node.input(1)
    if axes.shape == (0,):
        return node.ints([] if node.integer("noop_with_empty_axes", 0) else list(range(node.x.rank)), "axes")
    return as_int32(node, axes, "axes")


def _kept(node: Node, axes: Tensor) -> tuple[int | str, ...]:
    """The shape with the reduced axes kept; which those are may be known only when the model runs."""
    if axes.data is None:
        return node.y.shape if node.integer("keepdims", 1) else tuple(f"{node.y.name}_kept{i}" for i in range(node.x.rank))
    return tuple(1 if i in axes.data else d for i, d in enumerate(node.x.shape))


def _reduce(node: Node, code: str, x: Tensor, out: Tensor) -> Tensor:
    axes = _axes(node)
    if axes.data is not None and not axes.data.size:
        return node.reshape(x, out.shape, out=out)
    if 0 in x.shape:
        return _of_nothing(node, axes, _neutral(code, x.dtype), out)
    if x.dtype == np.bool_:
        code = {"REDUCE_MAX": "REDUCE_ANY", "REDUCE_MIN": "REDUCE_ALL"}[code]
    if code in ("SUM", "MEAN") and x.dtype.kind == "f" and axes.data is not None:
        x, axes = _reduce_first(node, code, x, axes)
    return node.emit(code, [x, axes], out, keepDims=bool(node.integer("keepdims", 1)))


def _reduce_first(node: Node, code: str, x: Tensor, axes: Tensor) -> tuple[Tensor, Tensor]:
    """Reduce one of several axes ahead of the others where the kernel would add very many numbers one after another.

    XNNPACK adds whole rows when the last axis is kept, in float32: the mean of 80x80 positions comes out wrong by 4e-6, that of
    80 rows of 80 by 3e-7, which a detection head with a steep threshold multiplies by hundreds. It takes 4 µs more.
    """
    reduced = sorted(int(axis) for axis in axes.data)  # type: ignore[union-attr]
    sizes = [x.shape[axis] for axis in reduced]
    if len(reduced) < 2 or reduced[-1] == x.rank - 1 or not all(isinstance(size, int) for size in sizes):
        return x, axes
    if math.prod(int(size) for size in sizes) < MANY_ROWS:
        return x, axes
    shape = tuple(1 if axis == reduced[-1] else size for axis, size in enumerate(x.shape))
    part = node.emit(code, [x, node.ints(reduced[-1:], "last_axis")], node.temp(shape, "rows", x.dtype), keepDims=True)
    return part, node.ints(reduced[:-1] if node.integer("keepdims", 1) else reduced, "axes_left")


def _of_nothing(node: Node, axes: Tensor, value: float, out: Tensor) -> Tensor:
    """The same value everywhere; computed axes decide where that is."""
    if out.is_static:
        return node.reshape(node.const(np.full(node.static_shape(out), value, out.dtype), hint="empty"), out.shape, out=out)
    f = Steps(node)
    if node.integer("keepdims", 1):
        shape = f.select(named(f, axes, node.x.rank), f.constant(1, np.int32), sizes_of(f, node.x))
    else:
        shape = without(f, node.x, axes, out.rank)
    return node.emit("FILL", [shape, node.const(value, out.dtype, "value")], out)


def _neutral(code: str, dtype: np.dtype) -> float:
    """What the reduction of nothing is."""
    if code in ("SUM", "REDUCE_PROD"):
        return 0 if code == "SUM" else 1
    if dtype.kind == "f":
        return {"MEAN": np.nan, "REDUCE_MAX": -np.inf, "REDUCE_MIN": np.inf}[code]
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return low if code == "REDUCE_MAX" else high


def _square(node: Node) -> Tensor:
    return node.emit("MUL", [node.x, node.x], node.like(node.x, "square"))


@lowers("ArgMax", "ArgMin")
def arg(node: Node) -> None:
    """ARG_MAX drops the axis; of equal values it takes the first, and the last where the axis is reversed."""
    x, axis, last = node.x, node.axis("axis", 0), bool(node.integer("select_last_index", 0))
    code = "ARG_MAX" if node.op_type == "ArgMax" else "ARG_MIN"
    dropped = tuple(d for i, d in enumerate(x.shape) if i != axis)
    if last:
        x = node.emit("REVERSE_V2", [x, node.ints([axis], "reversed")], node.like(x, "backwards"))
    out = node.y if node.y.shape == dropped and not last else node.temp(dropped, "dropped")
    found = node.emit(code, [x, node.const(axis, np.int32, "axis")], out, outputType=node.y.dtype)
    if last:
        end = node.const(node.static_shape(node.x)[axis] - 1, node.y.dtype, "end")
        found = node.emit("SUB", [end, found], node.y if node.y.shape == dropped else node.temp(dropped, "from_start"))
    if found is not node.y:
        node.reshape(found, node.y.shape, out=node.y)


@lowers("CumSum")
def cumulative_sum(node: Node) -> None:
    axis = node.input(1)
    if axis.data is not None:
        where = node.const(int(axis.data.reshape(-1)[0]) % node.x.rank, np.int32, "axis")
    else:
        where = node.reshape(as_int32(node, axis, "axis"), (), "axis_scalar")
    node.emit("CUMSUM", [node.x, where], exclusive=bool(node.integer("exclusive", 0)), reverse=bool(node.integer("reverse", 0)))


CUMPROD_STEPS = 256


@lowers("CumProd")
def cumulative_product(node: Node) -> None:
    """LiteRT has no such kernel. Of an axis that is computed, one of the results along all axes is chosen."""
    x, given = node.x, node.input(1)
    if given.data is not None or x.rank == 1:
        _products(node, int(given.data.reshape(-1)[0]) % x.rank if given.data is not None else 0, node.y)
        return
    f = Steps(node)
    axis = f("FLOOR_MOD", node.reshape(as_int32(node, given, "axis"), (), "axis_scalar"), x.rank)
    found = _products(node, 0, node.like(x, "along0"))
    for other in range(1, x.rank):
        along = _products(node, other, node.like(x, f"along{other}"))
        found = f.select(f("EQUAL", axis, other), along, found, node.y if other == x.rank - 1 else None)


def _products(node: Node, axis: int, out: Tensor) -> Tensor:
    """One product per step along the axis."""
    shape = node.static_shape(node.x)
    length, backwards = shape[axis], bool(node.integer("reverse", 0))
    if length > CUMPROD_STEPS:
        raise node.refuse(f"{length} steps would be as many operators", f"use at most {CUMPROD_STEPS} elements", "axis")
    slim = tuple(1 if i == axis else d for i, d in enumerate(shape))
    parts = [node.temp(slim, f"part{i}", node.x.dtype) for i in range(length)]
    if length == 1:
        parts = [node.x]
    else:
        node.emit("SPLIT", [node.const(axis, np.int32, "axis"), node.x], parts, numSplits=length)
    order = parts[::-1] if backwards else parts
    if node.integer("exclusive", 0):
        order = [node.const(np.ones(slim), node.x.dtype, "start"), *order[:-1]]
    made = order[:1]
    for i, part in enumerate(order[1:]):
        made.append(node.emit("MUL", [made[-1], part], node.temp(slim, f"product{i}")))
    if length == 1:
        return node.reshape(made[0], shape, out=out)
    return node.emit("CONCATENATION", made[::-1] if backwards else made, out, axis=axis)


@lowers("TopK")
def top_k(node: Node) -> None:
    """The largest k along the last axis, sorted; the smallest are the largest of what decreases as the values grow."""
    x, values = node.x, node.outputs[0]
    if node.axis("axis", -1) != x.rank - 1:
        raise node.refuse("LiteRT finds the largest along the last axis", "report this: the layout should have moved it", "axis")
    count = node.reshape(as_int32(node, node.input(1), "k"), (), "k_scalar")
    smallest = not node.integer("largest", 1)
    indices = node.temp(values.shape, "indices32", np.int32)
    found = node.like(values, "turned") if smallest else values
    node.emit("TOPK_V2", [_turned(node, x, "turned_in") if smallest else x, count], [found, indices])
    if smallest:
        _turned(node, found, "turned_out", values)
    if len(node.outputs) > 1:
        wide = node.outputs[1]
        node.emit("CAST", [indices], wide, inDataType=indices.dtype, outDataType=wide.dtype)


def _turned(node: Node, x: Tensor, hint: str, out: Tensor | None = None) -> Tensor:
    """-x for floats, and the bitwise complement for integers, which does not overflow. Both undo themselves."""
    out = out or node.like(x, hint)
    if x.dtype.kind == "f":
        return node.emit("NEG", [x], out)
    top = node.const(np.iinfo(x.dtype).max if x.dtype.kind == "u" else -1, x.dtype, f"{hint}_top")
    return node.emit("SUB", [top, x], out)
