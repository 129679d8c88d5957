"""If, Loop and Scan against onnxruntime, several runs in one interpreter, with XNNPACK and with the builtin kernels."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import CompileError

from .repeated import Arrays, compiled, worst_error
from .running import model

RNG = np.random.default_rng(0)
TOLERANCE = 1e-5


def noise(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def yes(value: bool) -> np.ndarray:
    return np.array(value)


def both_ways(name: str, feeds: Arrays) -> list[Arrays]:
    return [{**feeds, name: yes(True)}, {**feeds, name: yes(False)}]


# If


def test_a_branch_takes_what_it_needs_from_outside() -> None:
    source = model(
        """net (bool which, float[2,3] x) => (float[2,3] y) {
            doubled = Add(x, x)
            y = If(which) <
                then_branch = then () => (float[2,3] a) { a = Mul(doubled, weight) },
                else_branch = other () => (float[2,3] b) { c = Sub(x, weight)  b = Relu(c) }>
        }""",
        weight=noise(3),
    )
    assert worst_error(source, both_ways("which", {"x": noise(2, 3)})) < TOLERANCE


def test_a_branch_that_computes_nothing() -> None:
    """It returns an outer value, or a constant."""
    source = model(
        """net (bool which, float[3] x) => (float[3] y, float[3] z) {
            twice = Add(x, x)
            y, z = If(which) <
                then_branch = then () => (float[3] a, float[3] b) { a = Identity(twice)  b = Identity(twice) },
                else_branch = other () => (float[3] c, float[3] d) { c = Identity(three)  d = Identity(x) }>
        }""",
        three=np.full(3, 3, np.float32),
    )
    assert worst_error(source, both_ways("which", {"x": noise(3)})) < TOLERANCE


def test_a_convolution_in_a_branch() -> None:
    """The layouts outside and inside are independent; what passes between them has the order of axes that ONNX says."""
    source = model(
        """net (bool which, float[1,3,8,8] x) => (float[1,4,4,4] y) {
            a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1)
            b = If(which) <
                then_branch = then () => (float[1,4,8,8] c) { d = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(a, w2)  c = Relu(d) },
                else_branch = other () => (float[1,4,8,8] e) { e = Neg(a) }>
            y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(b)
        }""",
        w1=noise(4, 3, 3, 3),
        w2=noise(4, 4, 3, 3),
    )
    assert worst_error(source, both_ways("which", {"x": noise(1, 3, 8, 8)})) < TOLERANCE


def test_branches_within_branches() -> None:
    source = model(
        """net (bool p, bool q, float[4] x) => (float[4] y) {
            one = Exp(x)
            y = If(p) <
                then_branch = then () => (float[4] a) {
                    two = Neg(one)
                    a = If(q) <
                        then_branch = then2 () => (float[4] b) { b = Add(two, x) },
                        else_branch = other2 () => (float[4] c) { c = Mul(one, factor) }>
                },
                else_branch = other () => (float[4] d) { d = Identity(x) }>
        }""",
        factor=noise(4),
    )
    feeds = [{"p": yes(p), "q": yes(q), "x": noise(4)} for p in (True, False) for q in (True, False)]
    assert worst_error(source, feeds) < TOLERANCE


# Loop


def test_a_fixed_number_of_iterations() -> None:
    source = model(
        """net (float[3] x) => (float[3] last, float[5,3] all) {
            last, all = Loop(five, , x) <body = step (int64 i, bool go, float[3] v) => (bool on, float[3] next, float[3] seen) {
                n = Cast<to=1>(i)
                scaled = Mul(v, x)
                next = Add(scaled, n)
                seen = Neg(next)
                on = Identity(go)
            }>
        }""",
        five=np.array(5, np.int64),
    )
    assert worst_error(source, [{"x": noise(3)}, {"x": noise(3)}]) < TOLERANCE


def test_a_number_of_iterations_that_is_computed() -> None:
    source = model(
        """net (int64 n, float[3] x) => (float[3] y) {
            y = Loop(n, , x) <body = step (int64 i, bool go, float[3] v) => (bool still, float[3] next) {
                next = Mul(v, half)
                still = Identity(go)
            }>
        }""",
        half=np.float32(0.5),
    )
    assert worst_error(source, [{"n": np.array(n), "x": noise(3)} for n in (0, 1, 7)]) < TOLERANCE


@pytest.mark.parametrize("most", ["", "most"])
def test_until_a_condition_is_false(most: str) -> None:
    """With a bound that is never reached, as PyTorch writes one, and without."""
    source = model(
        f"""net (bool start, float[1] x) => (float[1] y) {{
            y = Loop({most}, start, x) <body = step (int64 i, bool go, float[1] v) => (bool still, float[1] next) {{
                next = Add(v, v)
                below = Less(next, limit)
                still = Squeeze(below)
            }}>
        }}""",
        **({"most": np.array(np.iinfo(np.int64).max)} if most else {}),
        limit=np.array([100], np.float32),
    )
    assert worst_error(source, both_ways("start", {"x": np.array([3], np.float32)})) < TOLERANCE


def test_carried_values_that_change_places() -> None:
    """Fibonacci: each value is the other's old one, which must not be overwritten before it is read."""
    source = model(
        """net (float[2] a, float[2] b) => (float[2] c, float[2] d) {
            c, d = Loop(six, , a, b) <body = step (int64 i, bool go, float[2] p, float[2] q) => (bool o, float[2] r, float[2] s) {
                s = Identity(p)
                r = Add(p, q)
                o = Identity(go)
            }>
        }""",
        six=np.array(6, np.int64),
    )
    swap = model(
        """net (float[2] a, float[2] b) => (float[2] c, float[2] d) {
            c, d = Loop(n, , a, b) <body = step (int64 i, bool g, float[2] p, float[2] q) => (bool o, float[2] r, float[2] s) {
                r = Identity(q)
                s = Identity(p)
                o = Identity(g)
            }>
        }""",
        n=np.array(3, np.int64),
    )
    for source_model in (source, swap):
        assert worst_error(source_model, [{"a": noise(2), "b": noise(2)}]) < TOLERANCE


