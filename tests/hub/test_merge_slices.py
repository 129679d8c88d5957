"""Slices of slices and of concatenations."""

from tests.hub.graphs import operators, same

ONE = "int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] end = {99}"


def test_patches_are_cut_in_one_step_each() -> None:
    """Swin takes every second row, and of these every second column; the rows are shared."""
    after = same(
        f"g (float[1,4,6,3] x) => (y) <{ONE}> "
        "{ a = Slice(x, zero, end, one, two) b = Slice(x, one, end, one, two) p = Slice(a, zero, end, two, two) "
        "q = Slice(a, one, end, two, two) r = Slice(b, zero, end, two, two) y = Concat<axis=3>(p, q, r) }"
    )
    assert operators(after) == {"Slice": 3, "Concat": 1}


def test_the_same_axis_twice() -> None:
    after = same(
        f"g (float[9,2] x) => (y) <{ONE}, int64[1] last = {{-1}}> {{ a = Slice(x, one, last, zero, two) y = Slice(a, one, end) }}"
    )
    assert operators(after) == {"Slice": 1}


def test_a_slice_that_something_else_reads_stays() -> None:
    after = same(f"g (float[9,2] x) => (a, y) <{ONE}> {{ a = Slice(x, one, end, zero) y = Slice(a, one, end, one) }}")
    assert operators(after) == {"Slice": 2}


def test_backwards_slices_stay() -> None:
    after = same(
        f"g (float[9,2] x) => (y) <{ONE}, int64[1] back = {{-1}}, int64[1] start = {{-99}}> "
        "{ a = Slice(x, back, start, zero, back) y = Slice(a, one, end, one) }"
    )
    assert operators(after) == {"Slice": 2}


def test_a_part_of_a_concatenation_is_that_part() -> None:
    after = same(
        "g (float[2,3] a, float[2,4] b) => (y, z) <int64[1] from = {3}, int64[1] to = {7}, int64[1] axis = {1}> "
        "{ c = Concat<axis=1>(a, b) s = Slice(c, from, to, axis) y = Relu(s) z = Tanh(b) }"
    )
    assert operators(after) == {"Relu": 1, "Tanh": 1}
