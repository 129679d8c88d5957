"""Large constants that repeat themselves are written as what is in them and an index.

Before:  ADD(scores, constant [1, heads, N, N])
After:   GATHER(table [1, heads, K], index [N, N]) → ADD(scores, ·)

The relative positions of attention are such: a table of (2W - 1)² entries per head, which the hub has spread over W² × W² pairs
of places. Whatever was computed on the way is in the table already, and layers of equal windows share the index. Looking it up
takes time at each run, so it is done only as far as the file would otherwise be more than `TOLERATED` larger, the best first.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod

import numpy as np

from edgekit.litert.graph import Dim, Graph, Operator, Tensor

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
    def saved(self) -> int:
        """Bytes by which the constant is larger."""
        spread = self.entries.nbytes // self.entries.shape[self.axis] * self.index.size
        return spread - self.entries.nbytes - self.index.nbytes


def look_up_repetitions(graph: Graph) -> None:
    """Apply it to this graph, in place."""
    total = sum(t.data.nbytes for t in graph.tensors() if t.data is not None)
    tolerated = TOLERATED * total
    operands = (t for op in graph.operators if op.code in ELEMENTWISE for t in op.inputs)
    large = list(dict.fromkeys(t for t in operands if t is not None and _is_large(t)))
    if sum(_numbers(t).nbytes for t in large) <= tolerated:
        return
    equal: dict[tuple[tuple[Dim, ...], bytes], list[Tensor]] = {}  # the file holds equal constants once
    for tensor in large:
        digest = hashlib.blake2b(np.ascontiguousarray(_numbers(tensor)).data).digest()
        equal.setdefault((tensor.shape, digest), []).append(tensor)
    tables = [(table, tensors) for tensors in equal.values() if (table := _table(_numbers(tensors[0]))) is not None]
    tables.sort(key=lambda each: each[0].saved, reverse=True)
    left = sum(table.saved for table, _ in tables)
    for table, tensors in tables:
        if left <= tolerated:
            return
        left -= table.saved
        _write(graph, tensors, table)


def _is_large(tensor: Tensor) -> bool:
    """Whether a tensor is a constant that is worth a look."""
    if tensor.data is None or tensor.dtype != np.float32 or tensor.quantization is not None:
        return False
    return tensor.data.nbytes >= SMALLEST


def _numbers(constant: Tensor) -> np.ndarray:
    assert constant.data is not None
    return constant.data


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


def _write(graph: Graph, constants: list[Tensor], table: _Table) -> None:
    """Look up once what stands in several equal constants."""
    first = constants[0]
    entries = Tensor(f"{first.name}/table", table.entries.shape, first.dtype, table.entries)
    index = Tensor(f"{first.name}/index", table.index.shape, table.index.dtype, table.index)
    spread = Tensor(f"{first.name}/spread", first.shape, first.dtype)
    for op in graph.operators:
        op.inputs = [spread if t in constants else t for t in op.inputs]
    graph.operators.insert(0, Operator("GATHER", [entries, index], [spread], {"axis": table.axis, "batchDims": 0}))
