"""What each operator of a .tflite file computes in: the precision asked for, another one, or float."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from edgekit.quantize.recipe import FLOAT, Recipe
from edgekit.quantize.tflite_parts import Part, TfliteParts

# What ai-edge-quantizer calls our precisions, in its table of the operators that they are for.
_POLICIES = {"int8": "static_wi8_ai8", "int16x8": "static_wi8_ai16", "int8-dynamic": "dynamic_wi8_afp32"}
FIXED_RANGES = ("int8", "int16x8")

# In a network with attention; the rest is float. With fixed ranges the few large channels of activations take all steps:
# all-MiniLM-L6-v2 keeps a cosine of 0.45 with everything in int8, 0.51 with normalizations and SOFTMAX in float, 0.95 with
# FULLY_CONNECTED alone, and 0.9987 as it is done here.
_BESIDE_ATTENTION = {
    "CONV_2D": "int8",
    "DEPTHWISE_CONV_2D": "int8",
    "GATHER": "int8",
    "FULLY_CONNECTED": "int8-dynamic",
    "BATCH_MATMUL": "int8-dynamic",
}

# The same for int16x8, also in a network that normalizes as it runs: squares of activations and their means span more than
# 16 bits. all-MiniLM-L6-v2 keeps a cosine of 0.70 with all arithmetic on int16, and 0.9996 as it is done here.
_BESIDE_NORMALIZATION = frozenset("CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED GATHER TRANSPOSE_CONV".split())

# Operators whose results are some of the numbers that they take: they compute nothing, and work in any precision.
_MOVES = frozenset(
    "BROADCAST_TO CONCATENATION GATHER GATHER_ND MAX_POOL_2D MIRROR_PAD PACK PAD RESHAPE RESIZE_NEAREST_NEIGHBOR SLICE "
    "SPACE_TO_DEPTH SPLIT STRIDED_SLICE TRANSPOSE UNPACK".split()
)


def precisions(
    parts: TfliteParts,
    precision: str,
    recipe: Recipe,
    ranges: Mapping[str, Any] = MappingProxyType({}),
    refused: Sequence[str] = (),
) -> dict[str, str]:
    """The precision of each operator, by its name.

    Args:
        parts: The float file.
        precision: What is asked for: `int8`, `int16x8` or `int8-dynamic`.
        recipe: Its layers that are something else, by the names of their results.
        ranges: {"min": array, "max": array} by tensor name, where they are known.
        refused: Kinds of operators that the runtime does not take, or names of single ones.

    An operator that is not in the quantizer's table is in float. One that only moves numbers follows those it moves, so that
    nothing is rounded on the way from one float operator to the next.
    """
    found = {part.name: precision for part in parts.operators}
    if precision == "int8":
        found |= _unlike_int8(parts)
    elif precision == "int16x8":
        found |= {part.name: FLOAT for part in parts.operators if not _suits_int16(parts, part)}
    if precision in FIXED_RANGES:
        found |= dict.fromkeys(parts.beside_infinity(ranges), FLOAT)
    for part in parts.operators:
        layers = [layer for name in part.makes if (layer := recipe.precision_of(name)) != "int8"]
        found |= {part.name: layers[0]} if layers else {}
        if part.kind in refused or part.name in refused or part.code not in quantizable(found[part.name]):
            found[part.name] = FLOAT
    return found | dict.fromkeys(_moves_in_float(parts, found), FLOAT)


def wide(parts: TfliteParts, found: Mapping[str, str]) -> set[str]:
    """The tensors that int16x8 operators make or take, and no int8 ones, by name."""
    touched: dict[str, set[str]] = {"int8": set(), "int16x8": set()}
    for part in parts.operators:
        if found[part.name] in touched:
            touched[found[part.name]].update((*part.takes, *part.makes))
    return touched["int16x8"] - touched["int8"]


@cache
def quantizable(precision: str) -> frozenset[int]:
    """The builtin operators that ai-edge-quantizer has a form for."""
    from ai_edge_quantizer import default_policy, qtyping
    from ai_edge_quantizer.utils.tfl_flatbuffer_utils import TFL_OP_NAME_TO_CODE

    if precision == FLOAT:
        return frozenset()
    names = json.loads(default_policy.DEFAULT_JSON_POLICY)["ops_per_config"][_POLICIES[precision]]
    codes = (TFL_OP_NAME_TO_CODE.get(qtyping.TFLOperationName(name)) for name in names)
    return frozenset(code for code in codes if code is not None)


def _unlike_int8(parts: TfliteParts) -> dict[str, str]:
    """What fixed ranges of 256 steps do not suit: attention, scores, and the state of a loop, which is float at its start."""
    found: dict[str, str] = {}
    if parts.has_attention:
        found |= {part.name: _BESIDE_ATTENTION.get(part.kind, FLOAT) for part in parts.operators}
    readout = parts.readout()
    for part in parts.operators:
        if part.subgraph > 0 or part.name in readout:
            found[part.name] = "int8-dynamic" if part.kind == "FULLY_CONNECTED" else FLOAT
    return found


def _suits_int16(parts: TfliteParts, part: Part) -> bool:
    if part.subgraph > 0 or part.kind == "SOFTMAX":
        return False  # its table of exponentials is coarse for long rows: 22 % on the 6,906 classes of tinyocr-rec
    if part.kind == "BATCH_MATMUL" and any(map(parts.is_constant, part.takes)):
        return False  # LiteRT 2.3 multiplies int16 by int8 to zeros there
    normalizes = parts.has_attention or any(other.kind == "RSQRT" for other in parts.operators)
    return part.kind in _BESIDE_NORMALIZATION or not normalizes


def _moves_in_float(parts: TfliteParts, found: Mapping[str, str]) -> set[str]:
    """The moves that take nothing but float results (or the model's inputs) and that something reads in float.

    Of a move that float operators feed and integer ones read it makes no difference on which side it stands.
    """
    makers = {name: part for part in parts.operators for name in part.makes}
    users: dict[str, list[Part]] = {}
    for part in parts.operators:
        for name in part.takes:
            users.setdefault(name, []).append(part)
    candidates: set[str] = set()
    for part in parts.operators:
        sources = [makers.get(name) for name in part.takes if parts.is_float(name)]
        if part.kind in _MOVES and sources:
            exact = (source is None or _gives_float(found, source) or source.name in candidates for source in sources)
            candidates |= {part.name} if all(exact) else set()
    moved: set[str] = set()
    for part in reversed(parts.operators):
        readers = [user for name in part.makes for user in users.get(name, ())]
        if part.name in candidates and any(_gives_float(found, user) or user.name in moved for user in readers):
            moved.add(part.name)
    return moved


def _gives_float(found: Mapping[str, str], part: Part) -> bool:
    return found[part.name] in (FLOAT, "int8-dynamic")
