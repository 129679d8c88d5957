"""Large constants that repeat themselves are written as what is in them and an index.

Before:  ADD(scores, constant [1, heads, N, N])
After:   GATHER(table [1, heads, K], index [N, N]) → ADD(scores, ·)

The relative positions of attention are such: a table of (2W - 1)² entries per head, which the hub has spread over W² × W² pairs
of places. Whatever was computed on the way is in the table already, and layers of equal windows share the index. Looking it up
takes time at each run, so it is done only as far as the file would otherwise be more than `TOLERATED` larger, the best first.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from edgekit.litert.graph import Graph, Operator, Tensor

TOLERATED = 0.01
"""Share of all constants that may be repetitions."""
SMALLEST = 1 << 14
"""Bytes from which on a constant is looked at."""
ELEMENTWISE = {"ADD", "MUL", "SUB", "DIV", "MAXIMUM", "MINIMUM", "SELECT_V2"}


@dataclass(frozen=True)
class _Table:
    """A constant along a run of its axes: those from `axis` on that `index` has. `entries` has one axis in their place."""

    entries: np.ndarray
    index: np.ndarray
    axis: int

    @property
    def nbytes(self) -> int:
        return self.entries.nbytes + self.index.nbytes


def look_up_repetitions(graph: Graph) -> None:
    """Apply it to this graph, in place."""
    total = sum(t.data.nbytes for t in graph.tensors() if t.data is not None)
    large = {
        t: data for op in graph.operators if op.code in ELEMENTWISE for t in op.inputs if (data := _floats(t)) is not None and t
    }
    excess = sum(data.nbytes for data in large.values()) - TOLERATED * total
    if excess <= 0:
        return
    tables = {tensor: table for tensor, data in large.items() if (table := _table(data)) is not None}
    saved = {tensor: large[tensor].nbytes - table.nbytes for tensor, table in tables.items()}
    left = sum(saved.values())
    for tensor in sorted(tables, key=lambda t: -saved[t]):
        if left <= TOLERATED * total:
            return
        left -= saved[tensor]
        _write(graph, tensor, tables[tensor])


def _floats(tensor: Tensor | None) -> np.ndarray | None:
    """The numbers of a constant that is large enough to look at."""
    if tensor is None or tensor.data is None or tensor.dtype != np.float32 or tensor.quantization is not None:
        return None
    return tensor.data if tensor.data.nbytes >= SMALLEST else None


def _table(data: np.ndarray) -> _Table | None:
    """The smallest form of a constant; None where no other is less than half of it."""
    runs = [(0, stop) for stop in range(1, data.ndim)] + [(start, data.ndim) for start in range(1, data.ndim)]
    best: tuple[int, int, int] | None = None
    for start, stop in runs:
        places = prod(data.shape[start:stop])
        if places * 4 >= data.nbytes // 2:  # the index alone
            continue
        entries = len(np.unique(_fingerprints(data, start, stop)))
        size = entries * (data.nbytes // places) + places * 4
        if size < data.nbytes // 2 and (best is None or size < best[0]):
            best = (size, start, stop)
    return None if best is None else _entries(data, *best[1:])


def _fingerprints(data: np.ndarray, start: int, stop: int) -> np.ndarray:
    """One number for each place along a run of axes, equal where all that lies there is equal (and hardly ever elsewhere)."""
    around, within = prod(data.shape[:start]), prod(data.shape[stop:])
    bits = np.ascontiguousarray(data).view(np.uint32).reshape(around, -1, within)
    random = np.random.default_rng(0)
    factors = random.integers(1, 2**63, (around, 1, within), np.uint64) | np.uint64(1)
    return (bits * factors).sum(axis=(0, 2))


def _entries(data: np.ndarray, start: int, stop: int) -> _Table | None:
    """The entries along a run of axes in the order in which they are first met, so that equal patterns have equal indices."""
    _, first, inverse = np.unique(_fingerprints(data, start, stop), return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    flat = data.reshape(*data.shape[:start], -1, *data.shape[stop:])
    entries = np.take(flat, first[order], axis=start)
    index = rank[inverse.reshape(-1)].astype(np.int32).reshape(data.shape[start:stop])
    same = np.array_equal(np.take(entries, index.reshape(-1), axis=start), flat)
    return _Table(entries, index, start) if same else None


def _write(graph: Graph, tensor: Tensor, table: _Table) -> None:
    entries = Tensor(f"{tensor.name}/table", table.entries.shape, tensor.dtype, table.entries)
    index = Tensor(f"{tensor.name}/index", table.index.shape, table.index.dtype, table.index)
    spread = Tensor(f"{tensor.name}/spread", tensor.shape, tensor.dtype)
    for op in graph.operators:
        op.inputs = [spread if t is tensor else t for t in op.inputs]
    graph.operators.insert(0, Operator("GATHER", [entries, index], [spread], {"axis": table.axis, "batchDims": 0}))
