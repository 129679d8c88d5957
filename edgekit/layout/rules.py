"""What each ONNX operator allows to happen to the axes of its operands.

A rule says two things about a node: which groups its operands form (edgekit.layout.assign) and how to rewrite the node once
their permutations are chosen, so that it computes the same on permuted operands. Constants are permuted on the spot and have
no say. An operator without a rule keeps its operands in the logical order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit.layout import reshape
from edgekit.layout.permutation import Perm, after, channels_last, identity, insert, inverse, remove

CHANNELS_LAST = "edgekit.channels_last"
"""Domain of a spatial operator that works on N…C; its weights are still the logical ones."""

Relation = Callable[[int, Perm], "tuple[Perm, ...] | None"]


@dataclass(frozen=True)
class Part:
    """Operands of one node that choose their permutations together.

    `relate(i, perm)` gives the permutations of all operands when the i-th has `perm`; None for a part that can only have
    `default`.
    """

    operands: tuple[ir.Value, ...]
    default: tuple[Perm, ...]
    relate: Relation | None = None


@dataclass(frozen=True)
class Rule:
    """How one operator deals with permuted operands."""

    parts: Callable[[ir.Node], list[Part]]
    rewrite: Callable[[Rewriter], None]


class Rewriter:
    """One node to be rewritten, with the permutations its operands were given."""

    def __init__(self, node: ir.Node, perms: dict[tuple[ir.Value, bool], Perm]) -> None:
        self.node = node
        self._perms = perms

    def input_perm(self, i: int) -> Perm:
        value = self.node.inputs[i]
        assert value is not None
        return self._perms.get((value, False), identity(rank(value)))

    def output_perm(self, i: int = 0) -> Perm:
        value = self.node.outputs[i]
        return self._perms.get((value, True), identity(rank(value)))

    def set_attribute(self, name: str, value: int | Sequence[int]) -> None:
        self.node.attributes[name] = ir.AttrInt64(name, value) if isinstance(value, int) else ir.AttrInt64s(name, value)

    def set_constant(self, i: int, array: np.ndarray, suffix: str) -> None:
        """Make a new initializer the node's i-th input."""
        graph = self.node.graph
        assert isinstance(graph, ir.Graph)
        name = f"{self.node.outputs[0].name}/{suffix}"
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name), type=None)
        value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
        graph.register_initializer(value)
        if i >= len(self.node.inputs):
            self.node.resize_inputs(i + 1)
        self.node.replace_input_with(i, value)

    def set_input(self, i: int, op_type: str, inputs: Sequence[ir.Value], shape: Sequence[int | str]) -> ir.Value:
        """Put a new node between the node's i-th input and the node."""
        old = self.node.inputs[i]
        assert old is not None
        assert self.node.graph is not None
        new = ir.node(op_type, inputs)
        new.outputs[0].name = f"{self.node.outputs[0].name}/input{i}"
        new.outputs[0].dtype, new.outputs[0].shape = old.dtype, ir.Shape(shape)
        self.node.graph.insert_before(self.node, new)
        self.node.replace_input_with(i, new.outputs[0])
        return new.outputs[0]


def rank(value: ir.Value) -> int:
    """Number of axes; a value of unknown rank counts as a scalar, which nothing permutes."""
    return len(value.shape) if value.shape is not None else 0


def dims(value: ir.Value) -> tuple[int | str, ...]:
    """Its shape with symbolic dimensions as strings (an unnamed one is `?`)."""
    return tuple(d if isinstance(d, int) else str(d.value or "?") for d in (value.shape or ()))


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer, None for anything computed."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    return node.attributes[name].as_int() if name in node.attributes else default


def is_free(value: ir.Value | None) -> bool:
    """Whether an operand has a say: it is computed and has axes that could be permuted."""
    return value is not None and value.const_value is None and rank(value) >= 2


def fixed(node: ir.Node) -> list[Part]:
    """All operands in the logical order."""
    operands = tuple(v for v in (*node.inputs, *node.outputs) if is_free(v))
    return [Part(operands, tuple(identity(rank(v)) for v in operands))]  # type: ignore[arg-type]


def _spatial(permutation: Callable[[int], Perm]) -> Callable[[ir.Node], list[Part]]:
    def parts(node: ir.Node) -> list[Part]:
        operands = tuple(v for v in (node.inputs[0], *node.outputs) if is_free(v))
        return [Part(operands, tuple(permutation(rank(v)) for v in operands))]  # type: ignore[arg-type]

    return parts


