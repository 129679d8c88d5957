"""Rows gathered element by element."""

import numpy as np
import pytest

from tests.hub.graphs import operators, same

X = np.arange(24, dtype=np.float32).reshape(1, 6, 4)


@pytest.mark.parametrize("repeat", ["r = Tile(u, times)", "r = Expand(u, wide)"])
def test_the_best_proposals_are_rows(repeat: str) -> None:
    after = same(
        "g (float[1,6,4] x, int64[1,3] i) => (y) <int64[1] last = {-1}, int64[3] times = {1,1,4}, int64[3] wide = {1,3,4}> "
        f"{{ u = Unsqueeze(i, last) {repeat} y = GatherElements<axis=1>(x, r) }}",
        feeds={"x": X, "i": np.array([[5, 0, -2]])},
    )
    assert operators(after) == {"Reshape": 1, "Gather": 1}


def test_indices_of_several_batches_stay_elements() -> None:
    after = same(
        "g (float[2,6,4] x, int64[2,3,1] i) => (y) <int64[3] times = {1,1,4}> "
        "{ r = Tile(i, times) y = GatherElements<axis=1>(x, r) }",
        feeds={"x": np.concatenate([X, X + 24]), "i": np.array([[[5], [0], [2]], [[1], [1], [3]]])},
    )
    assert operators(after) == {"Tile": 1, "GatherElements": 1}


def test_a_part_of_each_row_stays_elements() -> None:
    after = same(
        "g (float[1,6,4] x, int64[1,3,1] i) => (y) <int64[3] times = {1,1,2}> "
        "{ r = Tile(i, times) y = GatherElements<axis=1>(x, r) }",
        feeds={"x": X, "i": np.array([[[5], [0], [2]]])},
    )
    assert operators(after) == {"Tile": 1, "GatherElements": 1}
