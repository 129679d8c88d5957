"""What torch exports attention with: two scales, copied keys, negated halves, folded rows."""

import pytest

from tests.hub.graphs import operators, same


def test_one_operand_is_scaled() -> None:
    """torch multiplies queries and keys by the fourth root of 1/d each."""
    after = same(
        "g (float[1,2,3,4] q, float[1,2,5,4] k) => (y) <float c = {0.5}> "
        "{ a = Mul(q, c) t = Transpose<perm=[0,1,3,2]>(k) b = Mul(t, c) y = MatMul(a, b) }"
    )
    assert operators(after) == {"Mul": 1, "Transpose": 1, "MatMul": 1}
    assert after.graph.node("y").inputs[0].producer().op_type == "Mul"  # the queries


def test_scaled_keys_that_are_an_output_stay() -> None:
    after = same(
        "g (float[1,3,4] q, float[1,4,5] k) => (b, y) <float c = {0.5}> { a = Mul(q, c) b = Mul(k, c) y = MatMul(a, b) }"
    )
    assert operators(after)["Mul"] == 2


REPEATED = "u = Unsqueeze(k, two) e = Expand(u, wide) r = Reshape(e, flat)"
SHAPES = "int64[1] two = {2}, int64[5] wide = {1,2,3,5,4}, int64[4] flat = {1,6,5,4}"


def test_keys_that_heads_share_are_not_copied() -> None:
    after = same(
        f"g (float[1,6,7,4] q, float[1,2,5,4] k) => (y) <{SHAPES}> "
        f"{{ {REPEATED} t = Transpose<perm=[0,1,3,2]>(r) y = MatMul(q, t) }}"
    )
    assert operators(after) == {"Reshape": 2, "Transpose": 1, "MatMul": 1}


def test_values_that_heads_share_are_not_copied() -> None:
    after = same(f"g (float[1,6,7,5] p, float[1,2,5,4] k) => (y) <{SHAPES}> {{ {REPEATED} y = MatMul(p, r) }}")
    assert operators(after) == {"Reshape": 2, "MatMul": 1}


def test_heads_repeated_in_another_order_stay_copied() -> None:
    """Expanded in front of the groups, head 2 takes the keys of group 0 again."""
    after = same(
        "g (float[1,6,7,4] q, float[1,2,4,5] k) => (y) "
        "<int64[1] one = {1}, int64[5] wide = {1,3,2,4,5}, int64[4] flat = {1,6,4,5}> "
        "{ u = Unsqueeze(k, one) e = Expand(u, wide) r = Reshape(e, flat) y = MatMul(q, r) }"
    )
    assert operators(after)["Expand"] == 1


def test_the_sign_of_a_rotated_half_goes_into_the_sines() -> None:
    after = same(
        "g (float[1,2,3] a, float[1,2,2] b) => (y) <float[2,5] sines = {1,2,3,4,5,6,7,8,9,10}> "
        "{ n = Neg(a) c = Concat<axis=-1>(n, b) y = Mul(c, sines) }"
    )
    assert operators(after) == {"Concat": 1, "Mul": 1}


def test_a_sign_beside_a_scalar_becomes_a_row() -> None:
    after = same("g (float[2,3] a, float[2,2] b) => (y) <float c = {3}> { n = Neg(b) j = Concat<axis=1>(a, n) y = Mul(j, c) }")
    assert operators(after) == {"Concat": 1, "Mul": 1}


def test_the_scale_of_rotated_queries_goes_into_sines_and_cosines() -> None:
    after = same(
        "g (float[2,4] a, float[2,4] b) => (y) <float[4] c = {1,2,3,4}, float[2,1] d = {5,6}, float s = {0.5}> "
        "{ m = Mul(a, c) n = Mul(d, b) t = Add(m, n) y = Mul(t, s) }"
    )
    assert operators(after) == {"Mul": 2, "Add": 1}


