"""Softmax and the normalizations over the last axes."""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Tensor
from edgekit.litert.lower.table import Node, lowers


@lowers("Softmax")
def softmax(node: Node) -> None:
    _needs_last_axis(node)
    node.emit("SOFTMAX", [node.x], beta=1.0)


@lowers("LogSoftmax")
def log_softmax(node: Node) -> None:
    _needs_last_axis(node)
    node.emit("LOG_SOFTMAX", [node.x])


@lowers("LayerNormalization")
def layer_normalization(node: Node) -> None:
    """(x - mean) / sqrt(var + epsilon) * scale + bias over the axes from `axis` on."""
    x = node.x
    if node.has_output(1) or node.has_output(2):
        raise node.refuse("only its first output is supported", "remove the use of the mean and the deviation", "output 1")
    first = node.axis("axis", -1)
    axes = node.ints(range(first, x.rank), "axes")
    reduced = (*x.shape[:first], *(1,) * (x.rank - first))
    mean = node.emit("MEAN", [x, axes], node.temp(reduced, "mean"), keepDims=True)
    centred = node.emit("SUB", [x, mean], node.like(x, "centred"))
    square = node.emit("MUL", [centred, centred], node.like(x, "square"))
    variance = node.emit("MEAN", [square, axes], node.temp(reduced, "variance"), keepDims=True)
    epsilon = node.const(node.real("epsilon", 1e-5), x.dtype, "epsilon")
    inverse = node.emit(
        "RSQRT", [node.emit("ADD", [variance, epsilon], node.temp(reduced, "above"))], node.temp(reduced, "inverse")
    )
    _chain(node, centred, [("MUL", inverse), *_affine(node)])


@lowers("RMSNormalization")
def rms_normalization(node: Node) -> None:
    """x / sqrt(mean(x²) + epsilon) * scale over the axes from `axis` on."""
    x = node.x
    first = node.axis("axis", -1)
    axes = node.ints(range(first, x.rank), "axes")
    reduced = (*x.shape[:first], *(1,) * (x.rank - first))
    square = node.emit("MUL", [x, x], node.like(x, "square"))
    mean = node.emit("MEAN", [square, axes], node.temp(reduced, "mean"), keepDims=True)
    epsilon = node.const(node.real("epsilon", 1e-5), x.dtype, "epsilon")
    inverse = node.emit("RSQRT", [node.emit("ADD", [mean, epsilon], node.temp(reduced, "above"))], node.temp(reduced, "inverse"))
    _chain(node, x, [("MUL", inverse), *_affine(node)])


@lowers("LpNormalization")
def lp_normalization(node: Node) -> None:
    """x / |x| along one axis, in the 1- or 2-norm; what has no length stays 0."""
    x, axis = node.x, node.axis("axis", -1)
    reduced = tuple(1 if i == axis else d for i, d in enumerate(x.shape))
    if node.integer("p", 2) == 2:
        inside = node.emit("MUL", [x, x], node.like(x, "square"))
    else:
        inside = node.emit("ABS", [x], node.like(x, "size"))
    norm = node.emit("SUM", [inside, node.ints([axis], "axis")], node.temp(reduced, "sum"), keepDims=True)
    if node.integer("p", 2) == 2:
        norm = node.emit("SQRT", [norm], node.temp(reduced, "norm"))
    norm = node.emit("MAXIMUM", [norm, node.const(np.finfo(np.float32).tiny, x.dtype, "tiny")], node.temp(reduced, "above_0"))
    node.emit("DIV", [x, norm])


@lowers("LRN")
def local_response(node: Node) -> None:
    size = node.integer("size")
    if size % 2 == 0:
        raise node.refuse("LiteRT normalizes over an odd number of channels", "use an odd size", "size")
    alpha, beta, bias = node.real("alpha", 1e-4), node.real("beta", 0.75), node.real("bias", 1.0)
    node.emit("LOCAL_RESPONSE_NORMALIZATION", [node.x], radius=size // 2, alpha=alpha / size, beta=beta, bias=bias)


def _affine(node: Node) -> list[tuple[str, Tensor]]:
    """The scale and the bias, each only where it does something."""
    steps = []
    for code, i, neutral in (("MUL", 1, 1), ("ADD", 2, 0)):
        if node.has_input(i) and not (node.input(i).data is not None and np.all(node.input(i).data == neutral)):
            steps.append((code, node.input(i)))
    return steps


def _chain(node: Node, x, steps) -> None:  # type: ignore[no-untyped-def]
    for i, (code, operand) in enumerate(steps):
        x = node.emit(code, [x, operand], node.y if i == len(steps) - 1 else node.like(node.y, f"step{i}"))


def _needs_last_axis(node: Node) -> None:
    if node.axis("axis", -1) != node.x.rank - 1 and np.prod(node.static_shape(node.x)) > 0:
        raise node.refuse("LiteRT's softmax works on the last axis", "report this: the layout pass should have moved it", "axis")