def _mark_channels_last(r: Rewriter) -> None:
    if r.output_perm() != identity(len(r.output_perm())):
        r.node.domain = CHANNELS_LAST
        r.node.version = 1


def _keep(r: Rewriter) -> None:
    """The node computes the same on permuted operands."""


def _one_part(
    operands: Sequence[ir.Value | None], relate_all: Callable[[list[ir.Value]], Relation], default: Callable[[ir.Value], Perm]
) -> list[Part]:
    present = [v for v in operands if is_free(v)]
    if not present:
        return []
    chosen: list[ir.Value] = [v for v in present if v is not None]
    return [Part(tuple(chosen), tuple(default(v) for v in chosen), relate_all(chosen))]


# Elementwise, with numpy broadcasting -------------------------------------------------------------------------------------


def _elementwise(node: ir.Node) -> list[Part]:
    full = rank(node.outputs[0])

    def relation(operands: list[ir.Value]) -> Relation:
        def relate(i: int, perm: Perm) -> tuple[Perm, ...]:
            missing = full - rank(operands[i])
            whole = (*range(missing), *(a + missing for a in perm))
            return tuple(_restricted(whole, rank(v)) for v in operands)

        return relate

    return _one_part((*node.inputs, *node.outputs), relation, lambda v: identity(rank(v)))


def _restricted(whole: Perm, to_rank: int) -> Perm:
    missing = len(whole) - to_rank
    return tuple(a - missing for a in whole if a >= missing)


def _broadcast_inputs(r: Rewriter) -> None:
    whole = r.output_perm()
    for i, value in enumerate(r.node.inputs):
        if value is None or rank(value) == 0 or whole == identity(len(whole)):
            continue
        missing = len(whole) - rank(value)
        added = [place for place, axis in enumerate(whole) if axis < missing]
        array = constant(value)
        if array is not None:
            if array.size > 1 or array.ndim > 1:
                held = array.reshape((1,) * missing + array.shape).transpose(whole)
                leading = next((k for k, d in enumerate(held.shape) if d != 1), held.ndim)
                r.set_constant(i, np.ascontiguousarray(held.reshape(held.shape[min(leading, missing) :])), f"constant{i}")
        elif added != list(range(missing)):
            # New axes of size 1 land inside the value: they must be written out.
            axes = ir.Value(name=f"{r.node.outputs[0].name}/axes{i}", const_value=ir.tensor(np.array(added, np.int64)))
            axes.dtype, axes.shape = ir.DataType.INT64, ir.Shape([len(added)])
            graph = r.node.graph
            assert isinstance(graph, ir.Graph)
            graph.register_initializer(axes)
            shape = _held_with_ones(value, whole, missing)
            r.set_input(i, "Unsqueeze", [value, axes], shape)


def _held_with_ones(value: ir.Value, whole: Perm, missing: int) -> list[int | str]:
    held = iter(dims(value))  # already in its held order
    return [1 if axis < missing else next(held) for axis in whole]


def _expand_parts(node: ir.Node) -> list[Part]:
    static = all(isinstance(d, int) for d in dims(node.outputs[0]))
    return _elementwise(node) if static else fixed(node)


def _expand(r: Rewriter) -> None:
    if r.output_perm() == identity(len(r.output_perm())):
        return
    shape = np.array(dims(r.node.outputs[0]), np.int64)  # the rewriter runs after values took their held shapes
    r.set_constant(1, shape, "shape")
    value = r.node.inputs[0]
    if constant(value) is not None:
        whole = r.output_perm()
        array = constant(value)
        assert array is not None
        r.set_constant(
            0, np.ascontiguousarray(array.reshape((1,) * (len(whole) - array.ndim) + array.shape).transpose(whole)), "data"
        )
    else:
        shape_input = r.node.inputs[1]
        _broadcast_inputs(r)
        r.node.replace_input_with(1, shape_input)


# Operators whose operands all have the same axes, some of which they name ------------------------------------------------


def _same_axes(node: ir.Node) -> list[Part]:
    return _one_part(
        (*node.inputs, *node.outputs), lambda operands: lambda i, perm: (perm,) * len(operands), lambda v: identity(rank(v))
    )


