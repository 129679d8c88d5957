"""Sizes that the model's data decide, and values without elements: what arrives is what onnxruntime computes."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

from edgekit import hub, litert
from edgekit.onnx_file import convert_proto
from edgekit.runtimes import Runner

from .running import model, source_results

CONSTANTS = {"zero": np.array([0]), "one": np.array([1])}
X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def agrees(text: str, *runs: dict[str, np.ndarray]) -> None:
    """One file gives onnxruntime's results, shapes included, on all runs."""
    source = model(f"net {text}", **{name: array for name, array in CONSTANTS.items() if name in text})
    compiled = litert.compile_hub(hub.prepare(convert_proto(onnx.ModelProto.FromString(source.SerializeToString()))))
    runner = Runner(compiled.data, "tflite", compiled.inputs, compiled.outputs)
    for feeds in runs:
        results = runner.run(feeds)
        for name, want in source_results(source, feeds).items():
            assert results[name].dtype == want.dtype
            np.testing.assert_allclose(results[name], want, rtol=1e-6, atol=1e-6)


def sizes(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


DECLARED = {
    "reshape": ("(float[3,4] x, int64[2] s) => (float[2,6] y) { y = Reshape(x, s) }", sizes(2, 6), sizes(4, 3), sizes(0, -1)),
    "reshape, read on": (
        "(float[3,4] x, int64[2] s) => (int64[2] y) { a = Reshape(x, s) b = Relu(a) y = Shape(b) }",
        sizes(2, 6),
        sizes(12, 1),
    ),
    "expand": ("(float[3,1] x, int64[2] s) => (float[3,4] y) { y = Expand(x, s) }", sizes(3, 4), sizes(1, 2), sizes(3, 1)),
    "expand by an axis": ("(float[3,1] x, int64[3] s) => (float[2,3,4] y) { y = Expand(x, s) }", sizes(2, 1, 4), sizes(1, 3, 1)),
    "expand by fewer sizes": ("(float[3,1] x, int64[1] s) => (float[3,4] y) { y = Expand(x, s) }", sizes(4), sizes(1)),
    "split": (
        "(float[3,4] x, int64[2] s) => (float[3,1] y, float[3,3] z) { y, z = Split<axis=1>(x, s) }",
        sizes(1, 3),
        sizes(2, 2),
    ),
    "unsqueeze": ("(float[3,4] x, int64[1] s) => (float[1,3,4] y) { y = Unsqueeze(x, s) }", sizes(0), sizes(1), sizes(-1)),
    "unsqueeze twice": (
        "(float[3,4] x, int64[2] s) => (float[1,3,4,1] y) { y = Unsqueeze(x, s) }",
        sizes(0, 3),
        sizes(-1, 1),
        sizes(2, 0),
    ),
    "squeeze": ("(float[1,3,4,1] x, int64[1] s) => (float[3,4,1] y) { y = Squeeze(x, s) }", sizes(0), sizes(3), sizes(-1)),
    "resize": (
        '(float[1,1,2,4] x, int64[4] s) => (float[1,1,1,2] y) { y = Resize<mode="nearest">(x, , , s) }',
        sizes(1, 1, 1, 2),
        sizes(1, 1, 5, 8),
        sizes(1, 1, 2, 4),
    ),
    "resize by scales": (
        '(float[1,1,2,4] x, float[4] s) => (float[1,1,1,2] y) { y = Resize<mode="nearest">(x, , s) }',
        np.array([1, 1, 0.5, 0.5], np.float32),
        np.array([1, 1, 2.5, 1], np.float32),
    ),
    "tile": ("(float[3,4] x, int64[2] s) => (float[3,8] y) { y = Tile(x, s) }", sizes(1, 2), sizes(3, 1)),
    "slice": ("(float[3,4] x, int64[1] s) => (float[2,4] y) { y = Slice(x, zero, s) }", sizes(2), sizes(1), sizes(0)),
    "sum": ("(float[3,4] x, int64[1] s) => (float[3] y) { y = ReduceSum<keepdims=0>(x, s) }", sizes(1), sizes(0)),
    "sum over no axes": (
        "(float[3,4] x, int64[0] s) => (float[3,4] y) { y = ReduceSum<noop_with_empty_axes=1>(x, s) }",
        sizes(),
    ),
    "topk": ("(float[3,4] x, int64[1] s) => (float[3,2] y, int64[3,2] i) { y, i = TopK(x, s) }", sizes(2), sizes(3)),
    "constant of shape": ("(int64[2] s) => (float[2,3] y) { y = ConstantOfShape(s) }", sizes(2, 3), sizes(3, 1), sizes(0, 2)),
}


@pytest.mark.parametrize("case", DECLARED)
def test_sizes_that_are_inputs_may_differ_from_the_declared_ones(case: str) -> None:
    text, *runs = DECLARED[case]
    given = re.search(r"float\[([\d,]+)\] x", text)
    x = np.resize(X, [int(d) for d in given[1].split(",")]) if given else X
    agrees(text, *({"s": s, "x": x} if " x" in text else {"s": s} for s in runs))


def test_choosing_rows_by_data() -> None:
    agrees(
        "(float[3,4] x, bool[3] c) => (float[2,4] y) { y = Compress<axis=0>(x, c) }",
        {"x": X, "c": np.array([True, True, False])},
        {"x": X, "c": np.array([False, True, False])},
    )


EMPTY = {
    "among others": "(float[3,4] x) => (float[3,4] y) { a = Slice(x, zero, zero) r = Relu(a) y = Concat<axis=0>(r, x) }",
    "and batches": "(float[n,4] x) => (float[n,4] y) { a = Slice(x, zero, zero, one) r = Relu(a) y = Concat<axis=1>(r, x) }",
    "given out": "(float[3,4] x) => (float[0,4] y) { a = Slice(x, zero, zero) y = Relu(a) }",
    "of any rows": "(float[n,m] x) => (float[0,m] y) { a = Slice(x, zero, zero) y = Relu(a) }",
    "of any rows, from 1": "(float[n,m] x) => (float[0,m] y) { a = Slice(x, one, zero) y = Relu(a) }",
    "reduced": "(float[3,4] x) => (float[1,4] y) { a = Slice(x, zero, zero) y = ReduceProd<keepdims=1>(a, zero) }",
    "where nothing is true": "(float[3,4] x) => (int64[2,n] y) { a = Slice(x, zero, zero) y = NonZero(a) }",
}


@pytest.mark.parametrize("case", EMPTY)
def test_values_without_elements(case: str) -> None:
    agrees(EMPTY[case], {"x": X})
