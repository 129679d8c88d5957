"""Small rewrites on the LiteRT graph, until none applies.

Each rule has one subject and looks at an operator and its neighbours. Together they are what the runtime can do in one operator
that ONNX says in two: activations, biases, merged reshapes, scalar factors that end in weights.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekit.litert.graph import Graph, Operator, Tensor

FUSED = {"RELU": "RELU", "RELU6": "RELU6", "RELU_N1_TO_1": "RELU_N1_TO_1"}
CAN_FUSE = {
    "ADD",
    "AVERAGE_POOL_2D",
    "CONV_2D",
    "CONV_3D",
    "DEPTHWISE_CONV_2D",
    "DIV",
    "FULLY_CONNECTED",
    "MAX_POOL_2D",
    "MUL",
    "SUB",
    "TRANSPOSE_CONV",
}
SCALABLE = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "CONV_3D"}
"""Weights are input 1, the bias input 2."""
LINEAR = SCALABLE | {"TRANSPOSE_CONV"}
REDUCTIONS = {"MEAN", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM"}
UNARY = {
    "ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "NEG", "RELU", "RELU6",
    "RELU_0_TO_1", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIGN", "SIN", "SQRT", "SQUARE", "TANH",
}  # fmt: skip


def simplify(graph: Graph) -> None:
    """Apply the rules to this graph and its subgraphs until nothing changes, in place."""
    for part in graph.with_subgraphs():
        work = _Work(part)
        changed = True
        while changed:
            changed = False
            for op in list(part.operators):
                if id(op) in work.alive:
                    changed |= any(rule(work, op) for rule in RULES)
            part.operators = [op for op in part.operators if id(op) in work.alive]
        remove_dead(part)


class _Work:
    """The graph with its edges indexed, kept right while rules rewrite it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.alive = {id(op) for op in graph.operators}
        self.producer = graph.producers()
        self.users = graph.consumers()
        self.outputs = set(graph.outputs)

    def made_by(self, tensor: Tensor | None) -> Operator | None:
        return self.producer.get(tensor) if tensor is not None else None

    def only_user(self, tensor: Tensor) -> Operator | None:
        """The one operator that takes a tensor, if there is just one and the tensor is no output of the graph."""
        users = self.users.get(tensor, [])
        return users[0] if len(users) == 1 and tensor not in self.outputs else None

    def set_input(self, op: Operator, i: int, tensor: Tensor | None) -> None:
        old = op.inputs[i]
        if old is not None:
            self.users[old].remove(op)
        op.inputs[i] = tensor
        if tensor is not None:
            self.users.setdefault(tensor, []).append(op)

    def set_output(self, op: Operator, tensor: Tensor) -> None:
        """The operator makes that tensor from now on."""
        op.outputs[0] = tensor
        self.producer[tensor] = op

    def replace(self, tensor: Tensor, by: Tensor) -> None:
        """Every user of a tensor takes another one instead."""
        for user in list(self.users.get(tensor, [])):
            for i, operand in enumerate(user.inputs):
                if operand is tensor:
                    self.set_input(user, i, by)

    def remove(self, op: Operator) -> None:
        self.alive.discard(id(op))
        for tensor in op.inputs:
            if tensor is not None:
                self.users[tensor].remove(op)


Rule = Callable[[_Work, Operator], bool]


def fuse_activation(work: _Work, op: Operator) -> bool:
    """conv → RELU becomes conv with a fused RELU, also when reshapes and transposes stand between them."""
    tensor = op.inputs[0]
    if op.code not in FUSED or tensor is None or tensor.dtype != np.float32:
        return False
    last = maker = work.made_by(tensor)
    while (
        maker is not None and tensor is not None and work.only_user(tensor) is not None and maker.code in ("RESHAPE", "TRANSPOSE")
    ):
        tensor = maker.inputs[0]
        maker = work.made_by(tensor)
    if maker is None or last is None or tensor is None or work.only_user(tensor) is None:
        return False
    if maker.code not in CAN_FUSE or maker.activation != "NONE":
        return False
    maker.options["fusedActivationFunction"] = FUSED[op.code]
    work.remove(op)
    work.set_output(last, op.outputs[0])
    return True


def add_into_bias(work: _Work, op: Operator) -> bool:
    """conv → ADD or SUB of a constant per channel becomes conv with that bias, the ADD's activation included."""
    if op.code not in ("ADD", "SUB"):
        return False
    for i in (0, 1) if op.code == "ADD" else (0,):
        source, other = op.inputs[i], op.inputs[1 - i]
        before = work.made_by(source)
        if before is None or before.code not in LINEAR or before.activation != "NONE" or source is None or other is None:
            continue
        if work.only_user(source) is not op or source.shape != op.outputs[0].shape:
            continue
        channels = source.shape[-1]
        row = _per_channel(other, source.rank, channels)
        if row is None:
            continue
        place = 3 if before.code == "TRANSPOSE_CONV" else 2
        old = before.inputs[place] if len(before.inputs) > place else None
        if old is not None and old.data is None:
            continue
        base = 0.0 if old is None else old.data.astype(np.float64)  # type: ignore[union-attr]
        total = (base - row if op.code == "SUB" else base + row).astype(np.float32)
        bias = Tensor(f"{op.outputs[0].name}/bias", total.shape, total.dtype, total)
        while len(before.inputs) <= place:
            before.inputs.append(None)
        work.set_input(before, place, bias)
        if op.activation != "NONE":
            before.options["fusedActivationFunction"] = op.activation
        work.remove(op)
        work.set_output(before, op.outputs[0])
        return True
    return False


