"""Cross-layer equalization: channels of one tensor get ranges that one int8 scale can serve.

A value can be scaled channel by channel, w' = w * s in the layers that make it and w' = w / s in the layers that take it,
without any change of the result, as long as all between is linear or a ReLU (Nagel et al. 2019, "Data-Free Quantization").
Values that an Add ties together, a whole residual stage, share their scales.

A Clip (ReLU6) is not crossed. It would be possible for channels that never reach 6 on the calibration data, but they are then
cut off where those data end: EfficientNet-Lite0's logits keep a cosine of 0.98 on other photographs before anything is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgekit.quantize.statistics import Channels
from edgekit.quantize.weights import Layer, layer

# How far apart the scales of two channels of a value may be; a channel that the calibration data do not excite would get any.
LARGEST_RATIO = 4.0
EXPONENTS = tuple(i / 10 for i in range(11))

_POSITIVELY_HOMOGENEOUS = frozenset(
    "AveragePool Flatten GlobalAveragePool GlobalMaxPool Identity LeakyRelu MaxPool ReduceMax ReduceMean ReduceSum Relu "
    "Reshape".split()
)


def equalize(model: ir.Model, statistics: Mapping[str, Channels]) -> int:
    """Scale the channels of every value that may be, in place. Returns the number of scaled groups of values."""
    scaled = 0
    for group in _groups(model.graph):
        scales = _scales(group, statistics)
        if scales is not None:
            _apply(group, scales)
            scaled += 1
    return scaled


@dataclass
class _Group:
    """Values that must share one scale per channel, the layers that make them, and those that take them."""

    channels: int | None = None
    values: list[ir.Value] = field(default_factory=list)
    makers: list[Layer] = field(default_factory=list)
    takers: list[Layer] = field(default_factory=list)
    fixed: bool = False


def _groups(graph: ir.Graph) -> list[_Group]:
    """All groups that may be scaled: between layers on all sides, and alike in the number of channels."""
    root: dict[ir.Value, ir.Value] = {}

    def find(value: ir.Value) -> ir.Value:
        while root.setdefault(value, value) is not value:
            value = root[value]
        return value

    links: list[tuple[ir.Node, Layer | None]] = []
    for node in graph:
        operands = [v for v in node.inputs if v is not None and v.const_value is None]
        links.append((node, layer(node)))
        if links[-1][1] is None and _is_link(node, operands):
            for value in operands:
                root[find(value)] = find(node.outputs[0])

    groups: dict[ir.Value, _Group] = {}

    def group(value: ir.Value) -> _Group:
        found = groups.setdefault(find(value), _Group())
        if value not in found.values:
            found.values.append(value)
        return found

    for value in (*graph.inputs, *graph.outputs):
        group(value).fixed = True
    for node, weights in links:
        operands = [v for v in node.inputs if v is not None and v.const_value is None]
        if weights is None:
            for value in (*operands, *node.outputs):
                group(value).fixed |= not _is_link(node, operands)
            continue
        taken, made = group(operands[0]), group(node.outputs[0])
        taken.takers.append(weights)
        made.makers.append(weights)
        made.fixed |= len(weights.node.inputs) > 2 and weights.bias is None
        taken.fixed |= weights.groups > 1 and not weights.depthwise
    for found in groups.values():
        counts = {v.shape[1] if v.shape is not None and len(v.shape) > 1 else None for v in found.values}
        count = counts.pop() if len(counts) == 1 else None
        found.channels = count if isinstance(count, int) else None
    return [g for g in groups.values() if not g.fixed and g.channels and g.makers and g.takers]


def _is_link(node: ir.Node, operands: Sequence[ir.Value]) -> bool:
    """Whether scaling the operands' channels scales the result's channels alike."""
    if node.op_type == "Add":
        return len(operands) == 2 and operands[0].shape is not None and operands[0].shape == operands[1].shape
    if node.op_type not in _POSITIVELY_HOMOGENEOUS or len(operands) != 1:
        return False
    if node.op_type in ("Flatten", "Reshape"):  # N x C x 1 x 1 to N x C and back
        shapes = [list(v.shape or ()) for v in (operands[0], node.outputs[0])]
        return len(shapes[0]) >= 2 and shapes[0][:2] == shapes[1][:2] and all(d == 1 for s in shapes for d in s[2:])
    if node.op_type.startswith("Reduce"):
        ends = operands[0].shape, node.outputs[0].shape
        return all(s is not None and len(s) >= 2 for s in ends) and ends[0][1] == ends[1][1] != 1  # type: ignore[index]
    return True


def _scales(group: _Group, statistics: Mapping[str, Channels]) -> np.ndarray | None:
    """The scales of least expected error; None where leaving the channels alone is as good.

    Tried are powers of the channels' ranges: 0 leaves them, 1 makes all alike. What makes the channels of an activation alike
    makes the columns of the next weights differ, which then lose what the activation wins.
    """
    held = [statistics[str(v.name)] for v in group.values if v.name in statistics and not _is_fused(v)]
    if not held:
        return None
    ranges = np.max([np.maximum(np.abs(s.low), np.abs(s.high)) for s in held], axis=0)
    if not (ranges > 0).any() or not np.isfinite(ranges).all():
        return None
    ranges = np.maximum(ranges, ranges.max() / LARGEST_RATIO)
    candidates = [(np.median(ranges) / ranges) ** exponent for exponent in EXPONENTS]
    errors = [_expected_error(group, scales, statistics) for scales in candidates]
    best = int(np.argmin(errors))
    return candidates[best] if best else None


def _expected_error(group: _Group, scales: np.ndarray, statistics: Mapping[str, Channels]) -> float:
    """Variance of the rounding errors at the results of all takers, relative to the results' own variance, summed.

    A rounding error is uniform over one step: its variance is step² / 12. The mean of the weights' part does not count: the
    biases are corrected for it.
    """
    error = 0.0
    noise = max((_noise(statistics[str(v.name)], scales) for v in group.values if v.name in statistics), default=0.0)
    for taker in group.takers:
        if not {taker.takes, taker.makes} <= statistics.keys():
            continue
        kernel, result = taker.kernel, statistics[taker.makes]
        signal = max(float(result.variance.sum() + np.square(result.mean).sum()), 1e-30)
        of_activation = (np.square(kernel) / np.square(taker.per_input(scales))).sum() * noise
        of_weights = 0.0
        if not taker.depthwise:  # its scale is per channel already
            step = np.abs(kernel / taker.per_input(scales)).max((1, 2)) / 127
            variance = (statistics[taker.takes].variance * np.square(scales)).sum() * kernel.shape[2]
            of_weights = float(np.square(step).sum() / 12 * variance)
        error += (float(of_activation) + of_weights) / signal
    return error


def _noise(held: Channels, scales: np.ndarray) -> float:
    high, low = max(float((held.high * scales).max()), 0.0), min(float((held.low * scales).min()), 0.0)
    return ((high - low) / 255) ** 2 / 12


def _is_fused(value: ir.Value) -> bool:
    """Whether the runtimes never hold the value: a Relu or Clip takes it at once."""
    users = value.consumers()
    return len(users) == 1 and users[0].op_type in ("Relu", "Clip")


def _apply(group: _Group, scales: np.ndarray) -> None:
    for maker in group.makers:
        current = layer(maker.node)
        assert current is not None
        bias = current.bias
        current.store(current.kernel * scales[:, None, None])
        if bias is not None:
            current.store_bias(bias * scales)
    for taker in group.takers:
        current = layer(taker.node)
        assert current is not None
        current.store(current.kernel / current.per_input(scales))
