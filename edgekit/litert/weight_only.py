"""INT8 and INT4 weights, computed in float32: smaller files, not faster ones.

int8-weights, before:  CONV_2D(x, weights float32)      after:  DEQUANTIZE(int8, a scale per channel) → CONV_2D(x, ·)
                       GATHER(table float32, i)         after:  EMBEDDING_LOOKUP(i, table int8, a scale per row)
int4-weights, before:  FULLY_CONNECTED(x, weights)      after:  FULLY_CONNECTED(x, int4, a scale per 32 weights)
                       GATHER(table float32, i)         after:  EMBEDDING_LOOKUP(i, table int4, a scale per 32 numbers)

The first is expanded once, when XNNPACK or the interpreter loads it. An int4 matrix stays as it is in memory, and is multiplied
by x in 8 bits, with a range per row of x that is found in each run. There is no 4-bit convolution: those and all that 4 bits are
too coarse for are as in int8-weights.
"""

from __future__ import annotations

import math
from collections import Counter

import ml_dtypes
import numpy as np

from edgekit.hub.quantized import KEPT
from edgekit.litert.graph import Graph, Operator, Quantization, Tensor
from edgekit.litert.stored_integers import CHANNELS, is_smaller, store_integers
from edgekit.quantize.stored import in_blocks, nothing_to_store, packed, per_channel

INT4 = np.dtype(ml_dtypes.int4)
INT32 = np.dtype(np.int32)
# Whose float32 weights stay: what LiteRT has no float kernel with other weights for.
_WEIGHTED = frozenset("BATCH_MATMUL BIDIRECTIONAL_SEQUENCE_LSTM CONV_3D GATHER UNIDIRECTIONAL_SEQUENCE_LSTM".split())


def store_weights(graph: Graph, precision: str) -> list[str]:
    """Apply it to this graph and its subgraphs, in place. Returns notes on what is in 4 bits and what stays float32.

    A graph that computes on integers already, because the model does, stays as it is.

    Raises:
        QuantizeError: There are no weights to store so.
    """
    if any(tensor.quantization is not None for part in graph.with_subgraphs() for op in part.operators for tensor in op.outputs):
        return [KEPT]
    four_bits: Counter[str] = Counter()
    for part in graph.with_subgraphs():
        operators: list[Operator] = []
        tables: dict[Tensor, Tensor] = {}
        for op in part.operators:
            if _looks_up(op):
                op_table = op.inputs[0]
                assert op_table is not None
                table = tables.setdefault(op_table, _table(op_table, precision))
                operators += _lookup(op, table)
                four_bits["EMBEDDING_LOOKUP"] += table.dtype == INT4
                continue
            if precision == "int4-weights" and op.code == "FULLY_CONNECTED" and (stored := _matrix(op.inputs[1])) is not None:
                op.inputs[1] = tables.setdefault(op.inputs[1], stored)  # type: ignore[arg-type]
                four_bits["FULLY_CONNECTED"] += 1
            operators.append(op)
        part.operators = operators
    store_integers(graph, rounded=True)
    constants = {t for part in graph.with_subgraphs() for op in part.operators for t in op.inputs if t is not None}
    if not any(t.block_scales is not None or (precision == "int8-weights" and t.quantization is not None) for t in constants):
        raise nothing_to_store(precision)
    left = _weights(graph)
    notes = [f"in 4 bits: {_listed(four_bits)}; other weights in 8"] if +four_bits else []
    return notes + ([f"weights in float: {_listed(left)}"] if left else [])


def _looks_up(op: Operator) -> bool:
    """Whether it picks rows of a constant table, by numbers that are computed."""
    if op.code != "GATHER" or op.options.get("axis", 0) or op.options.get("batchDims", 0):
        return False
    table, index = op.inputs
    if table is None or index is None or table.data is None or index.data is not None or table.rank != 2:
        return False
    return is_smaller(table, 0) and sum(isinstance(d, str) for d in index.shape) <= 1


def _lookup(op: Operator, table: Tensor) -> list[Operator]:
    """EMBEDDING_LOOKUP takes a list of int32 numbers: with a CAST and RESHAPEs where the indices are something else."""
    index, result = op.inputs[1], op.outputs[0]
    assert index is not None
    made: list[Operator] = []
    if index.dtype != INT32:
        given, index = index, Tensor(f"{result.name}/int32", index.shape, INT32)
        made.append(Operator("CAST", [given], [index], {"inDataType": given.dtype, "outDataType": INT32}))
    if index.rank == 1:
        return [*made, Operator("EMBEDDING_LOOKUP", [index, table], [result])]
    sizes = [d for d in index.shape if isinstance(d, int)]
    count = math.prod(sizes) if len(sizes) == index.rank else "rows"
    flat = Tensor(f"{result.name}/indices", (count,), INT32)
    rows = Tensor(f"{result.name}/picked", (count, table.shape[1]), result.dtype)
    return [
        *made,
        _reshape(index, flat),
        Operator("EMBEDDING_LOOKUP", [flat, table], [rows]),
        _reshape(rows, result),
    ]


def _reshape(given: Tensor, result: Tensor) -> Operator:
    sizes = np.array([d if isinstance(d, int) else -1 for d in result.shape], np.int32)
    return Operator("RESHAPE", [given, Tensor(f"{result.name}/shape", sizes.shape, INT32, sizes)], [result])


def _table(table: Tensor, precision: str) -> Tensor:
    if precision == "int4-weights" and (stored := _matrix(table)) is not None:
        return stored
    assert table.data is not None
    integers, scales = per_channel(table.data, 0)
    grid = Quantization(scales, np.zeros(len(scales), np.int64), 0)
    return Tensor(f"{table.name}/int8", table.shape, integers.dtype, integers, grid)


def _matrix(weights: Tensor | None) -> Tensor | None:
    """A constant matrix in 4 bits, or None where there is none or it does not suit."""
    if weights is None or weights.data is None or weights.dtype != np.float32 or weights.rank != 2:
        return None
    found = in_blocks(weights.data) if is_smaller(weights, 0) else None
    if found is None:
        return None
    integers, scales = found
    held = Tensor(f"{weights.name}/scales", scales.shape, np.dtype(np.float16), scales.astype(np.float16))
    return Tensor(f"{weights.name}/int4", weights.shape, INT4, packed(integers), block_scales=held)


def _weights(graph: Graph) -> Counter[str]:
    """How many operators of each kind have float32 weights that could be stored in fewer bits."""
    found: Counter[str] = Counter()
    for part in graph.with_subgraphs():
        for op in part.operators:
            if op.code in CHANNELS or op.code in _WEIGHTED:
                found[op.code] += any(t is not None and t.rank > 1 and is_smaller(t, CHANNELS.get(op.code, 0)) for t in op.inputs)
    return +found


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()) if count)
