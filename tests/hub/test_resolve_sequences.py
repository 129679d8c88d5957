"""Sequences whose elements are known are gone after preparation, with the same results; others stay."""

from __future__ import annotations

import pytest

from .graphs import hub, operators, same

KNOWN = {
    "the last of a split": (
        "g (float[5,3] x) => (y) <int64 n = {2}, int64 i = {-1}> { s = SplitToSequence(x, n) y = SequenceAt(s, i) }",
        {"Split": 1},
    ),
    "a split by sizes": (
        "g (float[5,3] x) => (y) <int64[2] n = {1,4}, int64 i = {1}> { s = SplitToSequence(x, n) y = SequenceAt(s, i) }",
        {"Split": 1},
    ),
    "a split without the axis": (
        "g (float[3,2] x) => (y, n) <int64 i = {1}>"
        " { s = SplitToSequence<axis=1, keepdims=0>(x) y = SequenceAt(s, i) n = SequenceLength(s) }",
        {"Split": 1, "Squeeze": 1, "Identity": 1},
    ),
    "inserted before the last": (
        "g (float[2] x, float[2] z) => (y) <int64 i = {-1}> { s = SequenceConstruct(x, x) t = SequenceInsert(s, z, i)"
        " y = ConcatFromSequence<axis=0>(t) }",
        {"Concat": 1},
    ),
    "appended to nothing, and erased": (
        "g (float[2] x, float[2] z) => (y) <int64 i = {0}> { e = SequenceEmpty() s = SequenceInsert(e, x)"
        " t = SequenceInsert(s, z) u = SequenceErase(t, i) y = ConcatFromSequence<axis=0, new_axis=1>(u) }",
        {"Unsqueeze": 1},
    ),
    "stacked": (
        "g (float[2] x, float[2] z) => (y) { s = SequenceConstruct(x, z) y = ConcatFromSequence<axis=-1, new_axis=1>(s) }",
        {"Unsqueeze": 2, "Concat": 1},
    ),
    "optional": (
        "g (float[2] x) => (y) { o = Optional(x) h = OptionalHasElement(o) c = Cast<to=1>(h) v = OptionalGetElement(o)"
        " y = Add(v, c) }",
        {"Add": 1},
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_elements(name: str) -> None:
    text, expected = KNOWN[name]
    assert operators(same(text)) == expected


def test_a_computed_position_stays() -> None:
    left = operators(hub("g (float[4] x, int64 i) => (y) { s = SplitToSequence(x) y = SequenceAt(s, i) }"))
    assert left["SequenceAt"] == 1
