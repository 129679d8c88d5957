"""Weights that TensorFlow quantizes in the graph (tensorflow-model-optimization's training) as the integers that they are.

Before tf2onnx sees a graph, TensorFlow computes what depends on constants alone: of rounded weights it leaves float numbers,
and the scale that they were trained with is lost. So each of them is taken out of the graph before, and comes back behind it:

    before   Const w ─► FakeQuantWithMinMaxVars[PerChannel](min, max) ─► Conv2D
    tf2onnx  graph input ─► Conv
    after    initializer (int8) ─► DequantizeLinear(scale) ─► Conv

Those of another width than 8 bits, and those whose zero is not in the middle, stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

KINDS = ("FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel")


@dataclass(frozen=True)
class QuantizedWeights:
    """`integers * scale`; a scale of more than one number goes along the last axis."""

    integers: np.ndarray
    scale: np.ndarray


def take_out(tensorflow: Any, graph: Any) -> dict[str, QuantizedWeights]:
    """Make graph inputs of quantized weights, in place; what each of them was, by the name of its tensor."""
    rounding = [node for node in graph.node if node.op in KINDS and node.attr["num_bits"].i == 8]
    constant = _constant_names(graph) if rounding else set()
    rounding = [node for node in rounding if all(_node_name(name) in constant for name in node.input)]
    found: dict[str, QuantizedWeights] = {}
    for node, operands in zip(rounding, _computed(tensorflow, graph, [node.input for node in rounding]), strict=True):
        weights = quantized(*operands, narrow=node.attr["narrow_range"].b)
        if weights is None:
            continue
        found[f"{node.name}:0"] = weights
        node.op = "Placeholder"
        del node.input[:]
        node.attr.clear()
        node.attr["dtype"].type = tensorflow.float32.as_datatype_enum
        node.attr["shape"].shape.CopyFrom(tensorflow.TensorShape(weights.integers.shape).as_proto())
    return found


def _constant_names(graph: Any) -> set[str]:
    """The nodes that depend on constants alone."""
    found = {node.name for node in graph.node if node.op == "Const"}
    waiting = [node for node in graph.node if node.input]
    while True:
        known = [node for node in waiting if all(_node_name(name) in found for name in node.input)]
        if not known:
            return found
        found.update(node.name for node in known)
        waiting = [node for node in waiting if node.name not in found]


def _node_name(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]


def _computed(tensorflow: Any, graph: Any, tensors: list[Sequence[str]]) -> list[list[np.ndarray]]:
    """The values of groups of tensors that depend on constants alone."""
    if not tensors:
        return []
    with tensorflow.Graph().as_default() as scratch:
        tensorflow.graph_util.import_graph_def(graph, name="")
        names = [[name if ":" in name else f"{name}:0" for name in group] for group in tensors]
        with tensorflow.compat.v1.Session(graph=scratch) as session:
            return session.run(names)


def quantized(weights: np.ndarray, low: np.ndarray, high: np.ndarray, *, narrow: bool) -> QuantizedWeights | None:
    """What TensorFlow's kernel rounds these weights to (tensorflow/core/kernels/fake_quant_ops_functor.h, `Nudge`)."""
    first, last = np.float32(1 if narrow else 0), np.float32(255)
    scale = (high.astype(np.float32) - low.astype(np.float32)) / (last - first)
    if not (scale > 0).all():
        return None
    zero = np.clip(np.round(first - low / scale), first, last)
    if (zero != 128).any():
        return None
    nudged_low, nudged_high = (first - zero) * scale, (last - zero) * scale
    clipped = np.clip(weights, nudged_low, nudged_high)
    steps = np.floor((clipped - nudged_low) * (np.float32(1) / scale) + np.float32(0.5))
    return QuantizedWeights((steps + first - 128).astype(np.int8), scale.astype(np.float32))


def put_back(proto: Any, taken: dict[str, QuantizedWeights]) -> None:
    """Replace those inputs of an ONNX graph by the weights and a DequantizeLinear of them, in place."""
    import onnx
    from onnx import helper, numpy_helper

    graph = proto.graph
    kept = [value for value in graph.input if value.name not in taken]
    used = {name for node in graph.node for name in node.input}
    nodes: list[onnx.NodeProto] = []
    for name, weights in taken.items():
        if name not in used:
            continue
        integers, scale = f"{name}/integers", f"{name}/scale"
        graph.initializer.append(numpy_helper.from_array(weights.integers, integers))
        graph.initializer.append(numpy_helper.from_array(weights.scale, scale))
        node = helper.make_node("DequantizeLinear", [integers, scale], [name], name)
        if weights.scale.size > 1:
            node.attribute.append(helper.make_attribute("axis", weights.integers.ndim - 1))
        nodes.append(node)
    nodes += graph.node
    del graph.input[:], graph.node[:]
    graph.input.extend(kept)
    graph.node.extend(nodes)
