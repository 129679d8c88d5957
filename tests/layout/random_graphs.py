"""Random small ONNX graphs over every operator that has a layout rule, as a hypothesis strategy."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dim = int | str
BATCH = 2  # what the symbolic dimension N is when the graph runs


class Builder:
    """Grows a graph node by node; `pick` draws one of several options."""

    def __init__(self, pick: Callable[[Any], Any]) -> None:
        self.pick = pick
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.shapes: dict[str, tuple[Dim, ...]] = {}

    def input(self, shape: tuple[Dim, ...]) -> None:
        name = f"in{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        self.shapes[name] = shape

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def noise(self, *shape: int) -> str:
        return self.constant(self.random.normal(size=shape))

    def add(self, op: str, inputs: list[str], *shapes: tuple[Dim, ...], **attributes: Any) -> None:
        names = [f"v{len(self.shapes) + i}" for i in range(len(shapes))]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        self.shapes.update(zip(names, shapes, strict=True))

    def value(self, fits: Callable[[tuple[Dim, ...]], bool]) -> str | None:
        names = [name for name, shape in self.shapes.items() if fits(shape)]
        return self.pick(names) if names else None

    def step(self) -> None:
        name = self.value(lambda s: len(s) >= 1 and all(isinstance(d, str) or d > 0 for d in s))
        assert name is not None
        self.pick(STEPS)(self, name, self.shapes[name])

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, self.shapes[name]) for name in outputs]
        graph = helper.make_graph(self.nodes, "random", self.inputs, infos, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def _axis(b: Builder, shape: tuple[Dim, ...]) -> int | None:
    """An axis of fixed size, written from the front or from the back."""
    axes = [a for a, d in enumerate(shape) if isinstance(d, int)]
    return b.pick([*axes, *(a - len(shape) for a in axes)]) if axes else None


def _unary(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    b.add(b.pick(["Relu", "Sigmoid", "Neg"]), [x], shape)


def _with_constant(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    keep = b.pick(range(len(shape) + 1))
    sizes = [b.pick([d, 1]) if isinstance(d, int) else 1 for d in shape[len(shape) - keep :]]
    pair = [x, b.noise(*sizes)]
    b.add(b.pick(["Add", "Mul", "Sub", "Max"]), b.pick([pair, pair[::-1]]), shape)


def _with_value(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    def broadcasts(other: tuple[Dim, ...]) -> bool:
        pairs = zip(shape[::-1], other[::-1], strict=False)
        return all(p == q or q == 1 for p, q in pairs) and len(other) <= len(shape)

    other = b.value(broadcasts)
    assert other is not None
    b.add(b.pick(["Add", "Mul"]), b.pick([[x, other], [other, x]]), shape)


def _where(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    name = f"mask{len(b.nodes)}"
    b.nodes.append(helper.make_node("Greater", [x, b.constant(0)], [name]))
    b.add("Where", [name, x, b.constant(b.random.normal())], shape)


def _transpose(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    perm = b.pick([tuple(p) for p in (np.random.default_rng(i).permutation(len(shape)) for i in range(8))])
    b.add("Transpose", [x], tuple(shape[p] for p in perm), perm=perm)


def _conv(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    if len(shape) not in (3, 4, 5) or not all(isinstance(d, int) for d in shape[1:]):
        return
    channels, out, spatial = int(shape[1]), b.pick([1, 3]), len(shape) - 2  # type: ignore[arg-type]
    weights = b.noise(out, channels, *[3] * spatial)
    b.add("Conv", [x, weights], (shape[0], out, *shape[2:]), pads=[1] * 2 * spatial)


def _pool(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    if len(shape) not in (3, 4, 5) or not all(isinstance(d, int) for d in shape[1:]):
        return
    spatial = len(shape) - 2
    if b.pick([True, False]):
        b.add("GlobalAveragePool", [x], (*shape[:2], *[1] * spatial))
    else:
        b.add("MaxPool", [x], shape, kernel_shape=[3] * spatial, pads=[1] * 2 * spatial)


def _concat(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    axis = _axis(b, shape)
    if axis is None or prod(d for d in shape if isinstance(d, int)) > 500:
        return
    parts = [x, x]
    if all(isinstance(d, int) for d in shape) and b.pick([True, False]):
        parts = [b.noise(*shape), x]  # type: ignore[arg-type]
    new = list(shape)
    new[axis] = 2 * int(shape[axis])
    b.add("Concat", parts, tuple(new), axis=axis)


def _split(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    axis = _axis(b, shape)
    if axis is None or int(shape[axis]) < 2:
        return
    first, second = list(shape), list(shape)
    first[axis], second[axis] = 1, int(shape[axis]) - 1
    b.add("Split", [x, b.constant([1, second[axis]], np.int64)], tuple(first), tuple(second), axis=axis)


def _slice(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    axis = _axis(b, shape)
    if axis is None:
        return
    dtype = b.pick([np.int64, np.int32])
    new = list(shape)
    step = b.pick([1, -1])
    start, end = (0, max(1, int(shape[axis]) - 1)) if step == 1 else (-1, -9999)
    new[axis] = end if step == 1 else shape[axis]
    b.add("Slice", [x, *(b.constant([v], dtype) for v in (start, end, axis, step))], tuple(new))


def _pad(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    axis = _axis(b, shape)
    if axis is None:
        return
    new = list(shape)
    new[axis] = int(shape[axis]) + 3
    if b.pick([True, False]):
        b.add("Pad", [x, b.constant([1, 2], np.int64), "", b.constant([axis], np.int64)], tuple(new))
    else:
        pads = np.zeros(2 * len(shape), np.int64)
        pads[axis % len(shape)], pads[axis % len(shape) + len(shape)] = 1, 2
        b.add("Pad", [x, b.constant(pads, np.int64)], tuple(new))


def _reduce(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    axes = b.pick([[0], [-1], list(range(len(shape) // 2, len(shape))), list(range(1, len(shape)))])
    if not axes:
        return
    keep = b.pick([0, 1])
    gone = {a % len(shape) for a in axes}
    new = tuple(1 if a in gone else d for a, d in enumerate(shape) if keep or a not in gone)
    b.add(b.pick(["ReduceMean", "ReduceMax"]), [x, b.constant(axes, np.int64)], new, keepdims=keep)


def _argmax(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    axis = _axis(b, shape)
    if axis is None:
        return
    keep, name = b.pick([0, 1]), f"index{len(b.nodes)}"
    b.nodes.append(helper.make_node("ArgMax", [x], [name], axis=axis, keepdims=keep))
    gone = axis % len(shape)
    b.add("Cast", [name], tuple(1 if a == gone else d for a, d in enumerate(shape) if keep or a != gone), to=TensorProto.FLOAT)


def _softmax(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    axis = _axis(b, shape)
    if axis is not None:
        b.add("Softmax", [x], shape, axis=axis)


def _layer_norm(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    if isinstance(shape[-1], int):
        b.add("LayerNormalization", [x, b.noise(shape[-1]), b.noise(shape[-1])], shape, axis=-1)


def _cumsum(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    axis = _axis(b, shape)
    if axis is not None:
        b.add("CumSum", [x, b.constant(axis, np.int64)], shape)


def _reshape(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    """Merge two neighbours, split an axis, or flatten what follows the first axis."""
    start = 1 if isinstance(shape[0], str) else 0
    tail = [d for d in shape[start:] if isinstance(d, int)]
    if len(tail) != len(shape) - start or not tail:
        return
    at, how = b.pick(range(len(tail))), b.pick(["merge", "split", "flatten", "regroup"])
    if how == "flatten":
        b.add("Flatten", [x], (shape[0] if start else 1, prod(tail)), axis=start)
        return
    if how == "merge" and at + 1 < len(tail):
        tail[at : at + 2] = [tail[at] * tail[at + 1]]
    elif how == "split" and len(tail) < 4 and tail[at] % 2 == 0:
        tail[at : at + 1] = b.pick([[2, tail[at] // 2], [tail[at] // 2, 2], [tail[at], 1]])
    elif how == "regroup":
        tail = tail[::-1]
    target = [0] * start + tail
    b.add("Reshape", [x, b.constant(target, np.int64)], (*shape[:start], *tail))


def _reshape_around_transpose(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    """Patches and their like: other cuts of the same elements on either side of a Transpose."""
    if not all(isinstance(d, int) for d in shape):
        return
    for side in range(2):
        size = prod(int(d) for d in shape)
        cuts = [d for d in range(1, size + 1) if size % d == 0]
        first = b.pick(cuts)
        second = b.pick([d for d in cuts if size // first % d == 0])
        shape = (first, second, size // first // second)
        b.add("Reshape", [x, b.constant(shape, np.int64)], shape)
        if side == 0:
            perm = b.pick([(1, 0, 2), (0, 2, 1), (2, 0, 1)])
            shape = tuple(shape[p] for p in perm)
            b.add("Transpose", [list(b.shapes)[-1]], shape, perm=perm)
        x = list(b.shapes)[-1]


def _squeeze(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    ones = [a for a, d in enumerate(shape) if d == 1]
    if ones and len(shape) > 2:
        gone = b.pick(ones)
        axes = b.constant([b.pick([gone, gone - len(shape)])], np.int64)
        b.add("Squeeze", [x, axes], (*shape[:gone], *shape[gone + 1 :]))


def _unsqueeze(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    if len(shape) < 5:
        at = b.pick(range(len(shape) + 1))
        b.add("Unsqueeze", [x, b.constant([at], np.int64)], (*shape[:at], 1, *shape[at:]))


def _gather(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    axis = _axis(b, shape)
    if axis is None or len(shape) < 2:
        return
    at = axis % len(shape)
    if b.pick([True, False]):
        b.add("Gather", [x, b.constant([0, -1, 0], np.int64)], (*shape[:at], 3, *shape[at + 1 :]), axis=axis)
    else:
        b.add("Gather", [x, b.constant(0, np.int64)], (*shape[:at], *shape[at + 1 :]), axis=axis)


def _tile(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    axis = _axis(b, shape)
    if axis is None or prod(d for d in shape if isinstance(d, int)) > 500:
        return
    repeats = [1] * len(shape)
    repeats[axis] = 2
    b.add(
        "Tile",
        [x, b.constant(repeats, np.int64)],
        tuple(d * r if isinstance(d, int) else d for d, r in zip(shape, repeats, strict=True)),
    )


def _expand(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    if all(isinstance(d, int) for d in shape) and prod(shape) < 500:  # type: ignore[arg-type]
        wide = [2 if d == 1 else d for d in shape]
        wide = b.pick([wide, [2, *wide]]) if len(shape) < 5 else wide
        b.add("Expand", [x, b.constant(wide, np.int64)], tuple(wide))  # type: ignore[arg-type]


def _matmul(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    if isinstance(shape[-1], int) and len(shape) >= 2:
        b.add("MatMul", [x, b.noise(shape[-1], 4)], (*shape[:-1], 4))


def _self_product(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    """Attention scores: x · xᵀ."""
    if len(shape) >= 3 and isinstance(shape[-2], int):
        order = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
        b.add("Transpose", [x], tuple(shape[a] for a in order), perm=order)
        b.add("MatMul", [x, list(b.shapes)[-1]], (*shape[:-1], shape[-2]))


def _gemm(b: Builder, x: str, shape: tuple[Dim, ...]) -> None:
    if len(shape) == 2 and isinstance(shape[1], int):
        b.add("Gemm", [x, b.noise(6, shape[1]), b.noise(6)], (shape[0], 6), transB=1)


STEPS = [
    _transpose, _unary, _with_constant, _with_value, _where, _conv, _pool, _concat, _split, _slice, _pad, _reduce, _argmax,
    _softmax, _layer_norm, _cumsum, _reshape, _squeeze, _unsqueeze, _gather, _tile, _expand, _matmul, _self_product, _gemm,
    _transpose, _conv, _reshape, _with_value, _reshape_around_transpose,
]  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn) -> onnx.ModelProto:
    """A graph of a few nodes; hypothesis can shrink it to the simplest that fails."""
    return grown(lambda options: draw(st.sampled_from(list(options))), 12)


def grown(pick: Callable[[Any], Any], steps: int) -> onnx.ModelProto:
    """A graph on one or two inputs, whose last values and a few others are outputs."""
    b = Builder(pick)
    rank = pick([2, 3, 4, 4, 5])
    batch: Dim = pick([1, 2, "N"])
    b.input((batch, *(pick([1, 3, 4]) for _ in range(rank - 1))))
    if pick([True, False]):
        b.input(pick([next(iter(b.shapes.values())), (4, 1), (batch, 3, 4, 4)]))
    for _ in range(pick(range(steps // 2, steps + 1))):
        b.step()
    made = [name for name in b.shapes if name.startswith("v")]
    if not made:
        _unary(b, "in0", b.shapes["in0"])
        made = list(b.shapes)[-1:]
    used = {name for node in b.nodes for name in node.input}
    outputs = [name for name in made if name not in used or pick(range(5)) == 4]
    return b.model(outputs)


def feeds(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """One array of noise per input."""
    random = np.random.default_rng(1)
    shapes = {i.name: [d.dim_value or BATCH for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