def _axis_attribute(default: int) -> Callable[[Rewriter], None]:
    def rewrite(r: Rewriter) -> None:
        perm = r.output_perm()
        if perm == identity(len(perm)):
            return
        r.set_attribute("axis", perm.index(integer(r.node, "axis", default) % len(perm)))
        for i, value in enumerate(r.node.inputs):
            array = constant(value)
            if array is not None and array.ndim == len(perm):  # a constant operand of Concat
                r.set_constant(i, np.ascontiguousarray(array.transpose(perm)), f"constant{i}")

    return rewrite


def _trailing_axes(default: int) -> Callable[[ir.Node], list[Part]]:
    """Operators on the axes from `axis` to the last (LayerNormalization): those stay where they are."""

    def parts(node: ir.Node) -> list[Part]:
        first = integer(node, "axis", default) % max(1, rank(node.outputs[0]))

        def relation(operands: list[ir.Value]) -> Relation:
            def relate(i: int, perm: Perm) -> tuple[Perm, ...] | None:
                tail = tuple(range(first, len(perm)))
                return (perm,) * len(operands) if perm[first:] == tail else None

            return relate

        return _one_part((node.inputs[0], node.outputs[0]), relation, lambda v: identity(rank(v)))

    return parts


def _axes_input(index: int) -> Callable[[Rewriter], None]:
    """Slice, Pad: the axes they act on are an input, all of them where it is absent."""

    def rewrite(r: Rewriter) -> None:
        perm = r.output_perm()
        if perm == identity(len(perm)):
            return
        given = constant(r.node.inputs[index]) if len(r.node.inputs) > index else None
        axes = range(len(perm)) if given is None else given.tolist()
        r.set_constant(index, np.array([perm.index(a % len(perm)) for a in axes], np.int64), "axes")

    return rewrite


def _if_constant(index: int, parts: Callable[[ir.Node], list[Part]]) -> Callable[[ir.Node], list[Part]]:
    """A rule that holds only while that input is a constant or absent."""

    def checked(node: ir.Node) -> list[Part]:
        absent = len(node.inputs) <= index or node.inputs[index] is None
        return parts(node) if absent or constant(node.inputs[index]) is not None else fixed(node)

    return checked


def _slice_parts(node: ir.Node) -> list[Part]:
    # Without axes, starts may be shorter than the rank: then only the logical order is plain.
    if len(node.inputs) <= 3 or node.inputs[3] is None:
        starts = constant(node.inputs[1])
        if starts is None or len(starts) != rank(node.outputs[0]):
            return fixed(node)
    return _if_constant(3, _same_axes)(node)


def _tile(r: Rewriter) -> None:
    perm = r.output_perm()
    if perm != identity(len(perm)):
        repeats = constant(r.node.inputs[1])
        assert repeats is not None
        r.set_constant(1, repeats[list(perm)], "repeats")


def _cumsum(r: Rewriter) -> None:
    perm = r.output_perm()
    if perm != identity(len(perm)):
        axis = constant(r.node.inputs[1])
        assert axis is not None
        r.set_constant(1, np.array(perm.index(int(axis) % len(perm)), np.int64), "axis")


# Operators that remove or add axes ---------------------------------------------------------------------------------------


def _removing(node: ir.Node, axes: Sequence[int], kept: bool) -> list[Part]:
    """Reductions and Squeeze: `axes` disappear unless they are kept with size 1."""

    def relation(operands: list[ir.Value]) -> Relation:
        def relate(i: int, perm: Perm) -> tuple[Perm, ...]:
            is_input = operands[i] is node.inputs[0]
            if kept:
                return (perm,) * len(operands)
            whole = perm if is_input else insert(perm, axes)
            return tuple(whole if v is node.inputs[0] else remove(whole, axes) for v in operands)

        return relate

    return _one_part((node.inputs[0], node.outputs[0]), relation, lambda v: identity(rank(v)))


def reduced_axes(node: ir.Node) -> list[int] | None:
    """The axes a Reduce… node reduces, non-negative; None where they are computed."""
    source = node.inputs[0]
    assert source is not None
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = constant(node.inputs[1])
        if axes is None:
            return None
        if axes.size:
            return [int(a) % rank(source) for a in axes.reshape(-1)]
    return [] if integer(node, "noop_with_empty_axes", 0) else list(range(rank(source)))


def _reduce_parts(node: ir.Node) -> list[Part]:
    axes = reduced_axes(node)
    return fixed(node) if axes is None else _removing(node, axes, bool(integer(node, "keepdims", 1)))