def factor_into_weights_below(work: _Work, op: Operator) -> bool:
    """A scalar factor sinks through what is linear in it until it meets constant weights.

    Before: relu6(a) → MUL(c) → MUL(b) → CONV_2D(W)    After: relu6(a) → MUL(b) → CONV_2D(c * W)
    """
    for factor, source in _scalar_factors(op):
        end = _weights_below(work, op)
        if end is None:
            return False
        _scale_constant(work, end, 1, factor)
        work.remove(op)
        work.replace(op.outputs[0], source)
        return True
    return False


def factor_into_weights_above(work: _Work, op: Operator) -> bool:
    """A scalar factor rises through reshapes, transposes and constant offsets into the weights that made its operand.

    Before: FULLY_CONNECTED(W, b) → RESHAPE → MUL(c)      After: FULLY_CONNECTED(c * W, c * b) → RESHAPE
    Before: BATCH_MATMUL(x, W) → ADD(b) → MUL(c)          After: BATCH_MATMUL(x, c * W) → ADD(c * b)
    """
    for factor, source in _scalar_factors(op):
        constants = _constants_above(work, source)
        if constants is None:
            return False
        for maker, place in constants:
            _scale_constant(work, maker, place, factor)
        last = work.made_by(source)
        assert last is not None
        work.remove(op)
        work.set_output(last, op.outputs[0])
        return True
    return False


def _scalar_factors(op: Operator) -> list[tuple[float, Tensor]]:
    """The ways to read a MUL as a float32 tensor times a constant number, without an activation."""
    if op.code != "MUL" or op.activation != "NONE":
        return []
    pairs = [(op.inputs[i], op.inputs[1 - i]) for i in (0, 1)]
    return [
        (float(factor.data.reshape(-1)[0]), source)
        for factor, source in pairs
        if factor is not None and factor.data is not None and factor.data.size == 1
        if source is not None and source.data is None and source.dtype == np.float32 and source.shape == op.outputs[0].shape
    ]


def _weights_below(work: _Work, op: Operator) -> Operator | None:
    """The operator with constant weights that a factor on `op`'s result may sink into, through linear operators with one user."""
    tensor = op.outputs[0]
    while True:
        user = work.only_user(tensor)
        if user is None:
            return None
        if user.code in SCALABLE:
            return user if user.inputs[0] is tensor and _may_scale(user, 1) else None
        squares = user.code == "MUL" and user.inputs[0] is user.inputs[1]
        if (
            user.code not in ("MUL", "RESHAPE", "TRANSPOSE", "MEAN", "SUM", "AVERAGE_POOL_2D")
            or user.activation != "NONE"
            or squares
        ):
            return None
        tensor = user.outputs[0]


def _constants_above(work: _Work, tensor: Tensor) -> list[tuple[Operator, int]] | None:
    """The constants to scale to scale a tensor: those of its makers up to the weights, each with one user; None if that fails."""
    found: list[tuple[Operator, int]] = []
    while True:
        maker = work.made_by(tensor)
        if maker is None or maker.activation != "NONE" or work.only_user(tensor) is None:
            return None
        source = maker.inputs[0]
        if maker.code == "BATCH_MATMUL" and _may_scale(maker, 1):
            return [*found, (maker, 1)]
        if maker.code in SCALABLE:
            has_bias = len(maker.inputs) > 2 and maker.inputs[2] is not None
            if not _may_scale(maker, 1) or (has_bias and not _may_scale(maker, 2)):
                return None
            return [*found, (maker, 1), (maker, 2)] if has_bias else [*found, (maker, 1)]
        if maker.code in ("ADD", "SUB") and _may_scale(maker, 1) and source is not None and source.shape == tensor.shape:
            found.append((maker, 1))
        elif maker.code not in ("RESHAPE", "TRANSPOSE"):
            return None
        if source is None:
            return None
        tensor = source


def _scale_constant(work: _Work, op: Operator, place: int, factor: float) -> None:
    old = op.inputs[place] if place < len(op.inputs) else None
    if old is not None and old.data is not None:
        scaled = (old.data.astype(np.float64) * factor).astype(old.dtype)
        work.set_input(op, place, Tensor(f"{old.name}/scaled", scaled.shape, scaled.dtype, scaled))


