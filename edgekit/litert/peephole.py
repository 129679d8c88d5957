"""Small rewrites on the LiteRT graph, until none applies.

Each rule has one subject and looks at an operator and its neighbours. Together they are what the runtime can do in one operator
that ONNX says in two: activations, biases, merged reshapes, scalar factors that end in weights.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from edgekit.litert import reshape_rules
from edgekit.litert.graph import Graph, Operator, Tensor
from edgekit.litert.rewiring import Rewiring, Rule
from edgekit.litert.row_shapes import agree_on_shapes

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
COMPARED = 4096
"""Bytes of a constant up to which two of them are compared by their contents."""
SCALABLE = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "CONV_3D"}
"""Weights are input 1, the bias input 2."""
LINEAR = SCALABLE | {"TRANSPOSE_CONV"}


def simplify(graph: Graph) -> None:
    """Apply the rules to this graph and its subgraphs until nothing changes, in place."""
    for part in graph.with_subgraphs():
        _apply_rules(part)
        while agree_on_shapes(part):
            _apply_rules(part)
        remove_dead(part)


def _apply_rules(graph: Graph) -> None:
    work = Rewiring(graph)
    changed = True
    while changed:
        changed = False
        for op in list(graph.operators):
            if id(op) in work.alive:
                changed |= any(rule(work, op) for rule in RULES)
        graph.operators = [op for op in graph.operators if id(op) in work.alive]
        changed = changed or share_equal(work)


def share_equal(work: Rewiring) -> bool:
    """Operators that do the same to the same tensors become one. Only reshapes and other moves of data are left after the hub."""
    seen: dict[Hashable, Operator] = {}
    found = False
    for op in work.graph.operators:
        key = _key(op)
        first = seen.setdefault(key, op) if key is not None else op
        if first is op or any(out in work.outputs for out in op.outputs):
            continue
        for out, same in zip(op.outputs, first.outputs, strict=True):
            work.replace(out, same)
        work.remove(op)
        found = True
    work.graph.operators = [op for op in work.graph.operators if id(op) in work.alive]
    return found


def _key(op: Operator) -> Hashable:
    """What decides an operator's results; None where more than its inputs does, or where that is not worth comparing."""
    if op.code.startswith("RANDOM") or op.code == "MULTINOMIAL" or any(isinstance(v, Graph) for v in op.options.values()):
        return None
    inputs: list[Hashable] = []
    for tensor in op.inputs:
        if tensor is None or tensor.data is None:
            inputs.append(tensor)
        elif tensor.data.nbytes <= COMPARED and tensor.quantization is None:
            inputs.append((tensor.dtype.str, tensor.shape, tensor.data.tobytes()))
        else:
            inputs.append(tensor)
    results = tuple((out.shape, out.dtype.str) for out in op.outputs)
    if any(out.quantization is not None for out in op.outputs):
        return None
    return (op.code, tuple(inputs), tuple(sorted((name, str(value)) for name, value in op.options.items())), results)


def fuse_activation(work: Rewiring, op: Operator) -> bool:
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


def reciprocal_of_root(work: Rewiring, op: Operator) -> bool:
    """DIV(1, SQRT(x)), the middle of an RMSNorm, is RSQRT(x)."""
    one, root = op.inputs[0], work.made_by(op.inputs[1]) if len(op.inputs) > 1 else None
    if op.code != "DIV" or op.activation != "NONE" or one is None or one.data is None or op.inputs[1] is None:
        return False
    if root is None or root.code != "SQRT" or work.only_user(op.inputs[1]) is not op or one.dtype != np.float32:
        return False
    if op.inputs[1].shape != op.outputs[0].shape or not (one.data == 1).all():
        return False
    root.code, root.options = "RSQRT", {}
    work.remove(op)
    work.set_output(root, op.outputs[0])
    return True


def add_into_bias(work: Rewiring, op: Operator) -> bool:
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


def factor_into_weights_below(work: Rewiring, op: Operator) -> bool:
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


def factor_into_weights_above(work: Rewiring, op: Operator) -> bool:
    """A scalar factor rises through reshapes, transposes, products and constant offsets into the weights that made its operand.

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


def _weights_below(work: Rewiring, op: Operator) -> Operator | None:
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


def _constants_above(work: Rewiring, tensor: Tensor) -> list[tuple[Operator, int]] | None:
    """The constants to scale to scale a tensor: those of its makers up to the weights, each with one user; None if that fails."""
    found: list[tuple[Operator, int]] = []
    while True:
        maker = work.made_by(tensor)
        if maker is None or maker.activation != "NONE" or work.only_user(tensor) is None:
            return None
        source = maker.inputs[0]
        if maker.code == "BATCH_MATMUL" and _may_scale(maker, 1):
            return [*found, (maker, 1)]
        if maker.code == "BATCH_MATMUL":  # of either operand
            above = [_constants_above(work, t) for t in maker.inputs if t is not None and t.data is None]
            return next(([*found, *places] for places in above if places is not None), None)
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


def _scale_constant(work: Rewiring, op: Operator, place: int, factor: float) -> None:
    old = op.inputs[place] if place < len(op.inputs) else None
    if old is not None and old.data is not None:
        scaled = (old.data.astype(np.float64) * factor).astype(old.dtype)
        work.set_input(op, place, Tensor(f"{old.name}/scaled", scaled.shape, scaled.dtype, scaled))


def _may_scale(op: Operator, place: int) -> bool:
    """Whether it is a constant, and not one of a quantized model: its integers would no longer fit it."""
    tensor = op.inputs[place] if place < len(op.inputs) else None
    return tensor is not None and tensor.data is not None and tensor.quantization is None


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
    *reshape_rules.RULES,
    reciprocal_of_root,
    add_into_bias,
    factor_into_weights_below,
    factor_into_weights_above,
    fuse_activation,
)
