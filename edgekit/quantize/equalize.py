"""Cross-layer equalization: channels of one tensor get ranges that one int8 scale can serve.

A value can be scaled channel by channel, w' = w * s in the layers that make it and w' = w / s in the layers that take it,
without any change of the result, as long as all between is linear or a ReLU (Nagel et al. 2019, "Data-Free Quantization").
Values that an Add ties together, a whole residual stage, share their scales.

A Clip (ReLU6) can be crossed by channels that stay below its bound on the calibration data, with a margin, and then only upwards:
the bound moves closer to their values. That is not exact on other data. For EfficientNet-Lite0 it costs more than it brings
(cosine 0.98 before anything is rounded), for MobileNetV2 it takes a fifth of the error. Therefore it is the caller's choice.
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
# Across a Clip: how far above a channel's largest value the bound must stay, and the largest scale.
CLIP_MARGIN = 1.5
CLIP_RATIO = 4.0
EXPONENTS = tuple(i / 10 for i in range(11))

_POSITIVELY_HOMOGENEOUS = frozenset(
    "AveragePool Flatten GlobalAveragePool GlobalMaxPool Identity LeakyRelu MaxPool ReduceMax ReduceMean ReduceSum Relu "
    "Reshape".split()
)


def equalize(model: ir.Model, statistics: Mapping[str, Channels], *, across_clips: bool = False) -> int:
    """Scale the channels of every value that may be, in place. Returns the number of scaled groups of values."""
    scaled = 0
    for group in _groups(model.graph, across_clips):
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
    clips: list[tuple[str, float]] = field(default_factory=list)
    fixed: bool = False


def _groups(graph: ir.Graph, across_clips: bool) -> list[_Group]:
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
        if links[-1][1] is None and _is_link(node, operands, across_clips):
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
                group(value).fixed |= not _is_link(node, operands, across_clips)
            if node.op_type == "Clip" and across_clips:
                group(operands[0]).clips.append((str(operands[0].name), _clip_bound(node) or np.inf))
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


def _is_link(node: ir.Node, operands: Sequence[ir.Value], across_clips: bool) -> bool:
    """Whether scaling the operands' channels scales the result's channels alike."""
    if node.op_type == "Add":
        return len(operands) == 2 and operands[0].shape is not None and operands[0].shape == operands[1].shape
    if node.op_type == "Clip":
        return across_clips and len(operands) == 1 and _clip_bound(node) is not None
    if node.op_type not in _POSITIVELY_HOMOGENEOUS or len(operands) != 1:
        return False
    if node.op_type in ("Flatten", "Reshape"):  # N x C x 1 x 1 to N x C and back
        shapes = [list(v.shape or ()) for v in (operands[0], node.outputs[0])]
        return len(shapes[0]) >= 2 and shapes[0][:2] == shapes[1][:2] and all(d == 1 for s in shapes for d in s[2:])
    if node.op_type.startswith("Reduce"):
        ends = operands[0].shape, node.outputs[0].shape
        return all(s is not None and len(s) >= 2 for s in ends) and ends[0][1] == ends[1][1] != 1  # type: ignore[index]
    return True


def _clip_bound(node: ir.Node) -> float | None:
    """The upper bound of a Clip from zero; None for any other Clip."""
    bounds = [v.const_value.numpy().item() if v is not None and v.const_value is not None else None for v in node.inputs[1:3]]
    return bounds[1] if len(bounds) == 2 and bounds[0] == 0 else None


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
    candidates = [_within_clips(group, ranges, exponent, statistics) for exponent in EXPONENTS]
    errors = [_expected_error(group, scales, statistics) for scales in candidates]
    best = int(np.argmin(errors))
    return candidates[best] if best else None


def _within_clips(group: _Group, ranges: np.ndarray, exponent: float, statistics: Mapping[str, Channels]) -> np.ndarray:
    """The ranges to a power, as scales; where there are Clips, from 1 up to what their bounds allow."""
    if not group.clips:
        return (np.median(ranges) / ranges) ** exponent
    highest = np.full(len(ranges), CLIP_RATIO)
    for name, bound in group.clips:
        if name in statistics:
            highest = np.minimum(highest, bound / np.maximum(statistics[name].high * CLIP_MARGIN, 1e-9))
    return np.clip((ranges.max() / ranges) ** exponent, 1.0, np.maximum(highest, 1.0))


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
