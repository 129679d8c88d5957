"""Reductions over axes, and the searches along one."""

from __future__ import annotations

import numpy as np

from edgekit.layout.rules.axes import reduced_axes
from edgekit.litert.graph import Tensor
from edgekit.litert.lower.table import Node, lowers

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
    kept = tuple(1 if i in axes else d for i, d in enumerate(x.shape))
    top = node.emit("REDUCE_MAX", [x, node.ints(axes, "axes")], node.temp(kept, "top"), keepDims=True)
    small = node.emit("EXP", [node.emit("SUB", [x, top], node.like(x, "shifted"))], node.like(x, "small"))
    total = node.emit("SUM", [small, node.ints(axes, "axes")], node.temp(kept, "sum"), keepDims=True)
    log = node.emit("LOG", [total], node.temp(kept, "log"))
    if node.y.shape == kept:
        node.emit("ADD", [log, top])
        return
    node.reshape(node.emit("ADD", [log, top], node.temp(kept, "kept")), node.y.shape, out=node.y)


def _axes(node: Node) -> list[int]:
    axes = reduced_axes(node.onnx)
    if axes is None:
        raise node.refuse("its axes are computed at run time", "make the axes a constant in the model", "axes")
    return axes


def _reduce(node: Node, code: str, x: Tensor, out: Tensor) -> Tensor:
    axes = _axes(node)
    if not axes:
        return node.reshape(x, out.shape, out=out)
    return node.emit(code, [x, node.ints(axes, "axes")], out, keepDims=bool(node.integer("keepdims", 1)))


def _square(node: Node) -> Tensor:
    return node.emit("MUL", [node.x, node.x], node.like(node.x, "square"))


@lowers("ArgMax", "ArgMin")
def arg(node: Node) -> None:
    """ARG_MAX drops the axis; of equal values LiteRT takes the first."""
    if node.integer("select_last_index", 0):
        raise node.refuse("LiteRT takes the first of equal values", "use select_last_index=0", "select_last_index")
    axis = node.axis("axis", 0)
    code = "ARG_MAX" if node.op_type == "ArgMax" else "ARG_MIN"
    dropped = tuple(d for i, d in enumerate(node.x.shape) if i != axis)
    out = node.y if node.y.shape == dropped else node.temp(dropped, "dropped")
    node.emit(code, [node.x, node.const(axis, np.int32, "axis")], out, outputType=node.y.dtype)
    if out is not node.y:
        node.reshape(out, node.y.shape, out=node.y)


@lowers("CumSum")
def cumulative_sum(node: Node) -> None:
    axis = node.constant(1)
    assert axis is not None
    where = node.const(int(axis.reshape(-1)[0]) % node.x.rank, np.int32, "axis")
    node.emit("CUMSUM", [node.x, where], exclusive=bool(node.integer("exclusive", 0)), reverse=bool(node.integer("reverse", 0)))


@lowers("TopK")
def top_k(node: Node) -> None:
    """The largest k along the last axis, sorted."""
    k = node.constant(1)
    if k is None or node.axis("axis", -1) != node.x.rank - 1 or node.integer("largest", 1) != 1:
        raise node.refuse("LiteRT finds the largest k along the last axis", "use axis=-1 and largest=1", "axis")
    count = node.const(int(k.reshape(-1)[0]), np.int32, "k")
    values = node.outputs[0]
    if len(node.outputs) == 1:
        node.emit("TOPK_V2", [node.x, count], [values, node.like(values, "indices", np.int32)])
        return
    wide = node.outputs[1]
    indices = node.like(wide, "indices32", np.int32)
    node.emit("TOPK_V2", [node.x, count], [values, indices])
    node.emit("CAST", [indices], wide, inDataType=indices.dtype, outDataType=wide.dtype)