def _is_constant(op: Operator, place: int) -> bool:
    tensor = op.inputs[place] if place < len(op.inputs) else None
    return tensor is not None and tensor.data is not None


def _may_scale(op: Operator, place: int) -> bool:
    """Whether it is a constant, and not one of a quantized model: its integers would no longer fit it."""
    tensor = op.inputs[place] if place < len(op.inputs) else None
    return tensor is not None and tensor.data is not None and tensor.quantization is None


def merge_reshapes(work: _Work, op: Operator) -> bool:
    """A RESHAPE after a RESHAPE takes the first one's input; one that changes nothing disappears."""
    if op.code != "RESHAPE":
        return False
    source, result = op.inputs[0], op.outputs[0]
    before = work.made_by(source)
    if before is not None and before.code == "RESHAPE" and before.inputs[0] is not None and _is_constant_shape(op):
        work.set_input(op, 0, before.inputs[0])
        if not work.users.get(before.outputs[0]) and before.outputs[0] not in work.outputs:
            work.remove(before)
        return True
    if source is None or source.data is not None or source.shape != result.shape or not source.is_static:
        return False
    if result not in work.outputs:
        work.remove(op)
        work.replace(result, source)
        return True
    maker = work.made_by(source)
    if maker is None or source in work.outputs or len(maker.outputs) != 1:
        return False
    work.remove(op)
    work.set_output(maker, result)
    work.replace(source, result)
    return True


def reshape_of_reduction(work: _Work, op: Operator) -> bool:
    """A RESHAPE that drops or restores the reduced axes is the reduction's own `keepDims`."""
    before = work.made_by(op.inputs[0])
    if op.code != "RESHAPE" or before is None or before.code not in REDUCTIONS or not _is_constant(before, 1):
        return False
    source, axes = before.inputs[0], before.inputs[1]
    if source is None or axes is None or axes.data is None or op.inputs[0] is None or work.only_user(op.inputs[0]) is not op:
        return False
    reduced = {int(a) % source.rank for a in axes.data.reshape(-1)}
    kept = tuple(1 if i in reduced else d for i, d in enumerate(source.shape))
    dropped = tuple(d for i, d in enumerate(source.shape) if i not in reduced)
    if op.outputs[0].shape not in (kept, dropped):
        return False
    before.options["keepDims"] = op.outputs[0].shape == kept
    work.remove(op)
    work.set_output(before, op.outputs[0])
    return True


def reshape_past_unary(work: _Work, op: Operator) -> bool:
    """RESHAPE → elementwise → RESHAPE back: the elementwise operator works on the first shape, and both reshapes go.

    Also with a fused activation in between nothing changes: it is part of the operator. This is what a chain of 1-D convolutions
    and activations leaves.
    """
    if op.code not in UNARY:
        return False
    source, result = op.inputs[0], op.outputs[0]
    before = work.made_by(source)
    if source is None or before is None or before.code != "RESHAPE" or work.only_user(source) is not op:
        return False
    inner = before.inputs[0]
    if inner is None or inner.data is not None or not _is_constant_shape(before):
        return False
    moved = Tensor(f"{result.name}/moved", inner.shape, result.dtype)
    # elementwise first, then the reshape: neighbours on both sides can then merge
    work.remove(before)
    work.set_input(op, 0, inner)
    target = before.inputs[1]
    reshape = Operator("RESHAPE", [moved, target], [result], dict(before.options))
    work.graph.operators.insert(_place(work.graph, op) + 1, reshape)
    work.alive.add(id(reshape))
    for tensor in reshape.inputs:
        if tensor is not None:
            work.users.setdefault(tensor, []).append(reshape)
    work.set_output(op, moved)
    work.producer[result] = reshape
    return True


def _place(graph: Graph, op: Operator) -> int:
    return next(i for i, other in enumerate(graph.operators) if other is op)


def _is_constant_shape(op: Operator) -> bool:
    return _is_constant(op, 1)


def _per_channel(tensor: Tensor, rank: int, channels: int | str) -> np.ndarray | None:
    """A constant that broadcasts along the last axis only, as a vector of its length."""
    if tensor.data is None or not isinstance(channels, int) or tensor.rank > rank:
        return None
    data = tensor.data
    if data.size not in (1, channels) or (data.size > 1 and data.shape[-1] != channels):
        return None
    return np.broadcast_to(data.reshape(-1).astype(np.float64), (channels,))


def remove_dead(graph: Graph) -> None:
    """Drop operators whose results nobody takes, from the end."""
    needed = set(graph.outputs)
    kept = []
    for op in reversed(graph.operators):
        if any(out in needed for out in op.outputs):
            kept.append(op)
            needed.update(t for t in op.inputs if t is not None)
    graph.operators = kept[::-1]


RULES: tuple[Rule, ...] = (
    merge_reshapes,
    reshape_of_reduction,
    reshape_past_unary,
    add_into_bias,
    factor_into_weights_below,
    factor_into_weights_above,
    fuse_activation,
)
