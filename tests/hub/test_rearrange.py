"""No-ops, chains of reshapes and transposes, padding, Einsum, broadcasting: fewer nodes, same results."""

import onnx_ir as ir
import pytest

from edgekit.hub.edit import Editor
from edgekit.hub.passes.finish import finish
from tests.hub.graphs import hub, operators, same, text_model

C = (
    "<int64[1] a0 = {0}, int64[1] a1 = {1}, int64[1] a2 = {2}, int64[2] flat = {2, -1}, int64[3] back = {2,3,4}, "
    "int64[3] same = {0,0,-1}, int64[6] nopad = {0,0,0,0,0,0}, int64[3] zeros = {0,0,0}, int64[3] ends = {2,3,9}, "
    "int64[1] first = {0}, int64[1] far = {9223372036854775807}, int64[3] ones = {1,1,1}, float zero = {0}, float one = {1}, "
    "float four = {4}, float[4] c4 = {2,2,2,2}, int64[3] big = {2,3,4}, float[1,1,4] v = {1,2,3,4}, float[3] fones = {1,1,1}>"
)

NO_OPS = {
    "identity": "a = Identity(x) y = Relu(a)",
    "cast": "a = Cast<to=1>(x) y = Relu(a)",
    "cast_there_and_back": "a = Cast<to=11>(x) b = Cast<to=1>(a) y = Relu(b)",
    "reshape": "a = Reshape(x, same) y = Relu(a)",
    "there_and_back": "a = Reshape(x, flat) b = Reshape(a, back) y = Relu(b)",
    "squeezes": "a = Unsqueeze(x, a0) b = Squeeze(a, a0) y = Relu(b)",
    "around_an_activation": "a = Unsqueeze(x, a2) b = Relu(a) y = Squeeze(b, a2)",
    "transposes": "a = Transpose<perm=[0,2,1]>(x) b = Transpose<perm=[0,2,1]>(a) y = Relu(b)",
    "slice": "a = Slice(x, zeros, ends) y = Relu(a)",
    "slice_to_the_end": "a = Slice(x, first, far, a1) y = Relu(a)",
    "pad": "a = Pad(x, nopad) y = Relu(a)",
    "tile": "a = Tile(x, ones) y = Relu(a)",
    "expand": "a = Expand(x, ones) y = Relu(a)",
    "concat": "a = Concat<axis=1>(x) y = Relu(a)",
    "resize": 'a = Resize<mode="linear">(x, , fones) y = Relu(a)',
    "add": "a = Add(x, zero) y = Relu(a)",
    "multiply": "a = Mul(one, x) b = Div(a, one) y = Relu(b)",
    "relu_of_sigmoid": "y0 = Relu(x) y = Abs(y0)",
}


@pytest.mark.parametrize("case", NO_OPS)
def test_no_ops_go(case: str) -> None:
    assert operators(same(f"g (float[2,3,4] x) => (y) {C} {{ {NO_OPS[case]} }}")) == {"Relu": 1}


def test_two_transposes_become_one() -> None:
    model = same(f"g (float[2,3,4] x) => (y) {C} {{ a = Transpose<perm=[1,0,2]>(x) y = Transpose<perm=[2,0,1]>(a) }}")
    assert operators(model) == {"Transpose": 1}


def test_a_transpose_of_ones_is_a_reshape() -> None:
    model = same(f"g (float[2,1,4] x) => (y) {C} {{ a = Transpose<perm=[0,2,1]>(x) y = Relu(a) }}")
    assert operators(model) == {"Reshape": 1, "Relu": 1}


@pytest.mark.parametrize("inputs", ["float[2,4,5,6] x", "float[b,4,s,6] x"])
def test_keys_transposed_through_three_dimensions(inputs: str) -> None:
    body = """<int64 i2 = {2}, int64[1] six = {6}, int64[1] four = {4}, int64[1] minus = {-1}, int64[1] a0 = {0}>
    { h = Shape(x) s0 = Gather<axis=0>(h, i2) s = Unsqueeze(s0, a0) b = Shape<start=0, end=1>(x)
      t = Concat<axis=0>(minus, s, six) m = Reshape(x, t) p = Transpose<perm=[0,2,1]>(m)
      u = Concat<axis=0>(b, four, six, s) y = Reshape(p, u) }"""
    assert operators(same(f"g ({inputs}) => (y) {body}")) == {"Transpose": 1}


def test_broadcasting_needs_no_expand() -> None:
    model = same(
        f"g (float[2,3,4] x, float[1,3,1] u) => (y) {C} {{ a = Expand(v, big) b = Add(x, a) e = Expand(u, big) y = Mul(b, e) }}"
    )
    assert operators(model) == {"Add": 1, "Mul": 1}
    assert [value.const_value.size for value in model.graph.initializers.values()] == [4]


