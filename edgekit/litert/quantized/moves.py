"""Operators that move numbers or choose among them: the same on integers, as long as those mean the same on both sides."""

from __future__ import annotations

import numpy as np

from edgekit.litert.graph import Operator, Quantization, Tensor
from edgekit.litert.kernels import KERNELS
from edgekit.litert.quantized.grid import rounded, within
from edgekit.litert.quantized.integers import Integers, StaysFloat

MOVES = frozenset(
    "ARG_MAX ARG_MIN BATCH_TO_SPACE_ND BROADCAST_TO CONCATENATION DEPTH_TO_SPACE EXPAND_DIMS GATHER GATHER_ND MAX_POOL_2D "
    "MAXIMUM MINIMUM MIRROR_PAD PACK PAD PADV2 REDUCE_MAX REDUCE_MIN RESHAPE RESIZE_NEAREST_NEIGHBOR REVERSE_V2 SELECT_V2 SLICE "
    "SPACE_TO_DEPTH SPLIT SPLIT_V SQUEEZE STRIDED_SLICE TILE TOPK_V2 TRANSPOSE UNPACK".split()
)


def data_places(op: Operator) -> list[int]:
    """The places of the operands that are moved; the others say where to."""
    kernel = KERNELS.get(op.code)
    places = (0,) if kernel is None else range(len(op.inputs)) if kernel.inputs is None else kernel.inputs
    return [i for i in places if i < len(op.inputs) and op.inputs[i] is not None]


def move(op: Operator, walk: Integers) -> None:
    """On the operands' own grid where they share one, otherwise on the one that the result is quantized to."""
    places = data_places(op)
    operands = [t for i in places if (t := op.inputs[i]) is not None]
    if op.activation != "NONE" or any(t.dtype != np.float32 for t in operands):
        raise StaysFloat("it does more than move numbers")
    grid = _shared_grid(operands, walk) or _final_grid(op, operands, walk)
    bounded = _without_bound(op, operands, grid)
    if bounded is not None:
        walk.hold(op.outputs[0], walk.requantized(bounded, grid))
        return
    inputs = list(op.inputs)
    for place, tensor in zip(places, operands, strict=True):
        inputs[place] = walk.requantized(tensor, grid)
    kernel = KERNELS.get(op.code)
    results = range(len(op.outputs)) if kernel is None or kernel.outputs is None else kernel.outputs
    outputs = [walk.result(out, grid) if i in results else out for i, out in enumerate(op.outputs)]
    fill = inputs[2] if op.code == "PADV2" else None
    if fill is not None and fill.data is not None and (fill.data == grid.zero_point).all():
        walk.emit("PAD", inputs[:2], outputs, {})  # which pads with the zero point, and which every delegate has
        return
    walk.emit(op.code, inputs, outputs, op.options)


def _without_bound(op: Operator, operands: list[Tensor], grid: Quantization) -> Tensor | None:
    """The operand of a MAXIMUM or MINIMUM with a constant that no int8 number of that grid exceeds."""
    if op.code not in ("MAXIMUM", "MINIMUM") or operands[0].shape != op.outputs[0].shape or operands[1].data is None:
        return None
    low = float(operands[1].data.max(initial=-np.inf)) if op.code == "MAXIMUM" else -np.inf
    high = float(operands[1].data.min(initial=np.inf)) if op.code == "MINIMUM" else np.inf
    return operands[0] if within(grid, low, high) else None


def _shared_grid(operands: list[Tensor], walk: Integers) -> Quantization | None:
    """The quantization that all operands have; a constant may have any that it is exact in."""
    found: Quantization | None = None
    for tensor in operands:
        held = walk.find(tensor)
        if held is not None and (tensor.data is None or found is None):
            if found is not None and not found.same_as(held.quantization):
                return None
            found = held.quantization
    exact = found is not None and all(_is_exact(t.data, found) for t in operands if t.data is not None)
    return found if exact and all(t.data is not None or walk.is_held(t) for t in operands) else None


def _final_grid(op: Operator, operands: list[Tensor], walk: Integers) -> Quantization:
    grid = walk.grid_of_result(op.outputs[0]) if len(op.outputs) == 1 else None
    if grid is None or not any(walk.is_held(t) for t in operands):
        raise StaysFloat("its operands and its result do not have one quantization")
    if not all(t.data is not None or walk.is_held(t) or walk.is_final(t) for t in operands):
        raise StaysFloat("an operand is used in float as well")
    return grid


def _is_exact(data: np.ndarray, grid: Quantization) -> bool:
    scale, zero = float(grid.scale[0]), int(grid.zero_point[0])
    return bool(np.allclose((rounded(data, grid).astype(np.float64) - zero) * scale, data, rtol=1e-6, atol=1e-6 * scale))
