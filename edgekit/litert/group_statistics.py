"""What a network computes on groups of channels as an axis of their own is computed on the channels.

Before:  Reshape(x to (N, groups, C/groups, H, W)) → ReduceMean, Sub, Mul, ReduceMean → Add, Sqrt → Expand → Reshape to x's shape
After:   ReduceMean(x) per channel → means of groups → Sub, Mul, ReduceMean → means of groups → Add, Sqrt, all (N, C, 1, 1)

EvoNorm and other norms that exporters spell out are such. A value of the region is held as the map that it stands for, or, where
it is the same for all places of a group, as one number per channel, which elementwise operators broadcast. Kernels are slow at
rows of C/groups numbers, and a network in channels last would have to move channels to split them.

Applies where everything that the Reshape leads to is elementwise, a mean over whole groups or their Expand, up to Reshapes back,
and there is a mean.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import onnx_ir as ir

from edgekit.layout import constant, dims, rank
from edgekit.layout.rules.axes import reduced_axes
from edgekit.litert.decompose.builder import Builder, remove_with_makers, take_over
from edgekit.litert.decompose.normalization import mean_of_groups

ELEMENTWISE = {"Abs", "Add", "Div", "Mul", "Neg", "Sqrt", "Sub"}
BROADCASTS = {"Add", "Div", "Mul", "Sub"}


@dataclass
class _Region:
    """What one Reshape leads to.

    Args:
        x: Of shape (N, C, …), all numbers.
        split: x's shape with the channels as two axes.
        nodes: In the order in which they run, without the Reshapes at either end.
        ends: The Reshapes back to x's shape.
        constant_in_groups: The values that are the same for all places of a group.
    """

    x: ir.Value
    split: tuple[int | str, ...]
    nodes: list[ir.Node] = field(default_factory=list)
    ends: list[ir.Node] = field(default_factory=list)
    constant_in_groups: set[ir.Value] = field(default_factory=set)


def merge_group_statistics(model: ir.Model) -> None:
    """Apply it wherever it fits, in place."""
    places = {node: i for i, node in enumerate(model.graph)}
    for node in list(places):
        if node.op_type == "Reshape" and node.graph is not None and (region := _region(node, places)) is not None:
            _rewrite(node, region)


def _region(reshape: ir.Node, places: dict[ir.Node, int]) -> _Region | None:
    """None where it does not fit."""
    x, first = reshape.inputs[0], reshape.outputs[0]
    if x is None or rank(x) < 3 or rank(first) != rank(x) + 1:
        return None
    shape, split = dims(x), dims(first)
    if not all(isinstance(d, int) for d in (*shape, *split)) or (split[0], *split[3:]) != (shape[0], *shape[2:]):
        return None
    region = _Region(x, split)
    known = {first}
    waiting = [(places.get(user, -1), user) for user, _ in first.uses()]
    heapq.heapify(waiting)
    seen: set[ir.Node] = set()
    while waiting:
        place, node = heapq.heappop(waiting)
        if node in seen:
            continue
        seen.add(node)
        if place < 0 or any(out.is_graph_output() for out in node.outputs):  # made meanwhile, or in a body; or seen from outside
            return None
        if node.op_type == "Reshape" and dims(node.outputs[0]) == shape:
            region.ends.append(node)
            continue
        if not _fits(node, region, known):
            return None
        region.nodes.append(node)
        known.add(node.outputs[0])
        for user, _ in node.outputs[0].uses():
            heapq.heappush(waiting, (places.get(user, -1), user))
    return region if region.ends and any(node.op_type == "ReduceMean" for node in region.nodes) else None


def _fits(node: ir.Node, region: _Region, known: set[ir.Value]) -> bool:
    """Whether the region can go on through a node. It notes results that are constant in groups."""
    source, out, split = node.inputs[0], node.outputs[0], region.split
    small = (split[:2], (*split[:2], *(1,) * (len(split) - 2)))
    if node.op_type == "ReduceMean":
        region.constant_in_groups.add(out)
        whole = list(reduced_axes(node) or ()) == list(range(2, len(split)))
        return whole and source in known and dims(source) == split  # type: ignore[arg-type]
    if node.op_type in ("Expand", "Reshape"):
        region.constant_in_groups.add(out)
        return source in region.constant_in_groups and dims(out) in (split, *small)
    operands = [value for value in node.inputs if value is not None]
    numbers = [value for value in operands if value not in known]
    if node.op_type not in ELEMENTWISE or dims(out) not in (split, *small):
        return False
    if all(value in region.constant_in_groups or value in numbers for value in operands):
        region.constant_in_groups.add(out)
    return all((array := constant(value)) is not None and array.size == 1 for value in numbers)


def _rewrite(reshape: ir.Node, region: _Region) -> None:
    shape, groups = dims(region.x), int(region.split[1])
    small = (*shape[:2], *(1,) * (len(shape) - 2))
    held = {reshape.outputs[0]: region.x}
    for node in region.nodes:
        b, out = Builder(node), node.outputs[0]
        if node.op_type in ("Expand", "Reshape"):
            held[out] = held[node.inputs[0]]  # type: ignore[index]
        elif node.op_type == "ReduceMean":
            axes = b.ints(range(2, len(shape)))
            means = b.op("ReduceMean", [held[node.inputs[0]], axes], small, out.dtype, keepdims=1)  # type: ignore[index]
            held[out] = means if groups == shape[1] else mean_of_groups(b, means, groups)
        else:
            operands = [held[v] if v in held else b.const(constant(v).reshape(())) for v in node.inputs if v is not None]  # type: ignore[union-attr]
            held[out] = b.op(node.op_type, operands, small if out in region.constant_in_groups else shape, out.dtype)
    for end in region.ends:
        _replace(end, held[end.inputs[0]], end.inputs[0] in region.constant_in_groups)  # type: ignore[index]
        remove_with_makers(end)


def _replace(end: ir.Node, value: ir.Value, small: bool) -> None:
    """Whoever takes the result of the Reshape takes the value; where that is small and not broadcast, all of it."""
    old = end.outputs[0]
    if not small:
        take_over(old, value)
        return
    shape = dims(old)
    for user, place in list(old.uses()):
        others = [v for i, v in enumerate(user.inputs) if i != place and v is not None]
        if user.op_type in BROADCASTS and all(dims(v) == shape and v is not old for v in others):
            user.replace_input_with(place, value)
    if old.uses():
        b = Builder(end)
        old.replace_all_uses_with(b.op("Expand", [value, b.ints([int(d) for d in shape])], shape, old.dtype))
