"""Constants that repeat themselves: the file holds what is in them once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgekit import litert

from .running import artifact_results, model, operators, relative_error, source_results
from .test_graph_passes import compiled_as_it_is, weights

PLACES = np.arange(49)
RELATIVE = (PLACES[:, None] // 7 - PLACES // 7 + 6) * 13 + PLACES[:, None] % 7 - PLACES % 7 + 6


def biased(*biases: np.ndarray) -> onnx.ModelProto:
    """Scores to which a bias is added in each layer."""
    layers = [f"s{i} = Add(p{i}, b{i}) p{i + 1} = Softmax<axis=-1>(s{i})" for i in range(len(biases))]
    body = f"p0 = Identity(x) {' '.join(layers)} y = Identity(p{len(biases)})"
    return model(
        f"net (float[1,4,49,49] x) => (float[1,4,49,49] y) {{ {body} }}", **{f"b{i}": bias for i, bias in enumerate(biases)}
    )


def check(proto: onnx.ModelProto) -> litert.Compiled:
    feeds = {"x": weights(1, 4, 49, 49)}
    compiled = compiled_as_it_is(proto)
    assert relative_error(source_results(proto, feeds)["y"], artifact_results(compiled, feeds)["y"]) < 1e-6
    return compiled


def test_relative_positions_are_looked_up() -> None:
    """A table of 169 entries for each of 4 heads, spread over 49 x 49 pairs; two layers share where they look."""
    proto = biased(weights(4, 169)[None][..., RELATIVE], weights(4, 169)[None][..., RELATIVE])
    compiled = check(proto)
    assert operators(compiled.data) == {"GATHER": 2, "ADD": 2, "SOFTMAX": 2}
    assert len(compiled.data) < 4 * (2 * 4 * 169 + 49 * 49) + 4096


def test_equal_constants_are_looked_up_once() -> None:
    bias = weights(4, 169)[None][..., RELATIVE]
    assert operators(check(biased(bias, bias.copy(), bias.copy())).data) == {"GATHER": 1, "ADD": 3, "SOFTMAX": 3}


def test_windows_that_are_masked_alike_are_looked_up() -> None:
    """The first axis repeats: 3 masks for 36 windows."""
    masks = weights(3, 1, 64, 64)[np.arange(36) % 3]
    proto = model("net (float[36,2,64,64] x) => (float[36,2,64,64] y) { s = Add(x, m) y = Softmax<axis=-1>(s) }", m=masks)
    feeds = {"x": weights(36, 2, 64, 64)}
    compiled = compiled_as_it_is(proto)
    assert relative_error(source_results(proto, feeds)["y"], artifact_results(compiled, feeds)["y"]) < 1e-6
    assert operators(compiled.data)["GATHER"] == 1
    assert len(compiled.data) < masks.nbytes // 10


def test_what_does_not_repeat_stays() -> None:
    compiled = check(biased(weights(1, 4, 49, 49)))
    assert operators(compiled.data) == {"ADD": 1, "SOFTMAX": 1}


@pytest.mark.parametrize("size", [1 << 10, 1 << 12])
def test_little_repetition_is_not_worth_an_operator(size: int) -> None:
    """Beside weights of which it is less than a hundredth the file stays as it is: looking up takes time at each run."""
    proto = model(
        f"""net (float[1,4,49,49] x, float[1,{size}] v) => (float[1,4,49,49] y, float[1,{size}] w) {{
            s = Add(x, b) y = Softmax<axis=-1>(s) w = MatMul(v, m)
        }}""",
        b=weights(4, 169)[None][..., RELATIVE], m=weights(size, size),
    )  # fmt: skip
    is_much = size * size // 100 < 4 * 49 * 49
    assert operators(compiled_as_it_is(proto).data)["GATHER"] == is_much
