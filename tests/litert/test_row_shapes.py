"""Operators on rows share a shape: reshapes stay only where others need another one."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.litert.graph import Graph, Operator, Tensor
from edgekit.litert.row_shapes import agree_on_shapes

from .running import artifact_results, model, operators, relative_error, source_results
from .test_graph_passes import check, compiled_as_it_is, weights


def test_tokens_between_maps_are_held_as_maps() -> None:
    """A block of a vision transformer between two convolutions: norm, dense layers and residual, written for (N, H·W, C)."""
    proto = model(
        """net (float[1,8,4,6] x) => (float[1,8,4,6] y) {
            a = Conv(x, w0) r = Reshape(a, merged) t = Transpose<perm=[0,2,1]>(r)
            n = LayerNormalization(t, scale, bias) d = MatMul(n, w1) g = Gelu(d) e = MatMul(g, w2) s = Add(t, e)
            u = Transpose<perm=[0,2,1]>(s) m = Reshape(u, map) y = Conv(m, w3)
        }""",
        w0=weights(8, 8, 1, 1), merged=np.array([1, 8, 24]), scale=weights(8), bias=weights(8), w1=weights(8, 16),
        w2=weights(16, 8), map=np.array([1, 8, 4, 6]), w3=weights(8, 8, 1, 1),
    )  # fmt: skip
    norm = {"MEAN": 2, "SUB": 1, "MUL": 2, "RSQRT": 1, "ADD": 2}
    check(proto, {"x": weights(1, 8, 4, 6)}, {"CONV_2D": 2, "FULLY_CONNECTED": 2, "GELU": 1, **norm}, 1e-5)


def test_a_mask_per_window_is_added_in_place() -> None:
    """Swin: (windows, heads, N, N) is taken apart into images and windows for the mask alone. The rest can do."""
    proto = model(
        """net (float[6,2,5,8] q, float[6,2,8,5] k, float[6,2,5,4] v) => (float[6,2,5,4] y) {
            s = MatMul(q, k) r = Reshape(s, apart) m = Add(r, mask) t = Reshape(m, together) a = Softmax<axis=-1>(t)
            y = MatMul(a, v)
        }""",
        apart=np.array([1, 6, 2, 5, 5]), together=np.array([6, 2, 5, 5]), mask=weights(1, 6, 1, 5, 5),
    )  # fmt: skip
    feeds = {"q": weights(6, 2, 5, 8), "k": weights(6, 2, 8, 5), "v": weights(6, 2, 5, 4)}
    check(proto, feeds, {"BATCH_MATMUL": 2, "ADD": 1, "SOFTMAX": 1})


def test_a_constant_that_broadcasts_across_the_rows_keeps_their_shape() -> None:
    """One number per column of a (4, 6) map, for tokens that elsewhere are (24,): it cannot be put beside those."""
    proto = model(
        """net (float[1,24,8] x) => (float[1,24,8] y) {
            r = Reshape(x, map) a = Add(r, c) t = Reshape(a, tokens) g = Tanh(t) y = MatMul(g, w)
        }""",
        map=np.array([1, 4, 6, 8]), tokens=np.array([1, 24, 8]), c=weights(6, 1), w=weights(8, 8),
    )  # fmt: skip
    check(proto, {"x": weights(1, 24, 8)}, {"RESHAPE": 2, "ADD": 1, "TANH": 1, "FULLY_CONNECTED": 1})


def test_results_of_the_model_keep_their_shape_and_name() -> None:
    proto = model(
        """net (float[1,24,8] x) => (float[24,8] y, float[1,4,6,8] z) {
            r = Reshape(x, map) z = Tanh(r) s = Reshape(z, rows) e = Exp(s) y = MatMul(e, w)
        }""",
        map=np.array([1, 4, 6, 8]), rows=np.array([24, 8]), w=weights(8, 8) / 8,
    )  # fmt: skip
    feeds = {"x": weights(1, 24, 8)}
    compiled = compiled_as_it_is(proto)
    made = artifact_results(compiled, feeds)
    for name, array in source_results(proto, feeds).items():
        assert made[name].shape == array.shape
        assert relative_error(array, made[name]) < 2e-6
    assert operators(compiled.data)["RESHAPE"] == 2


SHAPES = ([2, 3, 4, 6], [6, 4, 6], [24, 6], [1, 24, 6], [2, 12, 6])


@pytest.mark.parametrize("seed", range(120))
def test_random_chains_compute_the_same(seed: int) -> None:
    """Elementwise operators, norms, dense layers and sums of earlier values in random shapes, some of them given out."""
    random = np.random.default_rng(seed)
    made = [("x", SHAPES[int(random.integers(len(SHAPES)))])]
    first, lines, outputs, constants = made[0][1], [], [], {"w": weights(6, 6) / 6}
    for i in range(12):
        source, shape = made[int(random.integers(max(0, len(made) - 4), len(made)))]
        name = f"v{i}"
        match random.choice(["reshape", "unary", "dense", "row", "full", "sum", "softmax", "transpose"]):
            case "reshape":
                shape = SHAPES[int(random.integers(len(SHAPES)))]
                constants[f"s{i}"] = np.array(shape)
                lines.append(f"{name} = Reshape({source}, s{i})")
            case "unary":
                lines.append(f"{name} = Tanh({source})")
            case "dense":
                lines.append(f"{name} = MatMul({source}, w)")
            case "row":
                constants[f"c{i}"] = weights(6)
                lines.append(f"{name} = Mul({source}, c{i})")
            case "full":
                constants[f"c{i}"] = weights(*shape[1:])
                lines.append(f"{name} = Add({source}, c{i})")
            case "softmax":
                lines.append(f"{name} = Softmax<axis=-1>({source})")
            case "sum":
                other = next((n for n, s in made if s == shape), source)
                lines.append(f"{name} = Add({source}, {other})")
            case _:
                lines.append(f"{name}t = Transpose<perm={[*range(1, len(shape) - 1), 0, len(shape) - 1]}>({source})")
                constants[f"s{i}"] = np.array(shape)
                lines.append(f"{name} = Reshape({name}t, s{i})")
        made.append((name, shape))
        if random.random() < 0.2:
            outputs.append((name, shape))
    outputs = [*outputs, made[-1]] if made[-1] not in outputs else outputs
    results = ", ".join(f"float{shape} {name}".replace(" ", "", len(shape) - 1) for name, shape in outputs)
    proto = model(f"net (float{first} x) => ({results}) {{ {' '.join(lines)} }}".replace(", ", ","), **constants)
    feeds = {"x": weights(*first)}
    made_results = artifact_results(compiled_as_it_is(proto), feeds)
    for name, array in source_results(proto, feeds).items():
        assert made_results[name].shape == array.shape
        assert relative_error(array, made_results[name]) < 1e-5


def test_nothing_changes_where_nothing_is_gained() -> None:
    """One reshape between two operators whose other sides are fixed in different shapes."""

    def tensor(name: str, *shape: int) -> Tensor:
        return Tensor(name, shape, np.dtype(np.float32))

    x, a, b, y = tensor("x", 1, 24, 8), tensor("a", 1, 24, 8), tensor("b", 1, 4, 6, 8), tensor("y", 1, 4, 6, 8)
    target = Tensor("shape", (4,), np.dtype(np.int32), np.array([1, 4, 6, 8], np.int32))
    operations = [Operator("TANH", [x], [a]), Operator("RESHAPE", [a, target], [b]), Operator("EXP", [b], [y])]
    graph = Graph("net", [x], [y], list(operations))
    assert not agree_on_shapes(graph)
    assert graph.operators == operations
