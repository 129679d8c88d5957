"""Open sizes of inputs that products and convolutions leave no choice for."""

import pytest

from tests.hub.graphs import hub, same


def ones(*shape: int) -> str:
    count = 1
    for size in shape:
        count *= size
    return "{" + ",".join("1" * count) + "}"


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("g (float[1,k] x) => (float[1,1,1,2] y) <int64[4] s = {1, 1, 1, 2}> { y = Reshape(x, s) }", "[1,2]"),
        (f"g (float[n,k] x) => (float[n,4] y) <float[2,4] w = {ones(2, 4)}> {{ y = MatMul(x, w) }}", "[n,2]"),
        ("g (float[n,k] x, float[2,4] w) => (float[n,4] y) { y = MatMul(x, w) }", "[n,2]"),
        ("g (float[k,k] x, float[2,4] w) => (float[m,4] y) { y = MatMul(x, w) }", "[2,2]"),
        (f"g (float[n,k] x) => (float[n,4] y) <float[4,2] w = {ones(4, 2)}> {{ y = Gemm<transB=1>(x, w) }}", "[n,2]"),
        (f"g (float[k,3] x) => (float[3,4] y) <float[2,4] w = {ones(2, 4)}> {{ y = Gemm<transA=1>(x, w) }}", "[2,3]"),
        (f"g (float[1,c,h,w] x) => (y) <float[4,1,3,3] k = {ones(4, 1, 3, 3)}> {{ y = Conv<group=2>(x, k) }}", "[1,2,h,w]"),
        (f"g (float[1,c,5,5] x) => (y) <float[2,3,1,1] k = {ones(2, 3, 1, 1)}> {{ y = ConvTranspose(x, k) }}", "[1,2,5,5]"),
        (
            f"g (float[s,1,k] x) => (y) <float[1,4,2] w = {ones(1, 4, 2)}, float[1,4,4] r = {ones(1, 4, 4)}>"
            " { y = RNN<hidden_size=4>(x, w, r) }",
            "[s,1,2]",
        ),
        (f"g (float[n,k] x) => (y) <float[2,4] w = {ones(2, 4)}> {{ r = Relu(x) t = Add(r, x) y = MatMul(t, w) }}", "[n,2]"),
    ],
    ids=[
        "reshape",
        "matmul",
        "fed weights",
        "square",
        "gemm",
        "gemm transposed",
        "conv",
        "convtranspose",
        "rnn",
        "behind others",
    ],
)
def test_a_size_that_weights_decide_is_a_number(text: str, shape: str) -> None:
    model = hub(text)
    assert str(model.graph.inputs[0].shape) == shape
    assert model.graph.outputs[0].shape is not None


def test_it_is_one_everywhere() -> None:
    model = hub(
        f"g (float[n,k] x, float[5,k] z) => (float[m,k] y, float[n,4] p) <float[2,4] w = {ones(2, 4)}>"
        " { y = Concat<axis=0>(x, z) p = MatMul(x, w) }"
    )
    assert [str(value.shape) for value in (*model.graph.inputs, *model.graph.outputs)] == ["[n,2]", "[5,2]", "[n + 5,2]", "[n,4]"]


def test_what_nothing_decides_stays_open() -> None:
    model = same("g (float[2,k] x, float[k,4] w) => (float[2,4] y) { y = MatMul(x, w) }")
    assert [str(value.shape) for value in model.graph.inputs] == ["[2,k]", "[k,4]"]