def test_a_constant_of_equal_numbers_is_one_number() -> None:
    model = same(f"g (float[2,3,4] x) => (y) {C} {{ y = Mul(x, c4) }}")
    assert [value.const_value.size for value in model.graph.initializers.values()] == [1]


def test_division_by_a_power_of_two_is_exact() -> None:
    assert operators(same(f"g (float[2,3,4] x) => (y) {C} {{ y = Div(x, four) }}", tolerance=0)) == {"Mul": 1}


@pytest.mark.parametrize("pool", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pools_are_reductions(pool: str) -> None:
    (name,) = operators(same(f"g (float[1,2,3,4] x) => (y) {{ y = {pool}(x) }}"))
    assert name == ("ReduceMean" if pool == "GlobalAveragePool" else "ReduceMax")


def test_equal_computations_and_constants_are_shared() -> None:
    body = "<float[2] a = {1,2}, float[2] b = {1,2}> { c = Mul(x, a) d = Mul(x, b) e = Exp(c) f = Tanh(d) y = Sub(e, f) }"
    model = same(f"g (float[2,2] x) => (y) {body}")
    assert operators(model) == {"Mul": 1, "Exp": 1, "Tanh": 1, "Sub": 1}
    assert len(model.graph.initializers) == 1


def test_a_node_that_a_branch_reads_too_early_is_moved_before_it() -> None:
    branches = ", ".join(
        f"{name}_branch = {name} () => (float[2] {name}_y) {{ {name}_y = {op}(a) }}"
        for name, op in (("then", "Neg"), ("else", "Abs"))
    )
    model = ir.from_proto(text_model(f"g (float[2] x, bool c) => (float[2] y) {{ a = Exp(x) y = If <{branches}> (c) }}"))
    exp = model.graph[0]
    model.graph.insert_after(model.graph[1], exp)
    assert [node.op_type for node in model.graph] == ["If", "Exp"]
    finish(Editor(model))
    assert [node.op_type for node in model.graph] == ["Exp", "If"]


def test_constants_that_only_begin_alike_stay_apart() -> None:
    numbers = ",".join(str(i % 7 + 2) for i in range(99))
    constants = ", ".join(f"float[100] {name} = {{{numbers},{last}}}" for name, last in (("a", 3), ("b", 4), ("c", 3)))
    body = f"<{constants}> {{ d = Max(x, a) e = Sin(d) f = Max(e, b) g = Tanh(f) h = Max(x, c) y = Sub(g, h) }}"
    model = same(f"g (float[2,100] x) => (y) {body}")
    assert operators(model) == {"Max": 2, "Sin": 1, "Tanh": 1, "Sub": 1}  # of x and a, which is that of x and c
    assert len(model.graph.initializers) == 2


W = (
    "<float[2,2,3,3] w = {" + ",".join(str(i % 5) for i in range(36)) + "}, int64[8] p = {0,0,1,0,0,0,1,2}, "
    "int64[8] q = {0,0,1,1,0,0,1,1}, int64[8] cut = {0,0,-1,0,0,0,0,0}, float low = {-3.4028235e38}, float one = {1}, "
    "int64[4] only = {1,0,1,2}, int64[2] hw = {2,3}>"
)
PADDED = {
    "conv": ("a = Pad(x, p) y = Conv(a, w)", {"Conv": 1}),
    "conv_axes": ("a = Pad(x, only, , hw) y = Conv<strides=[2,2], pads=[1,1,1,1]>(a, w)", {"Conv": 1}),
    "average": ("a = Pad(x, q) y = AveragePool<kernel_shape=[3,3], strides=[2,2]>(a)", {"AveragePool": 1}),
    "average_that_does_not_count": (
        "a = Pad(x, q) y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)",
        {"Pad": 1, "AveragePool": 1},
    ),
    "maximum_of_lowest": ("a = Pad(x, q, low) y = MaxPool<kernel_shape=[3,3], strides=[2,2]>(a)", {"MaxPool": 1}),
    "maximum_after_relu": ("r = Relu(x) a = Pad(r, q) y = MaxPool<kernel_shape=[3,3]>(a)", {"Relu": 1, "MaxPool": 1}),
    "maximum_of_any": ("a = Pad(x, q) y = MaxPool<kernel_shape=[3,3]>(a)", {"Pad": 1, "MaxPool": 1}),
    "of_ones": ("a = Pad(x, p, one) y = Conv(a, w)", {"Pad": 1, "Conv": 1}),
    "of_edges": ('a = Pad<mode="edge">(x, p) y = Conv(a, w)', {"Pad": 1, "Conv": 1}),
    "that_cuts": ("a = Pad(x, cut) y = Conv(a, w)", {"Pad": 1, "Conv": 1}),
}


@pytest.mark.parametrize("case", PADDED)
def test_padding(case: str) -> None:
    body, expected = PADDED[case]
    assert operators(same(f"g (float[1,2,7,7] x) => (y) {W} {{ {body} }}")) == expected


def test_unit_axes_move_over_padding() -> None:
    # A Keras Conv1D with causal padding: the Pad is not of the rank that the Conv has.
    body = "<float[2,2,1,3] k = {1,2,3,4,5,6,7,8,9,1,2,3}, int64[6] p = {0,0,2,0,0,0}, int64[1] a = {2}> \
    { b = Pad(x, p) c = Unsqueeze(b, a) d = Conv(c, k) e = Squeeze(d, a) \
    f = Pad(e, p) h = Unsqueeze(f, a) i = Conv(h, k) y = Squeeze(i, a) }"
    assert operators(same(f"g (float[1,2,8] x) => (y) {body}")) == {"Conv": 2, "Reshape": 1, "Squeeze": 1}


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(
    "operator", ["Conv<{}>(x, w)", "MaxPool<kernel_shape=[3,2], {}>(x)", "AveragePool<kernel_shape=[3,2], {}>(x)"]
)
def test_automatic_padding_is_spelled_out(operator: str, auto: str) -> None:
    node = operator.format(f'auto_pad="{auto}", strides=[2,3]')
    model = same(f"g (float[1,2,8,7] x) => (y) {W} {{ y = {node} }}")
    assert "auto_pad" not in model.graph[0].attributes


EINSUM = {
    "ij->ji": ("float[2,3] a", {"Transpose": 1}),
    "ijk->k": ("float[2,3,4] a", {"ReduceSum": 1}),
    "ij,jk->ik": ("float[2,3] a, float[3,4] b", {"MatMul": 1}),
    "bhid,bhjd->bhij": ("float[2,3,4,5] a, float[2,3,6,5] b", {"Transpose": 1, "MatMul": 1}),
    "bij,bjk->kib": ("float[2,3,4] a, float[2,4,5] b", {"MatMul": 1, "Transpose": 1}),
    "abc,cd->abd": ("float[2,3,4] a, float[4,5] b", {"Reshape": 2, "MatMul": 1}),
    "i,j->ij": ("float[3] a, float[4] b", {"Reshape": 2, "MatMul": 1}),
    "ij,ij->i": ("float[3,4] a, float[3,4] b", {"Reshape": 3, "MatMul": 1}),
    "ijk,jl->il": ("float[2,3,4] a, float[3,5] b", {"ReduceSum": 1, "MatMul": 1}),
    "ij,jk": ("float[2,3] a, float[3,4] b", {"MatMul": 1}),
    "ij,jk,kl->il": ("float[2,3] a, float[3,4] b, float[4,5] c", {"MatMul": 2}),
    "...ij,...jk->...ik": ("float[2,6,3,4] a, float[2,6,4,5] b", {"MatMul": 1}),
    "...ij,jk": ("float[2,6,3,4] a, float[4,5] b", {"Reshape": 2, "MatMul": 1}),
    "b...->...b": ("float[2,3,4] a", {"Transpose": 1}),
    "...hd,...hd->...h": ("float[1,4,5] a, float[6,4,5] b", {"Reshape": 2, "MatMul": 1, "Transpose": 2}),
    "ii->i": ("float[3,3] a", {"Reshape": 1, "Slice": 1}),
    "bii->bi": ("float[2,3,3] a", {"Reshape": 1, "Slice": 1}),
    "iji,j->i": ("float[3,2,3] a, float[2] b", {"Transpose": 1, "Reshape": 3, "Slice": 1, "MatMul": 1}),
    "ii": ("float[3,3] a", {"Reshape": 1, "Slice": 1, "ReduceSum": 1}),
    "iii->i": ("float[3,3,3] a", {"Transpose": 1, "Reshape": 2, "Slice": 2}),
}


@pytest.mark.parametrize("equation", EINSUM)
def test_einsum(equation: str) -> None:
    inputs, expected = EINSUM[equation]
    names = ", ".join(name for name in "abc" if f" {name}" in inputs)
    assert operators(same(f'g ({inputs}) => (y) {{ y = Einsum<equation="{equation}">({names}) }}')) == expected


def test_an_einsum_with_a_diagonal_of_unknown_size_stays() -> None:
    assert operators(hub('g (float[n,n] a) => (float[n] y) { y = Einsum<equation="ii->i">(a) }')) == {"Einsum": 1}


@pytest.mark.parametrize(("pool", "reduction"), [("AveragePool", "ReduceMean"), ("MaxPool", "ReduceMax")])
def test_a_pool_of_the_whole_map_is_a_reduction(pool: str, reduction: str) -> None:
    assert operators(same(f"g (float[2,3,4,5] x) => (y) {{ y = {pool}<kernel_shape=[4,5]>(x) }}")) == {reduction: 1}
    assert operators(same(f"g (float[2,3,4,5] x) => (y) {{ y = {pool}<kernel_shape=[4,4]>(x) }}")) == {pool: 1}
