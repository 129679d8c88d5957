"""A product and a sum with constants per channel are one operator: a depthwise convolution of one pixel.

Before:  x [N, H, W, C] → MUL(scale [C]) → ADD(offset [C], RELU) → …  → MEAN over H, W
After:   x [N, H, W, C] → DEPTHWISE_CONV_2D(filter [1, 1, 1, C], bias [C], RELU) → …  → MEAN over H, W

Such pairs are the batch norms in front of convolutions (DenseNet, ResNetV2) and what normalizes a picture. XNNPACK goes over the
map once for them, and a quantizer rounds the factors channel by channel. This comes after `to_integers`: what lies between
DEQUANTIZE and QUANTIZE are the operators of the model.

XNNPACK's smallest depthwise kernel reads three pixels and multiplies two of them with zero: an infinity or NaN in one pixel comes
out as NaN in its neighbours as well. So it is done only where every way to the results leads over all positions, as in a
classifier: there the results are as little finite either way.
"""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Graph, Operator, Tensor
from edgekit.litert.rewiring import Rewiring

OPTIONS = {
    "padding": "VALID",
    "strideH": 1,
    "strideW": 1,
    "dilationHFactor": 1,
    "dilationWFactor": 1,
    "depthMultiplier": 1,
}
FEWEST = {1: 8, 2: 2}
"""Channels from which on one pass is not slower than two, by how many of the two constants have a number for each channel. With a
single number it is cheap to multiply or to add: two of them stay as they are."""


def multiply_and_add(graph: Graph) -> None:
    """Apply it to this graph and its subgraphs, in place."""
    for part in graph.with_subgraphs():
        work, shown = Rewiring(part), _shown_by_position(part)
        for op in part.operators:
            if op.code in ("ADD", "SUB") and op.outputs[0] not in shown:
                _into_convolution(work, op)
        part.operators = [op for op in part.operators if id(op) in work.alive]


def _shown_by_position(graph: Graph) -> set[Tensor]:
    """The tensors that reach a result of the graph on a way without an operator that goes over all positions."""
    shown, makers = set(graph.outputs), graph.producers()
    for op in reversed(graph.operators):
        if any(out in shown for out in op.outputs) and not _goes_over_all_positions(op, makers):
            shown.update(t for t in op.inputs if t is not None)
    return shown


def _goes_over_all_positions(op: Operator, makers: dict[Tensor, Operator]) -> bool:
    """Whether each number that it makes depends on every position of a map in its channel (of all channels: a dense layer)."""
    x = op.inputs[0] if op.inputs else None
    if x is None:
        return False
    if op.code in ("MEAN", "SUM"):
        axes = op.inputs[1].data if op.inputs[1] is not None else None
        reduced = set() if axes is None else {int(axis) % x.rank for axis in axes.reshape(-1)}
        return x.rank == 4 and all(axis in reduced or x.shape[axis] == 1 for axis in (1, 2))
    maker = makers.get(x)
    if op.code != "FULLY_CONNECTED" or maker is None or maker.code != "RESHAPE":
        return False
    flat = maker.inputs[0]
    return flat is not None and flat.rank == 4 and x.rank == 2 and flat.shape[0] == x.shape[0]


def _into_convolution(work: Rewiring, op: Operator) -> None:
    """ADD(MUL(x, scale), offset), or the difference of the two either way round, becomes the convolution, with its activation."""
    found = _multiplication(work, op)
    if found is None:
        return
    place, multiplication, x, scale = found
    offset = op.inputs[1 - place]
    factors, offsets = _per_channel(scale, x), _per_channel(offset, x)
    if factors is None or offsets is None:
        return
    per_channel = sum(t.data.size > 1 for t in (scale, offset) if t is not None and t.data is not None)
    if factors.size < FEWEST.get(per_channel, np.inf):
        return
    if op.code == "SUB":
        factors, offsets = (factors, -offsets) if place == 0 else (-factors, offsets)
    name = op.outputs[0].name
    weights = Tensor(f"{name}/scale", (1, 1, 1, factors.size), factors.dtype, factors.reshape(1, 1, 1, -1))
    bias = Tensor(f"{name}/offset", offsets.shape, offsets.dtype, offsets)
    options = {**OPTIONS, "fusedActivationFunction": op.activation}
    work.remove(multiplication)
    op.inputs.append(None)
    for i, tensor in enumerate((x, weights, bias)):
        work.set_input(op, i, tensor)
    op.code, op.options = "DEPTHWISE_CONV_2D", options


def _multiplication(work: Rewiring, op: Operator) -> tuple[int, Operator, Tensor, Tensor] | None:
    """Which operand is a product that nothing else reads, the MUL that makes it, and the map and the other operand of that."""
    for place, product in enumerate(op.inputs):
        maker = work.made_by(product)
        if product is None or maker is None or maker.code != "MUL" or maker.activation != "NONE":
            continue
        if work.only_user(product) is not op or product.shape != op.outputs[0].shape:
            continue
        for x, scale in (maker.inputs, maker.inputs[::-1]):
            if x is not None and scale is not None and _is_map(x) and x.shape == product.shape:
                return place, maker, x, scale
    return None


def _is_map(tensor: Tensor) -> bool:
    """What convolutions take: [N, H, W, C] in float32, not empty, C known."""
    computed = tensor.data is None and tensor.dtype == np.float32 and tensor.quantization is None
    return computed and tensor.rank == 4 and 0 not in tensor.shape and isinstance(tensor.shape[-1], int)


def _per_channel(constant: Tensor | None, x: Tensor) -> np.ndarray | None:
    """A constant that broadcasts along the last axis only, as a vector of its length."""
    if constant is None or constant.data is None or constant.quantization is not None or constant.rank > x.rank:
        return None
    data, channels = constant.data, int(x.shape[-1])
    if data.size != 1 and (data.size != channels or data.shape[-1] != channels):
        return None
    return np.ascontiguousarray(np.broadcast_to(data.reshape(-1), (channels,)))
