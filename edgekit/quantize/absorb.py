"""Bias absorption: what a channel never falls below moves from one layer's bias into the next one's.

A channel that lies between 5 and 9 behind a ReLU takes the steps of 0 to 9. With 5 less in the bias it lies between 0 and 4, and
the next layer's bias makes up for it: W (x - c) + (b + W c) (Nagel et al. 2019, "Data-Free Quantization"). The ReLU passes the
channel through on all that was seen; mean - 3 standard deviations keeps a margin where little was seen.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgekit.quantize.statistics import Channels
from edgekit.quantize.weights import Layer, layer

# A channel is moved if that makes it this much smaller.
WORTHWHILE = 0.05


def absorb_biases(model: ir.Model, statistics: Mapping[str, Channels]) -> int:
    """Move biases in place, wherever all that takes the value can make up for it. Returns how many channels were moved."""
    moved = 0
    for node in list(model.graph):
        maker = layer(node)
        if maker is None or maker.bias is None:
            continue
        activation = _only_user(node.outputs[0])
        if activation is None or activation.op_type != "Relu":
            continue
        takers = [layer(user) for user in activation.outputs[0].consumers()]
        found = [taker for taker in takers if taker is not None and _can_take(taker)]
        before = statistics.get(maker.makes)
        if not takers or len(found) < len(takers) or activation.outputs[0].is_graph_output() or before is None:
            continue
        least = np.minimum(before.low, before.mean - 3 * np.sqrt(before.variance))
        offsets = np.where(least > WORTHWHILE * before.high, np.maximum(least, 0.0), 0.0)
        if len(offsets) != len(maker.bias) or not np.isfinite(offsets).all() or not offsets.any():
            continue
        maker.store_bias(maker.bias - offsets)
        for taker in found:
            assert taker.bias is not None
            taker.store_bias(taker.bias + (taker.kernel * taker.per_input(offsets)).sum((1, 2)))
        moved += int((offsets > 0).sum())
    return moved


def _can_take(taker: Layer) -> bool:
    """Whether a constant added to its input is a constant added to its result: it has a bias, and no zeros are padded."""
    if taker.bias is None or not taker.has_window:
        return False
    return taker.node.op_type == "Gemm" or not any(taker.node.attributes["pads"].as_ints())


def _only_user(value: ir.Value) -> ir.Node | None:
    users = value.consumers()
    return users[0] if len(users) == 1 and not value.is_graph_output() else None