def _reduce(r: Rewriter) -> None:
    perm = r.input_perm(0)
    axes = reduced_axes(r.node)
    if perm != identity(len(perm)) and axes:
        r.set_constant(1, np.array(sorted(perm.index(a) for a in axes), np.int64), "axes")


def _arg_parts(node: ir.Node) -> list[Part]:
    source = node.inputs[0]
    assert source is not None
    return _removing(node, [integer(node, "axis", 0) % max(1, rank(source))], bool(integer(node, "keepdims", 1)))


def _arg(r: Rewriter) -> None:
    perm = r.input_perm(0)
    r.set_attribute("axis", perm.index(integer(r.node, "axis", 0) % len(perm)))


def _squeeze_parts(node: ir.Node) -> list[Part]:
    axes = _squeezed(node)
    return fixed(node) if axes is None else _removing(node, axes, False)


def _squeezed(node: ir.Node) -> list[int] | None:
    source = node.inputs[0]
    assert source is not None
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = constant(node.inputs[1])
        return None if axes is None else [int(a) % rank(source) for a in axes]
    return [i for i, d in enumerate(dims(source)) if d == 1]


def _squeeze(r: Rewriter) -> None:
    perm = r.input_perm(0)
    if perm == identity(len(perm)):
        return
    axes = _squeezed(r.node) if len(r.node.inputs) > 1 else None
    if axes is not None:  # without axes every dimension of size 1 goes, in whichever order
        r.set_constant(1, np.array(sorted(perm.index(a) for a in axes), np.int64), "axes")


def _unsqueeze_parts(node: ir.Node) -> list[Part]:
    axes = constant(node.inputs[1])
    if axes is None:
        return fixed(node)
    new = [int(a) % rank(node.outputs[0]) for a in axes]

    def relation(operands: list[ir.Value]) -> Relation:
        def relate(i: int, perm: Perm) -> tuple[Perm, ...]:
            whole = insert(perm, new) if operands[i] is node.inputs[0] else perm
            return tuple(remove(whole, new) if v is node.inputs[0] else whole for v in operands)

        return relate

    return _one_part((node.inputs[0], node.outputs[0]), relation, lambda v: identity(rank(v)))


def _unsqueeze(r: Rewriter) -> None:
    perm = r.output_perm()
    axes = constant(r.node.inputs[1])
    if perm != identity(len(perm)) and axes is not None:
        r.set_constant(1, np.array(sorted(perm.index(int(a) % len(perm)) for a in axes), np.int64), "axes")


def _gather_parts(node: ir.Node) -> list[Part]:
    data, indices = node.inputs[:2]
    if data is None or indices is None or rank(indices) > 1 or constant(data) is not None:
        return fixed(node)
    if rank(indices) == 1:
        return _same_axes_of((data, node.outputs[0]))
    return _removing(node, [integer(node, "axis", 0) % rank(data)], False)


def _same_axes_of(operands: Sequence[ir.Value | None]) -> list[Part]:
    return _one_part(operands, lambda chosen: lambda i, perm: (perm,) * len(chosen), lambda v: identity(rank(v)))


def _gather(r: Rewriter) -> None:
    data = r.node.inputs[0]
    if is_free(data):
        _arg(r)


# Transpose and Reshape ---------------------------------------------------------------------------------------------------


def transpose_perm(node: ir.Node) -> Perm:
    """A Transpose's permutation; reversed axes where it is not given."""
    if "perm" in node.attributes:
        return tuple(node.attributes["perm"].as_ints())
    source = node.inputs[0]
    assert source is not None
    return tuple(reversed(range(rank(source))))


def _transpose_parts(node: ir.Node) -> list[Part]:
    perm = transpose_perm(node)

    def relation(operands: list[ir.Value]) -> Relation:
        def relate(i: int, given: Perm) -> tuple[Perm, ...]:
            source = given if operands[i] is node.inputs[0] else after(given, perm)
            result = after(source, inverse(perm))
            return tuple(source if v is node.inputs[0] else result for v in operands)

        return relate

    return _one_part(
        (node.inputs[0], node.outputs[0]), relation, lambda v: identity(len(perm)) if v is node.inputs[0] else inverse(perm)
    )


def _transpose(r: Rewriter) -> None:
    """The operands were chosen so that nothing moves: the node becomes an Identity, which the caller removes."""
    if is_free(r.node.inputs[0]):
        r.node.op_type = "Identity"
        r.node.attributes.pop("perm", None)


