"""TfIdfVectorizer of integers: each n-gram of the pool is compared with every window of the input, and the hits are counted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgekit.layout import dims, rank
from edgekit.litert.decompose.builder import Builder, Decomposition, Shape, integer, integers, string


def _tf_idf(node: ir.Node, b: Builder) -> list[ir.Value]:
    """Counts (rows, n-grams), weighted, and brought to the columns that the n-grams have in the result."""
    x = node.inputs[0]
    assert x is not None
    if "pool_strings" in node.attributes or x.dtype not in (ir.DataType.INT32, ir.DataType.INT64):
        raise b.refuse("LiteRT's strings cannot be compared", "number the words before the model, and use pool_int64s", "X")
    *outer, length = dims(x)
    if not isinstance(length, int):
        raise b.refuse(f"the length of its input is {length}", "fix that dimension with --input NAME=SHAPE", "X")
    batch = outer[0] if outer else 1
    rows = b.reshape(x, (batch, 1, length))
    columns, counts, kept = integers(node, "ngram_indexes", ()), [], []
    for size, (grams, numbers) in _pool(node).items():
        limits = np.iinfo(x.dtype.numpy())
        fit = ((grams >= limits.min) & (grams <= limits.max)).all(axis=1)
        hits = _count(node, b, rows, grams[fit].astype(x.dtype.numpy()), size)
        if hits is not None:
            counts.append(hits)
            kept += numbers[fit].tolist()
    width = max(columns) + 1
    shape: Shape = (batch, width)
    if not counts:
        return [b.op("Expand", [b.const(np.zeros(1, np.float32)), _sizes(b, x, width)], dims(node.outputs[0]))]
    total = counts[0]
    if len(counts) > 1:
        total = b.op("Concat", counts, (batch, len(kept)), ir.DataType.FLOAT, axis=1)
    found = _weighted(node, b, total, kept, shape)
    return [found if outer else b.reshape(found, (width,))]


def _pool(node: ir.Node) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Of each size that is asked for, the n-grams (one a row) and their numbers."""
    pool = np.array(integers(node, "pool_int64s", ()), np.int64)
    starts = [*integers(node, "ngram_counts", ()), len(pool)]
    found, number = {}, 0
    for size, (start, end) in enumerate(itertools.pairwise(starts), 1):
        grams = pool[start : start + (end - start) // size * size].reshape(-1, size)
        if len(grams) and integer(node, "min_gram_length") <= size <= integer(node, "max_gram_length"):
            found[size] = grams, np.arange(number, number + len(grams))
        number += len(grams)
    return found


def _count(node: ir.Node, b: Builder, rows: ir.Value, grams: np.ndarray, size: int) -> ir.Value | None:
    """How often each n-gram occurs in each row, with up to max_skip_count items between its parts (always as many)."""
    batch, _, length = dims(rows)
    assert isinstance(length, int)
    total: ir.Value | None = None
    for step in range(1, integer(node, "max_skip_count") + 2 if size > 1 else 2):
        windows = length - (size - 1) * step
        if windows < 1 or not len(grams):
            break
        shape, holds = (batch, len(grams), windows), None
        for part in range(size):
            bounds = [b.ints([n]) for n in (part * step, part * step + windows, 2)]
            seen = b.op("Slice", [rows, *bounds], (batch, 1, windows), rows.dtype) if windows < length else rows
            same = b.op("Equal", [seen, b.const(grams[:, part : part + 1])], shape, ir.DataType.BOOL)
            holds = same if holds is None else b.op("And", [holds, same], shape, ir.DataType.BOOL)
        assert holds is not None
        ones = b.op("Cast", [holds], shape, ir.DataType.FLOAT, to=int(ir.DataType.FLOAT))
        hits = b.op("ReduceSum", [ones, b.ints([2])], shape[:2], ir.DataType.FLOAT, keepdims=0)
        total = hits if total is None else b.binary("Add", total, hits)
    return total


def _weighted(node: ir.Node, b: Builder, counts: ir.Value, kept: list[int], shape: Shape) -> ir.Value:
    """The n-grams `kept` in their columns. Weights are those of n-grams, as ONNX and onnxruntime say; ONNX's reference takes them
    for those of columns."""
    columns, mode = integers(node, "ngram_indexes", ()), string(node, "mode")
    places = [columns[number] for number in kept]
    given = node.attributes["weights"].as_floats() if "weights" in node.attributes else ()
    weights = np.array(given if len(given) else [1.0] * len(columns), np.float32)[kept]
    if mode == "TFIDF":
        counts = b.binary("Mul", counts, b.const(weights)) if len(given) else counts
    found = _in_columns(b, counts, places, shape)
    if mode != "IDF":
        return found
    own = np.zeros(int(shape[1]), np.float32)
    own[places] = weights
    if (own[places] != weights).any():
        raise b.refuse(
            "n-grams of different weights share a place of the output", "give each n-gram a place of its own", "ngram_indexes"
        )
    held = b.op("Greater", [found, b.scalar(0, found)], shape, ir.DataType.BOOL)
    return b.binary("Mul", b.op("Cast", [held], shape, ir.DataType.FLOAT, to=int(ir.DataType.FLOAT)), b.const(own))


def _in_columns(b: Builder, counts: ir.Value, places: Sequence[int], shape: Shape) -> ir.Value:
    """Each n-gram's count in its column; columns may be empty, or have several."""
    batch, width = shape
    assert isinstance(width, int)
    waiting = [[number for number, place in enumerate(places) if place == column] for column in range(width)]
    if any(len(numbers) != 1 for numbers in waiting):
        counts = b.op("Pad", [counts, b.ints([0, 0, 0, 1])], (batch, len(places) + 1), ir.DataType.FLOAT)
    total: ir.Value | None = None
    for turn in range(max(map(len, waiting))):
        source = [numbers[turn] if turn < len(numbers) else len(places) for numbers in waiting]
        part = counts
        if source != list(range(len(places))):
            part = b.op("Gather", [counts, b.ints(source)], shape, ir.DataType.FLOAT, axis=1)
        total = part if total is None else b.binary("Add", total, part)
    assert total is not None
    return total


def _sizes(b: Builder, x: ir.Value, width: int) -> ir.Value:
    """The shape of the result where nothing can be found."""
    if rank(x) == 1:
        return b.ints([width])
    shape = b.op("Shape", [x], (1,), ir.DataType.INT64, end=1)
    return b.op("Concat", [shape, b.ints([width])], (2,), ir.DataType.INT64, axis=0)


DECOMPOSITIONS: dict[str, Decomposition] = {"TfIdfVectorizer": _tf_idf}