def test_the_scale_of_the_keys_is_not_left_behind() -> None:
    after = same(
        "g (float[1,3,4] a, float[1,3,4] b, float[1,4,5] k) => (y) "
        "<float[4] c = {1,2,3,4}, float[3,1] d = {5,6,7}, float s = {0.5}> "
        "{ m = Mul(a, c) n = Mul(d, b) t = Add(m, n) q = Mul(t, s) l = Mul(k, s) y = MatMul(q, l) }"
    )
    assert operators(after) == {"Mul": 2, "Add": 1, "MatMul": 1}


@pytest.mark.parametrize("scaling", ["y = Mul(c, p)", "y = Div(p, c)"])
def test_scores_are_scaled_before_they_are_many(scaling: str) -> None:
    after = same(f"g (float[1,6,4] q, float[1,4,6] k) => (y) <float c = {{0.3}}> {{ p = MatMul(q, k) {scaling} }}")
    assert operators(after) == {"Mul": 1, "MatMul": 1}
    assert after.graph.outputs[0].producer().op_type == "MatMul"


def test_scores_that_are_few_are_scaled_afterwards() -> None:
    after = same("g (float[1,2,9] q, float[1,9,2] k) => (y) <float c = {0.3}> { p = MatMul(q, k) y = Mul(p, c) }")
    assert after.graph.outputs[0].producer().op_type == "Mul"


MIX = "float[2,3] w = {1,2,3,4,5,6}, float[3] b = {1,2,3}"


@pytest.mark.parametrize("bias", ["a = Add(p, b)", "a = Identity(p)"])
def test_heads_are_mixed_where_they_are(bias: str) -> None:
    after = same(
        f"g (float[1,2,4,5] x) => (y) <{MIX}> {{ t = Transpose<perm=[0,2,3,1]>(x) p = MatMul(t, w) {bias} "
        "y = Transpose<perm=[0,3,1,2]>(a) }"
    )
    assert operators(after) == {"Reshape": 2, "MatMul": 1} | ({"Add": 1} if "Add" in bias else {})


def test_heads_that_are_mixed_into_another_place_are_transposed() -> None:
    after = same(
        f"g (float[1,2,4,5] x) => (y) <{MIX}> {{ t = Transpose<perm=[0,2,3,1]>(x) p = MatMul(t, w) a = Add(p, b) "
        "y = Transpose<perm=[0,3,2,1]>(a) }"
    )
    assert operators(after)["Transpose"] == 2


DENSE = "float[4,6] w = {1,2,3,4,5,6,6,5,4,3,2,1,1,0,1,0,1,0,2,2,2,3,3,3}, float[6] b = {1,2,3,4,5,6}"


def test_dense_layers_over_folded_rows() -> None:
    after = same(
        f"g (float[2,3,4] x) => (y) <int64[2] rows = {{6,4}}, int64[3] back = {{2,3,4}}, {DENSE}, "
        "float[4,6] v = {1,1,1,1,1,1,2,2,2,2,2,2,3,3,3,3,3,3,4,4,4,4,4,4}> "
        "{ r = Reshape(x, rows) p = Gemm(r, w, b) a = Tanh(p) q = Gemm<transB=1>(a, v) y = Reshape(q, back) }"
    )
    assert operators(after) == {"MatMul": 2, "Add": 1, "Tanh": 1}


def test_rows_that_are_split_otherwise_stay_folded() -> None:
    after = same(
        f"g (float[2,3,4] x) => (y) <int64[2] rows = {{6,4}}, int64[3] back = {{3,2,6}}, {DENSE}> "
        "{ r = Reshape(x, rows) p = Gemm(r, w, b) y = Reshape(p, back) }"
    )
    assert operators(after) == {"Reshape": 2, "Gemm": 1}


def test_a_mask_that_is_always_true_is_none() -> None:
    after = same("g (bool[2,3] m, float[2,3] x) => (y) <bool[1,3] all = {1,1,1}> { a = And(all, m) y = Where(a, x, x) }")
    assert "And" not in operators(after)