def _reshape_parts(node: ir.Node) -> list[Part]:
    source, result = node.inputs[0], node.outputs[0]
    if source is None or not is_free(source) or not is_free(result) or "?" in dims(source) + dims(result):
        return fixed(node)
    blocks = reshape.blocks(dims(source), dims(result))
    if blocks is None or len([d for d in dims(result) if not isinstance(d, int)]) > 1:
        return fixed(node)
    shapes = dims(source), dims(result)

    def relate(i: int, perm: Perm) -> tuple[Perm, ...] | None:
        other = reshape.carry(perm, blocks, i, shapes)
        return None if other is None else ((perm, other) if i == 0 else (other, perm))

    return [Part((source, result), (identity(rank(source)), identity(rank(result))), relate)]


def _reshape(r: Rewriter) -> None:
    ends = r.input_perm(0), r.output_perm()
    if any(p != identity(len(p)) for p in ends):
        shape = [d if isinstance(d, int) else -1 for d in dims(r.node.outputs[0])]
        r.node.attributes.pop("allowzero", None)
        r.set_constant(1, np.array(shape, np.int64), "shape")


# Matrix products ---------------------------------------------------------------------------------------------------------


def _matmul_parts(node: ir.Node) -> list[Part]:
    """With a constant matrix on the right, the axes before the last only count as a batch and may be held in any order."""
    weight = constant(node.inputs[1])
    if weight is None or weight.ndim != 2:
        return fixed(node)

    def relation(operands: list[ir.Value]) -> Relation:
        return lambda i, perm: (perm,) * len(operands) if perm[-1] == len(perm) - 1 else None

    return _one_part((node.inputs[0], node.outputs[0]), relation, lambda v: identity(rank(v)))


_ELEMENTWISE = """
Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Ceil Celu Clip Cos Cosh Div
Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max
Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum
Swish Tan Tanh ThresholdedRelu Where Xor
""".split()
_REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare".split()
)
SPATIAL = """
AveragePool Conv ConvTranspose DepthToSpace GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample LpPool LRN MaxPool Resize
SpaceToDepth
""".split()

TRANSPARENT: dict[str, Rule] = {
    **{op: Rule(_elementwise, _broadcast_inputs) for op in _ELEMENTWISE},
    **{op: Rule(_reduce_parts, _reduce) for op in _REDUCTIONS},
    **{op: Rule(_arg_parts, _arg) for op in ("ArgMax", "ArgMin")},
    **{op: Rule(_same_axes, _axis_attribute(-1)) for op in ("Softmax", "LogSoftmax", "Hardmax", "LpNormalization")},
    **{op: Rule(_trailing_axes(-1), _keep) for op in ("LayerNormalization", "RMSNormalization")},
    "Concat": Rule(_same_axes, _axis_attribute(0)),
    "Split": Rule(_same_axes, _axis_attribute(0)),
    "Slice": Rule(_slice_parts, _axes_input(3)),
    "Pad": Rule(_if_constant(3, _same_axes), _axes_input(3)),
    "Tile": Rule(_if_constant(1, _same_axes), _tile),
    "CumSum": Rule(_if_constant(1, _same_axes), _cumsum),
    "Expand": Rule(_expand_parts, _expand),
    "Squeeze": Rule(_squeeze_parts, _squeeze),
    "Unsqueeze": Rule(_unsqueeze_parts, _unsqueeze),
    "Gather": Rule(_gather_parts, _gather),
    "Transpose": Rule(_transpose_parts, _transpose),
    "Reshape": Rule(_reshape_parts, _reshape),
    "Flatten": Rule(_reshape_parts, _reshape),
    "MatMul": Rule(_matmul_parts, _keep),
}
"""Operators that can follow their neighbours, true for ONNX itself."""

CHANNELS_FIRST_RULES: dict[str, Rule] = TRANSPARENT
"""For a graph that stays ONNX: spatial operators work on NC…, like every operator without a rule."""

CHANNELS_LAST_RULES: dict[str, Rule] = {
    **TRANSPARENT,
    **{op: Rule(_spatial(channels_last), _mark_channels_last) for op in SPATIAL},
    **{op: Rule(_trailing_axes(-1), _keep) for op in ("Softmax", "LogSoftmax")},
}
"""For LiteRT: spatial operators work on N…C, and softmax only on the last axis."""
