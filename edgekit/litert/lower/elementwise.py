"""Operators that work element by element, with numpy broadcasting."""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.table import Node, lowers

UNARY = {
    "Ceil": "CEIL",
    "Cos": "COS",
    "Exp": "EXP",
    "Floor": "FLOOR",
    "HardSwish": "HARD_SWISH",
    "Log": "LOG",
    "Neg": "NEG",
    "Not": "LOGICAL_NOT",
    "Round": "ROUND",
    "Sigmoid": "LOGISTIC",
    "Sin": "SIN",
    "Sqrt": "SQRT",
    "Tanh": "TANH",
}
BINARY = {
    "Add": "ADD",
    "And": "LOGICAL_AND",
    "Equal": "EQUAL",
    "Greater": "GREATER",
    "GreaterOrEqual": "GREATER_EQUAL",
    "Less": "LESS",
    "LessOrEqual": "LESS_EQUAL",
    "Mul": "MUL",
    "Or": "LOGICAL_OR",
    "Sub": "SUB",
}
VARIADIC = {"Max": "MAXIMUM", "Min": "MINIMUM", "Sum": "ADD"}
CLIPS = {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1", (0.0, 1.0): "RELU_0_TO_1", (0.0, None): "RELU"}


@lowers(*UNARY)
def unary(node: Node) -> None:
    node.emit(UNARY[node.op_type], [node.x])


@lowers("Relu")
def relu(node: Node) -> None:
    if node.x.dtype.kind == "f":
        node.emit("RELU", [node.x])
    else:
        node.emit("MAXIMUM", [node.x, node.const(0, node.x.dtype, "zero")])


@lowers("Abs")
def absolute(node: Node) -> None:
    x = node.x
    if x.dtype.kind == "u":
        node.reshape(x, x.shape, out=node.y)
    elif x.dtype == np.int64:  # ABS has no int64
        node.emit("MAXIMUM", [x, node.emit("NEG", [x], node.like(x, "negated"))])
    else:
        node.emit("ABS", [x])


@lowers("Sign")
def sign(node: Node) -> None:
    """SIGN, or the difference of two comparisons for the integers that it lacks."""
    x = node.x
    if x.dtype.kind == "f" or x.dtype == np.int32:
        node.emit("SIGN", [x])
        return
    zero, parts = node.const(0, x.dtype, "zero"), []
    for code in ("GREATER", "LESS"):
        holds = node.emit(code, [x, zero], node.like(x, code.lower(), np.bool_))
        parts.append(node.emit("CAST", [holds], node.like(x, f"{code}_int"), inDataType=holds.dtype, outDataType=x.dtype))
    node.emit("SUB", parts)


@lowers(*BINARY)
def binary(node: Node) -> None:
    left, right = node.x, node.input(1)
    limit = right.data if left.dtype.kind == "f" else None
    if node.op_type == "Equal" and limit is not None and limit.size and np.isinf(limit).all() and len(np.unique(limit)) == 1:
        # A mask: the builtin ADD, SUB and MUL clamp what they compute to the largest float32, so that -inf arrives as that.
        top = np.finfo(np.float32).max
        code = "LESS_EQUAL" if limit.reshape(-1)[0] < 0 else "GREATER_EQUAL"
        node.emit(code, [left, node.const(np.clip(limit, -top, top), left.dtype, "limit")])
        return
    node.emit(BINARY[node.op_type], [left, right])


@lowers(*VARIADIC)
def variadic(node: Node) -> None:
    """Any number of operands, folded from the left."""
    code = VARIADIC[node.op_type]
    operands = [node.input(i) for i in range(len(node.inputs))]
    if len(operands) == 1:
        node.reshape(operands[0], node.y.shape, out=node.y)
        return
    total = operands[0]
    for i, operand in enumerate(operands[1:], 1):
        last = i == len(operands) - 1
        shape = node.y.shape if last else np.broadcast_shapes(node.static_shape(total), node.static_shape(operand))
        total = node.emit(code, [total, operand], node.y if last else node.temp(shape, f"partial{i}"))


@lowers("Mean")
def mean(node: Node) -> None:
    operands = [node.input(i) for i in range(len(node.inputs))]
    total = operands[0]
    for i, operand in enumerate(operands[1:], 1):
        shape = np.broadcast_shapes(node.static_shape(total), node.static_shape(operand))
        total = node.emit("ADD", [total, operand], node.temp(shape, f"partial{i}"))
    node.emit("MUL", [total, node.const(1 / len(operands), node.y.dtype)])


@lowers("Clip")
def clip(node: Node) -> None:
    low, high = (_scalar(node, i) for i in (1, 2))
    code = CLIPS.get((low, high)) if node.x.dtype.kind == "f" and low is not None else None
    if code:
        node.emit(code, [node.x])
        return
    x = node.x
    bounds: list[tuple[str, Tensor]] = []
    if node.has_input(1) and low != -np.inf:
        bounds.append(("MAXIMUM", node.input(1)))
    if node.has_input(2) and high != np.inf:
        bounds.append(("MINIMUM", node.input(2)))
    if not bounds:
        node.reshape(x, node.y.shape, out=node.y)
    for i, (code, bound) in enumerate(bounds):
        last = i == len(bounds) - 1
        out = node.y if last else node.like(node.y, "raised")
        x = (
            node.emit("RELU", [x], out)
            if code == "MAXIMUM" and low == 0.0 and x.dtype.kind == "f"
            else node.emit(code, [x, bound], out)
        )


def _scalar(node: Node, i: int) -> float | None:
    tensor = node.inputs[i] if node.has_input(i) else None
    return float(tensor.data.reshape(-1)[0]) if tensor is not None and tensor.data is not None else None


@lowers("LeakyRelu")
def leaky_relu(node: Node) -> None:
    node.emit("LEAKY_RELU", [node.x], alpha=node.real("alpha", 0.01))


@lowers("PRelu")
def prelu(node: Node) -> None:
    """PRELU wants its slope without the batch axis; a computed or per-sample slope is max(x, 0) + slope * min(x, 0)."""
    slope = node.input(1)
    if (
        slope.data is not None
        and slope.rank <= node.x.rank
        and (slope.rank < node.x.rank or slope.shape[0] == 1)
        and node.x.rank > 1
    ):
        data = slope.data.reshape((1,) * (node.x.rank - slope.rank) + slope.data.shape)[0]
        node.emit("PRELU", [node.x, node.const(data, hint="slope")])
        return
    zero = node.const(0, node.x.dtype, "zero")
    below = node.emit("MINIMUM", [node.x, zero], node.like(node.x, "below"))
    scaled = node.emit("MUL", [below, slope], node.like(node.x, "scaled"))
    above = node.emit("RELU", [node.x], node.like(node.x, "above"))
    node.emit("ADD", [above, scaled])


@lowers("Elu")
def elu(node: Node) -> None:
    alpha = node.real("alpha", 1.0)
    if alpha == 1.0:
        node.emit("ELU", [node.x])
        return
    _scaled_elu(node, alpha, 1.0)


@lowers("Selu")
def selu(node: Node) -> None:
    _scaled_elu(node, node.real("alpha", 1.67326319217681884765625), node.real("gamma", 1.05070102214813232421875))


def _scaled_elu(node: Node, alpha: float, gamma: float) -> None:
    """gamma * (relu(x) + alpha * (elu(min(x, 0))))."""
    x = node.x
    above = node.emit("RELU", [x], node.like(x, "above"))
    below = node.emit("MINIMUM", [x, node.const(0, x.dtype, "zero")], node.like(x, "below"))
    bent = node.emit("ELU", [below], node.like(x, "bent"))
    scaled = node.emit("MUL", [bent, node.const(alpha * gamma, x.dtype, "alpha")], node.like(x, "scaled"))
    if gamma != 1.0:
        above = node.emit("MUL", [above, node.const(gamma, x.dtype, "gamma")], node.like(x, "stretched"))
    node.emit("ADD", [above, scaled])


@lowers("HardSigmoid")
def hard_sigmoid(node: Node) -> None:
    """max(0, min(1, alpha x + beta)), written as relu6(x + 3) / 6 where that is what it is: every delegate has RELU6."""
    alpha, beta = node.real("alpha", 0.2), node.real("beta", 0.5)
    x = node.x
    if abs(alpha - 1 / 6) < 1e-6 and abs(beta - 0.5) < 1e-6:
        shifted = node.emit("ADD", [x, node.const(3, x.dtype, "three")], node.like(x, "shifted"))
        six = node.emit("RELU6", [shifted], node.like(x, "six"))
        node.emit("MUL", [six, node.const(1 / 6, x.dtype, "sixth")])
        return
    scaled = node.emit("MUL", [x, node.const(alpha, x.dtype, "alpha")], node.like(x, "scaled"))
    shifted = node.emit("ADD", [scaled, node.const(beta, x.dtype, "beta")], node.like(x, "shifted"))
    node.emit("RELU_0_TO_1", [shifted])


@lowers("Gelu")
def gelu(node: Node) -> None:
    node.emit("GELU", [node.x], approximate=node.string("approximate", "none") == "tanh")


@lowers("Swish")
def swish(node: Node) -> None:
    """x * sigmoid(alpha x)."""
    x, alpha = node.x, node.real("alpha", 1.0)
    inner = x if alpha == 1.0 else node.emit("MUL", [x, node.const(alpha, x.dtype, "alpha")], node.like(x, "scaled"))
    node.emit("MUL", [x, node.emit("LOGISTIC", [inner], node.like(x, "gate"))])


@lowers("Softplus")
def softplus(node: Node) -> None:
    """log(1 + exp(x)) as max(x, 0) + log(1 + exp(-|x|)), which does not overflow."""
    _softplus(node, node.y)


def _softplus(node: Node, out: Tensor) -> Tensor:
    x = node.x
    size = node.emit("ABS", [x], node.like(x, "size"))
    negated = node.emit("NEG", [size], node.like(x, "negated"))
    small = node.emit("EXP", [negated], node.like(x, "small"))
    more = node.emit("ADD", [small, node.const(1, x.dtype, "one")], node.like(x, "more"))
    rest = node.emit("LOG", [more], node.like(x, "rest"))
    above = node.emit("RELU", [x], node.like(x, "above"))
    return node.emit("ADD", [above, rest], out)


@lowers("Mish")
def mish(node: Node) -> None:
    """x * tanh(softplus(x))."""
    soft = _softplus(node, node.like(node.x, "softplus"))
    node.emit("MUL", [node.x, node.emit("TANH", [soft], node.like(node.x, "gate"))])


@lowers("Softsign")
def softsign(node: Node) -> None:
    x = node.x
    size = node.emit("ABS", [x], node.like(x, "size"))
    node.emit("DIV", [x, node.emit("ADD", [size, node.const(1, x.dtype, "one")], node.like(x, "more"))])


@lowers("ThresholdedRelu")
def thresholded_relu(node: Node) -> None:
    x = node.x
    above = node.emit("GREATER", [x, node.const(node.real("alpha", 1.0), x.dtype, "alpha")], node.like(x, "above", np.bool_))
    node.emit("SELECT_V2", [above, x, node.const(0, x.dtype, "zero")])


@lowers("Reciprocal")
def reciprocal(node: Node) -> None:
    node.emit("DIV", [node.const(1, node.x.dtype, "one"), node.x])


@lowers("Pow")
def power(node: Node) -> None:
    exponent = _exponent(node)
    x = node.x
    if exponent == 2.0:
        node.emit("MUL", [x, x])
    elif exponent == 0.5 and x.dtype.kind == "f":
        node.emit("SQRT", [x])
    elif exponent == 1.0:
        node.reshape(x, node.y.shape, out=node.y)
    elif exponent == -1.0 and x.dtype.kind == "f":
        reciprocal(node)
    elif exponent == -0.5 and x.dtype.kind == "f":
        node.emit("RSQRT", [x])
    elif exponent == 3.0:
        node.emit("MUL", [node.emit("MUL", [x, x], node.like(x, "square")), x])
    else:
        _general_power(node, x, node.input(1))


def _exponent(node: Node) -> float | None:
    """The exponent where it is one constant that leaves the shape of the base."""
    data = node.input(1).data
    return float(data.reshape(-1)[0]) if data is not None and data.size == 1 and node.x.shape == node.y.shape else None


def _general_power(node: Node, x: Tensor, exponent: Tensor) -> None:
    """POW takes one dtype: float32 if either operand is a float (ONNX gives the base's), otherwise the wider integer."""
    dtype = x.dtype
    if dtype != exponent.dtype:
        dtype = np.dtype(np.float32) if "f" in (dtype.kind, exponent.dtype.kind) else np.dtype(np.int32)
    if dtype.kind == "i" and exponent.data is not None and (exponent.data < 0).any():
        raise node.refuse("its exponents are negative integers, and so is not every power one", "cast the base to float32", "Y")
    left, right = _as(node, x, dtype, "base"), _as(node, exponent, dtype, "exponent")
    if dtype == node.y.dtype:
        node.emit("POW", [left, right])
        return
    raised = node.emit("POW", [left, right], node.like(node.y, "raised", dtype))
    node.emit("CAST", [raised], inDataType=dtype, outDataType=node.y.dtype)


def _as(node: Node, tensor: Tensor, dtype: np.dtype, hint: str) -> Tensor:
    if tensor.dtype == dtype:
        return tensor
    if tensor.data is not None:
        return node.const(tensor.data, dtype, hint)
    return node.emit("CAST", [tensor], node.like(tensor, hint, dtype), inDataType=tensor.dtype, outDataType=dtype)


@lowers("Mod")
def modulo(node: Node) -> None:
    """FLOOR_MOD has the divisor's sign; fmod has the dividend's, and is taken from the sizes of both."""
    x, divisor = node.x, node.input(1)
    if not node.integer("fmod", 0) or x.dtype.kind == "u":
        node.emit("FLOOR_MOD", [x, divisor])
        return
    zero = node.const(0, x.dtype, "zero")
    sizes = []
    for tensor, hint in ((x, "dividend"), (divisor, "divisor")):
        negated = node.emit("SUB", [zero, tensor], node.like(tensor, f"{hint}_negated"))
        sizes.append(node.emit("MAXIMUM", [tensor, negated], node.like(tensor, f"{hint}_size")))
    rest = node.emit("FLOOR_MOD", sizes, node.like(node.y, "rest"))
    negative = node.emit("LESS", [x, zero], node.like(x, "negative", np.bool_))
    node.emit("SELECT_V2", [negative, node.emit("SUB", [zero, rest], node.like(node.y, "opposite")), rest])


@lowers("Xor")
def xor(node: Node) -> None:
    node.emit("NOT_EQUAL", [node.x, node.input(1)])


@lowers("Where")
def where(node: Node) -> None:
    node.emit("SELECT_V2", [node.x, node.input(1), node.input(2)])


@lowers("Cast")
def cast(node: Node) -> None:
    if node.x.dtype == node.y.dtype:
        node.reshape(node.x, node.y.shape, out=node.y)
        return
    node.emit("CAST", [node.x], inDataType=node.x.dtype, outDataType=node.y.dtype)


@lowers("IsNaN")
def is_nan(node: Node) -> None:
    node.emit("NOT_EQUAL", [node.x, node.x])


@lowers("IsInf")
def is_inf(node: Node) -> None:
    """Whether it is as large as a float32 can be: builtin kernels clamp infinities to that."""
    x, top = node.x, np.finfo(np.float32).max
    positive, negative = bool(node.integer("detect_positive", 1)), bool(node.integer("detect_negative", 1))
    if not positive and not negative:
        node.emit("LESS", [x, node.const(-np.inf, x.dtype, "never")])
        return
    tested = node.emit("ABS", [x], node.like(x, "size")) if positive and negative else x
    code, limit = ("GREATER_EQUAL", top) if positive else ("LESS_EQUAL", -top)
    node.emit(code, [tested, node.const(limit, x.dtype, "limit")])


@lowers("Erf")
def erf(node: Node) -> None:
    """From the exact GELU: gelu(t) = t/2 (1 + erf(t/√2)), so erf(x) = 2 gelu(√2 x) / (√2 x) - 1, which loses the origin.

    So the rational form of Abramowitz and Stegun 7.1.26 (error below 1.5e-7) is used: with t = 1 / (1 + p|x|),
    erf|x| = 1 - t (a1 + t (a2 + t (a3 + t (a4 + t a5)))) exp(-x²).
    """
    x = node.x

    def step(code: str, left: Tensor, right: Tensor | float, hint: str) -> Tensor:
        other = right if isinstance(right, Tensor) else node.const(right, x.dtype, hint + "_c")
        return node.emit(code, [left, other], node.like(x, hint))

    size = node.emit("ABS", [x], node.like(x, "size"))
    below = step("ADD", step("MUL", size, 0.3275911, "px"), 1.0, "below")
    t = node.emit("DIV", [node.const(1, x.dtype, "one"), below], node.like(x, "t"))
    total = step("MUL", t, 1.061405429, "a5")
    for i, a in enumerate((-1.453152027, 1.421413741, -0.284496736, 0.254829592)):
        total = step("MUL", step("ADD", total, a, f"s{i}"), t, f"m{i}")
    square = node.emit("MUL", [x, x], node.like(x, "square"))
    decay = node.emit("EXP", [node.emit("NEG", [square], node.like(x, "minus"))], node.like(x, "decay"))
    rest = step("MUL", total, decay, "rest")
    positive = node.emit("SUB", [node.const(1, x.dtype, "unit"), rest], node.like(x, "positive"))
    node.emit("MUL", [positive, node.emit("SIGN", [x], node.like(x, "sign"))])
