"""What int8 would do to a graph, in float: weights and activations rounded as the quantizers round them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit.ort.probe import INFINITE
from edgekit.ort.session import open_session

if TYPE_CHECKING:
    import onnx

    from edgekit.contract import Feeds


def outputs(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> np.ndarray:
    """The float32 outputs: one row for each run and output, float64, filled up with zeros.

    Not optimized: onnxruntime would by itself quantize the weights of a Conv between a DequantizeLinear and a QuantizeLinear,
    with one scale for all channels.
    """
    session = open_session(model.SerializeToString(), optimize="none")
    results = [array.reshape(-1) for feed in feeds for array in session.run(None, dict(feed)) if array.dtype == np.float32]
    rows = np.zeros((len(results), max((len(row) for row in results), default=0)))
    for row, result in zip(rows, results, strict=True):
        row[: len(result)] = result
    return rows


def relative_error(exact: np.ndarray, found: np.ndarray) -> float:
    """Squared error over squared size, the mean of all rows: a sample with large results does not decide for the others."""
    sizes = np.square(exact).sum(1)
    counted = sizes > 0
    return float((np.square(exact - found).sum(1)[counted] / sizes[counted]).mean()) if counted.any() else 0.0


def with_rounding(model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]) -> onnx.ModelProto:
    """A QuantizeLinear and a DequantizeLinear behind every value that has a range and is held by an int8 runtime."""
    import onnx
    from onnx import helper, numpy_helper

    result = onnx.ModelProto()
    result.CopyFrom(model)
    held = held_values(model) & ranges.keys() - {value.name for value in model.graph.output}
    nodes: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}

    def add_rounding(name: str) -> None:
        low, high = min(ranges[name][0], 0.0), max(ranges[name][1], 0.0)
        if name not in held or not high - low < INFINITE:
            return
        step = max((high - low) / 255, 1e-12)
        zero = int(np.clip(np.round(-128 - low / step), -128, 127))
        scale, point, integer = f"{name}/scale", f"{name}/zero_point", f"{name}/int8"
        renamed[name] = f"{name}/rounded"
        result.graph.initializer.append(numpy_helper.from_array(np.array(step, np.float32), scale))
        result.graph.initializer.append(numpy_helper.from_array(np.array(zero, np.int8), point))
        nodes.append(helper.make_node("QuantizeLinear", [name, scale, point], [integer]))
        nodes.append(helper.make_node("DequantizeLinear", [integer, scale, point], [renamed[name]]))

    for value in model.graph.input:
        if value.name in held:
            add_rounding(value.name)
    for node in result.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        nodes.append(node)
        for name in node.output:
            if name in held:
                add_rounding(name)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del result.graph.node[:]
    result.graph.node.extend(kept)
    return result


def held_values(model: onnx.ModelProto) -> set[str]:
    """Every value that a runtime holds: not those that a Relu or Clip takes at once, and no other node."""
    users: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node.op_type)
    names = {value.name for value in model.graph.input} | {name for node in model.graph.node for name in node.output if name}
    return {name for name in names if users.get(name) not in (["Relu"], ["Clip"])}
