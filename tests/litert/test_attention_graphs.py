"""What becomes of attention: biases that nobody sees, and maps that are read as tokens of heads."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit import hub, litert

from .running import artifact_results, model, operators, relative_error, source_results
from .test_graph_passes import check, compiled_as_it_is, weights

pytestmark = pytest.mark.usefixtures("small_products")


def attention(scores: str, size: int = 32, **constants: np.ndarray) -> onnx.ModelProto:
    """A layer of two heads; `scores` makes `s` of `p`, the product of queries and keys."""
    return model(
        f"""net (float[1,6,16] x) => (float[1,6,16] y) {{
            q0 = MatMul(x, wq) q1 = Add(q0, bq) q2 = Reshape(q1, split) q = Transpose<perm=[0,2,1,3]>(q2)
            k0 = MatMul(x, wk) k1 = Add(k0, bk) k2 = Reshape(k1, split) k = Transpose<perm=[0,2,3,1]>(k2)
            v0 = MatMul(x, wv) v1 = Add(v0, bv) v2 = Reshape(v1, split) v = Transpose<perm=[0,2,1,3]>(v2)
            p = MatMul(q, k) {scores} a = Softmax<axis=-1>(s) o = MatMul(a, v)
            t = Transpose<perm=[0,2,1,3]>(o) f = Reshape(t, merged) g = MatMul(f, wo) y = Add(g, bo)
        }}""",
        **{f"w{i}": weights(16, 2 * size) / 4 for i in "qkv"}, **{f"b{i}": weights(2 * size) for i in "qkv"},
        wo=weights(2 * size, 16), bo=weights(16), split=np.array([1, 6, 2, size]), merged=np.array([1, 6, 2 * size]), **constants,
    )  # fmt: skip


LAYER = {"RESHAPE": 2, "BATCH_MATMUL": 5, "SOFTMAX": 1, "TRANSPOSE": 1, "FULLY_CONNECTED": 1}


def test_the_biases_of_keys_and_values_cost_nothing() -> None:
    """The scores of a query all grow by the same, and its weights add up to one."""
    proto = attention("m = Mul(p, c) s = Add(m, mask)", c=np.float32(0.3), mask=weights(2, 6, 6))
    check(proto, {"x": weights(1, 6, 16)}, {**LAYER, "ADD": 2})


def test_masked_scores_hide_the_bias_of_keys() -> None:
    allowed = np.tril(np.ones((6, 6), bool))
    proto = attention("s = Where(allowed, p, nothing)", allowed=allowed, nothing=np.float32(-np.inf))
    check(proto, {"x": weights(1, 6, 16)}, {**LAYER, "ADD": 1, "SELECT_V2": 1})


@pytest.mark.parametrize(
    ("scores", "constants"),
    [
        ("s = Tanh(p)", {}),
        ("s = Mul(p, c)", {"c": weights(6)}),
        ("s = Where(allowed, p, low)", {"allowed": np.tril(np.ones((6, 6), bool)), "low": np.float32(-1)}),
    ],
    ids=["capped", "scaled by key", "masked with a number that counts"],
)
def test_scores_that_are_not_only_shifted_keep_the_bias_of_keys(scores: str, constants: dict[str, np.ndarray]) -> None:
    proto = attention(scores, **constants)
    feeds = {"x": weights(1, 6, 16)}
    compiled = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)))
    assert operators(compiled.data)["ADD"] == 2
    assert relative_error(source_results(proto, feeds)["y"], artifact_results(compiled, feeds)["y"]) < 2e-6


def test_the_bias_of_values_stays_before_an_activation() -> None:
    """As in LeViT: what is added to the result goes through a HardSwish."""
    proto = model(
        """net (float[1,6,16] x, float[1,6,6] p) => (float[1,6,16] y) {
            m = MatMul(x, w) v = Add(m, b) a = Softmax<axis=-1>(p) o = MatMul(a, v) h = HardSwish(o) y = MatMul(h, u)
        }""",
        w=weights(16, 16), b=weights(16), u=weights(16, 16),
    )  # fmt: skip
    expected = {"FULLY_CONNECTED": 2, "SOFTMAX": 1, "BATCH_MATMUL": 1, "HARD_SWISH": 1}
    check(proto, {"x": weights(1, 6, 16), "p": weights(1, 6, 6)}, expected)


@pytest.mark.parametrize("size", [32, 8], ids=["wide heads", "narrow heads"])
@pytest.mark.parametrize("batch", [1, 2])
def test_attention_of_a_map_has_one_transpose_a_layer(size: int, batch: int) -> None:
    """1x1 convolutions make query, key and value. Wide heads are projected apart and in front, narrow ones together."""
    proto = model(
        f"""net (float[{batch},16,4,5] x) => (float[{batch},16,4,5] y) {{
            z = Conv(x, wz) c = Conv(z, w, b) r = Reshape(c, heads) q, k, v = Split<axis=2, num_outputs=3>(r)
            qt = Transpose<perm=[0,1,3,2]>(q) p = MatMul(qt, k) a = Softmax<axis=-1>(p) at = Transpose<perm=[0,1,3,2]>(a)
            o = MatMul(v, at) m = Reshape(o, image) y = Conv(m, wo, bo)
        }}""",
        wz=weights(16, 16, 1, 1) / 4, w=weights(6 * size, 16, 1, 1) / 4, b=weights(6 * size),
        heads=np.array([batch, 2, 3 * size, 20]), image=np.array([batch, 2 * size, 4, 5]),
        wo=weights(16, 2 * size, 1, 1), bo=weights(16),
    )  # fmt: skip
    wide = {"BATCH_MATMUL": 5, "ADD": 1, "RESHAPE": 2, "TRANSPOSE": 1}
    narrow = {"BATCH_MATMUL": 2, "FULLY_CONNECTED": 1, "SPLIT": 1, "RESHAPE": 2, "TRANSPOSE": 2}
    rest = {"SOFTMAX": 1, "CONV_2D": 2}
    check(proto, {"x": weights(batch, 16, 4, 5)}, {**rest, **(wide if size == 32 else narrow)})


@pytest.mark.parametrize(
    ("shape", "perm"),
    [((2, 3, 5, 2, 32), (0, 3, 1, 2, 4)), ((1, 3, 5, 2, 32), (0, 3, 1, 2, 4)), ((1, 15, 1, 2, 32), (2, 0, 3, 1, 4))],
    ids=["blocks of tokens", "in one image", "axes of size 1"],
)
def test_heads_of_tokens_in_several_axes_are_projected_in_front(shape: tuple[int, ...], perm: tuple[int, ...]) -> None:
    """NesT has blocks of tokens; queries that are cut out of one result for all three keep an axis of size 1."""
    tokens, turned = [shape[0], shape[1], shape[2], 16] if shape[2] > 1 else [*shape[:2], 16], [shape[a] for a in perm]
    proto = model(
        f"""net (float{tokens} x) => (float{turned} y) {{
            m = MatMul(x, w) p = Add(m, b) r = Reshape(p, s) y = Transpose<perm={list(perm)}>(r)
        }}""",
        w=weights(16, 64), b=weights(64), s=np.array(shape),
    )  # fmt: skip
    feeds = {"x": weights(*tokens)}
    compiled = compiled_as_it_is(proto)
    assert relative_error(source_results(proto, feeds)["y"], artifact_results(compiled, feeds)["y"]) < 2e-6
    assert {"BATCH_MATMUL": 1, "ADD": 1}.items() <= operators(compiled.data).items()
    assert "TRANSPOSE" not in operators(compiled.data)


def test_narrow_heads_are_projected_together() -> None:
    """Heads of 8 would leave a processor idle that computes 32 columns at once: they are made token by token, turned, and cut."""
    proto = attention("m = Mul(p, c) s = Add(m, mask)", size=8, c=np.float32(0.3), mask=weights(2, 6, 6))
    expected = {"FULLY_CONNECTED": 2, "RESHAPE": 2, "TRANSPOSE": 2, "SPLIT": 1, "BATCH_MATMUL": 2, "ADD": 1, "SOFTMAX": 1}
    check(proto, {"x": weights(1, 6, 16)}, expected | {"MUL": 1})


def test_narrow_heads_that_fill_the_processor_together_are_made_in_front() -> None:
    """As in LeViT: queries and keys of 16 and values of 32 are 64 columns for each head."""
    proto = model(
        """net (float[1,6,16] x) => (float[1,2,6,32] y) {
            m = MatMul(x, w) p = Add(m, b) r = Reshape(p, heads) q0, k0, v0 = Split<axis=3>(r, sizes)
            q1 = Mul(q0, c) q = Transpose<perm=[0,2,1,3]>(q1) k = Transpose<perm=[0,2,3,1]>(k0)
            v = Transpose<perm=[0,2,1,3]>(v0) s = MatMul(q, k) a = Softmax<axis=-1>(s) y = MatMul(a, v)
        }""",
        w=weights(16, 128) / 4, b=weights(128), heads=np.array([1, 6, 2, 64]), sizes=np.array([16, 16, 32]), c=np.float32(0.3),
    )  # fmt: skip
    expected = {"RESHAPE": 1, "BATCH_MATMUL": 3, "ADD": 1, "SPLIT_V": 1, "SOFTMAX": 1}
    check(proto, {"x": weights(1, 6, 16)}, expected)


def test_heads_of_a_dynamic_batch_and_length_stay_apart() -> None:
    """A RESHAPE has one dimension that is not given, so that they are projected in front whatever their size."""
    proto = model(
        """net (float[B,N,16] x) => (float[B,2,N,8] q, float[B,2,8,N] k) {
            q0 = MatMul(x, wq) q1 = Reshape(q0, heads) q = Transpose<perm=[0,2,1,3]>(q1)
            k0 = MatMul(x, wk) k1 = Reshape(k0, heads) k = Transpose<perm=[0,2,3,1]>(k1)
        }""",
        wq=weights(16, 16), wk=weights(16, 16), heads=np.array([0, 0, 2, 8]),
    )  # fmt: skip
    feeds = {"x": weights(2, 5, 16)}
    compiled = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)))
    made = artifact_results(compiled, feeds)
    assert operators(compiled.data) == {"EXPAND_DIMS": 1, "BATCH_MATMUL": 2, "TRANSPOSE": 1}
    assert all(relative_error(array, made[name]) < 2e-6 for name, array in source_results(proto, feeds).items())


def test_a_map_that_is_also_taken_as_it_is_stays_a_convolution() -> None:
    proto = model(
        """net (float[1,16,4,5] x) => (float[1,2,8,20] y, float[1,16,4,5] z) {
            e = Conv(x, we) c = Conv(e, w, b) y = Reshape(c, heads) z = Relu(c)
        }""",
        we=weights(16, 16, 1, 1), w=weights(16, 16, 1, 1), b=weights(16), heads=np.array([1, 2, 8, 20]),
    )  # fmt: skip
    feeds = {"x": weights(1, 16, 4, 5)}
    compiled = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)))
    made = artifact_results(compiled, feeds)
    assert operators(compiled.data)["CONV_2D"] == 2
    assert all(relative_error(array, made[name]) < 2e-6 for name, array in source_results(proto, feeds).items())