def test_loops_and_branches_within_a_loop() -> None:
    source = model(
        """net (float[1,2,6,6] x, float[1,2,6,6] shift) => (float[1,2,6,6] y) {
            y = Loop(three, , x) <body = outer (int64 i, bool go, float[1,2,6,6] v) => (bool still, float[1,2,6,6] next) {
                a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(v, w)
                inner = Loop(two, , a) <body = inside (int64 j, bool go2, float[1,2,6,6] u) => (bool on, float[1,2,6,6] more) {
                    b = Add(u, shift)
                    more = Tanh(b)
                    on = Identity(go2)
                }>
                odd = Equal(i, one)
                next = If(odd) <
                    then_branch = then () => (float[1,2,6,6] t) { t = Neg(inner) },
                    else_branch = other () => (float[1,2,6,6] e) { e = Add(inner, v) }>
                still = Identity(go)
            }>
        }""",
        w=noise(2, 2, 3, 3),
        one=np.array(1),
        two=np.array(2),
        three=np.array(3),
    )
    feeds = [{"x": noise(1, 2, 6, 6), "shift": noise(1, 2, 6, 6)} for _ in range(2)]
    assert worst_error(source, feeds) < TOLERANCE


def test_a_scan_output_as_long_as_an_input_says() -> None:
    source = model(
        """net (int64 n, float[3] x) => (float[3] y, float[m,3] all) {
            y, all = Loop(n, , x) <body = step (int64 i, bool go, float[3] v) => (bool still, float[3] next, float[3] seen) {
                next = Add(v, v)
                seen = Neg(v)
                still = Identity(go)
            }>
        }"""
    )
    assert worst_error(source, [{"n": np.array(n), "x": noise(3)} for n in (3, 1, 5)]) < TOLERANCE


def test_rows_of_a_size_that_is_computed() -> None:
    source = model(
        """net (int64 n, int64[1] width, float[6] x) => (float[m,k] all) {
            y, all = Loop(n, , x) <body = step (int64 i, bool go, float[6] v) => (bool still, float[6] next, float[k] seen) {
                next = Add(v, v)
                seen = Slice(v, start, width)
                still = Identity(go)
            }>
        }""",
        start=np.array([0]),
    )
    feeds = [{"n": np.array(n), "width": np.array([width]), "x": noise(6)} for n, width in ((3, 2), (2, 6), (1, 1))]
    assert worst_error(source, feeds) < TOLERANCE


def test_a_scan_output_of_no_rows() -> None:
    source = model(
        """net (int64 n, float[3] x) => (float[3] total) {
            y, all = Loop(n, , x) <body = step (int64 i, bool go, float[3] v) => (bool still, float[3] next, float[3] seen) {
                next = Add(v, v)
                seen = Neg(v)
                still = Identity(go)
            }>
            total = ReduceSum<keepdims=0>(all, rows)
        }""",
        rows=np.array([0]),
    )
    assert worst_error(source, [{"n": np.array(n), "x": noise(3)} for n in (0, 2)]) < TOLERANCE


@pytest.mark.parametrize("most", ["", "seven", "no_limit"])
def test_a_scan_output_until_a_condition_is_false(most: str) -> None:
    source = model(
        f"""net (float[3] x) => (float[3] y, float[m,3] all, int64[m] at) {{
            y, all, at = Loop({most}, yes, x) <
                body = step (int64 i, bool go, float[3] v) => (bool still, float[3] next, float[3] seen, int64 place) {{
                    next = Add(v, v)
                    seen = Neg(v)
                    place = Identity(i)
                    largest = ReduceMax<keepdims=0>(next)
                    still = Less(largest, limit)
                }}>
        }}""",
        yes=yes(True),
        seven=np.array(7),
        no_limit=np.array(np.iinfo(np.int64).max),
        limit=np.array(20, np.float32),
    )
    feeds = [{"x": np.array([1, 2, start], np.float32)} for start in (3, 9.5, 30)]  # 30: one turn
    assert worst_error(source, feeds) < TOLERANCE


def test_a_carried_value_that_grows() -> None:
    source = model(
        """net (int64 n, float[1,2] x) => (float[m,2] y, float[2] total, int64[2] size) {
            y, total, size = Loop(n, , x, zeros, none) <
                body = step (int64 i, bool go, float[k,2] v, float[2] sum, int64[2] had)
                => (bool still, float[l,2] next, float[2] more, int64[2] has) {
                    twice = Mul(v, two)
                    next = Concat<axis=0>(twice, x)
                    first = ReduceSum<keepdims=0>(next, rows)
                    more = Add(sum, first)
                    has = Shape(next)
                    still = Identity(go)
                }>
        }""",
        zeros=np.zeros(2, np.float32),
        none=np.zeros(2, np.int64),
        two=np.array(2, np.float32),
        rows=np.array([0]),
    )
    assert worst_error(source, [{"n": np.array(n), "x": noise(1, 2)} for n in (4, 0, 1)]) < TOLERANCE


def test_a_carried_value_that_gets_an_axis_is_refused() -> None:
    source = model(
        """net (float[1] x) => (float[m,n] y) {
            y = Loop(four, , x) <body = step (int64 i, bool go, v) => (bool still, next) {
                next = Unsqueeze(v, first)
                still = Identity(go)
            }>
        }""",
        four=np.array(4, np.int64),
        first=np.array([0]),
    )
    with pytest.raises(CompileError):
        compiled(source)


def test_a_carried_value_that_begins_with_nothing_is_refused() -> None:
    source = model(
        """net (float[1,2] x) => (float[m,2] y) {
            y = Loop(four, , none) <body = step (int64 i, bool go, float[k,2] v) => (bool still, float[l,2] next) {
                next = Concat<axis=0>(v, x)
                still = Identity(go)
            }>
        }""",
        four=np.array(4, np.int64),
        none=np.zeros((0, 2), np.float32),
    )
    with pytest.raises(CompileError, match="begins without elements"):
        compiled(source)


def test_an_iteration_that_ends_in_constants() -> None:
    source = model(
        """net (bool start, float[3] x) => (float[3] y, float[3] z) {
            y, z = Loop(, start, x, x) <body = s (int64 i, bool g, float[3] v, float[3] u) => (bool n, float[3] p, float[3] q) {
                n = Identity(never)
                p = Identity(three)
                q = Add(u, v)
            }>
        }""",
        never=np.array(False),
        three=np.full(3, 3, np.float32),
    )
    assert worst_error(source, both_ways("start", {"x": noise(3)})) < TOLERANCE


# Scan


def test_scan_over_axes_and_directions() -> None:
    """Two inputs, the second along its axis 1 and backwards; two outputs, one of them backwards along axis 1."""
    source = model(
        """net (float[3] start, float[4,3] a, float[3,4] b) => (float[3] last, float[4,3] sums, float[3,4] products) {
            last, sums, products = Scan<num_scan_inputs=2, scan_input_axes=[0,1], scan_input_directions=[0,1],
                                        scan_output_axes=[0,1], scan_output_directions=[0,1],
                body = step (float[3] state, float[3] p, float[3] q) => (float[3] next, float[3] sum, float[3] product) {
                    sum = Add(p, q)
                    product = Mul(p, state)
                    next = Add(sum, weight)
                }>(start, a, b)
        }""",
        weight=noise(3),
    )
    feeds = [{"start": noise(3), "a": noise(4, 3), "b": noise(3, 4)} for _ in range(2)]
    assert worst_error(source, feeds) < TOLERANCE


def test_scan_of_scalars() -> None:
    source = model(
        """net (float start, float[6] x) => (float total, float[6] running) {
            total, running = Scan<num_scan_inputs=1,
                body = step (float state, float p) => (float next, float seen) { next = Add(state, p)  seen = Identity(next) }
            >(start, x)
        }"""
    )
    assert worst_error(source, [{"start": np.array(1, np.float32), "x": noise(6)}]) < TOLERANCE
