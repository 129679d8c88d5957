"""What the passes around the lowerings make of a graph: fewer operators, the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgekit import hub, litert

from .running import WITHOUT_DELEGATES, artifact_results, model, operators, relative_error, source_results

RNG = np.random.default_rng(1)


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def compiled_as_it_is(proto: onnx.ModelProto) -> litert.Compiled:
    """The artifact with the inputs and outputs that ONNX has."""
    return litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)))


def check(proto: onnx.ModelProto, feeds: dict[str, np.ndarray], expected: dict[str, int], tolerance: float = 5e-6) -> None:
    """The compiled model has exactly these operators and computes what the source does."""
    compiled = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)), input_layout="nhwc", output_layout="nhwc")
    assert operators(compiled.data) == expected
    made = artifact_results(compiled, feeds)
    for name, array in source_results(proto, feeds).items():
        assert relative_error(array, made[name]) < tolerance


def test_hard_sigmoid_gate_costs_no_operator() -> None:
    """relu6(x + 3) / 6 after a convolution: the 3 goes into its bias, the 1/6 into the weights of the next one."""
    proto = model(
        """net (float[1,8,4,4] x) => (float[1,8,4,4] y) {
            a = Conv(x, w1, b1)
            g = HardSigmoid<alpha=0.16666667, beta=0.5>(a)
            m = Mul(x, g)
            y = Conv(m, w2, b2)
        }""",
        w1=weights(8, 8, 1, 1), b1=weights(8), w2=weights(8, 8, 1, 1), b2=weights(8),
    )  # fmt: skip
    check(proto, {"x": weights(1, 8, 4, 4)}, {"CONV_2D": 2, "MUL": 1})


def test_a_scalar_factor_rises_into_the_projection_above() -> None:
    proto = model(
        """net (float[1,6,16] x) => (float[1,6,2,8] y) {
            p = MatMul(x, w)
            q = Add(p, b)
            r = Reshape(q, shape)
            y = Mul(r, c)
        }""",
        w=weights(16, 16), b=weights(16), shape=np.array([1, 6, 2, 8]), c=np.float32(0.35),
    )  # fmt: skip
    check(proto, {"x": weights(1, 6, 16)}, {"FULLY_CONNECTED": 1, "RESHAPE": 1})


@pytest.mark.usefixtures("small_products")
@pytest.mark.parametrize("batch", [1, 3])
def test_attention_has_one_transpose_a_layer(batch: int) -> None:
    """Query, key and value are projected heads first; only the result has to be turned back."""
    proto = model(
        f"""net (float[{batch},5,16] x) => (float[{batch},5,16] y) {{
            m = MatMul(x, w) p = Add(m, b) r = Reshape(p, split) t = Transpose<perm=[2,0,3,1,4]>(r)
            q5, k5, v5 = Split<axis=0, num_outputs=3>(t)
            q0 = Squeeze(q5, first) k0 = Squeeze(k5, first) v = Squeeze(v5, first)
            q = Mul(q0, c) k = Mul(k0, c)
            kt = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, kt) a = Softmax<axis=-1>(s)
            o = MatMul(a, v) u = Transpose<perm=[0,2,1,3]>(o) f = Reshape(u, merged) y = MatMul(f, w2)
        }}""",
        w=weights(16, 192) / 4, b=weights(192), w2=weights(64, 16), split=np.array([batch, 5, 3, 2, 32]),
        merged=np.array([batch, 5, 64]), first=np.array([0]), c=np.float32(0.6),
    )  # fmt: skip
    expected = {"RESHAPE": 2, "BATCH_MATMUL": 5, "ADD": 1, "SOFTMAX": 1, "TRANSPOSE": 1, "FULLY_CONNECTED": 1}
    check(proto, {"x": weights(batch, 5, 16)}, expected)


@pytest.mark.parametrize(
    ("length", "size", "product"), [(256, 32, "BATCH_MATMUL"), (256, 24, "FULLY_CONNECTED"), (8, 32, "FULLY_CONNECTED")]
)
def test_small_heads_are_projected_together(length: int, size: int, product: str) -> None:
    """A product per head is slow where its columns do not fill a vector unit, or where there is little to multiply."""
    proto = model(
        f"""net (float[1,{length},96] x) => (float[1,2,{length},{size}] y)
            {{ p = MatMul(x, w) r = Reshape(p, heads) y = Transpose<perm=[0,2,1,3]>(r) }}""",
        w=weights(96, 2 * size), heads=np.array([1, length, 2, size]),
    )  # fmt: skip
    turned = {"TRANSPOSE": 1} if product == "FULLY_CONNECTED" else {}
    check(proto, {"x": weights(1, length, 96)}, {product: 1, "RESHAPE": 1} | turned)


def test_a_factor_used_twice_stays() -> None:
    proto = model(
        """net (float[1,16] x) => (float[1,16] y, float[1,16] p) { p = MatMul(x, w) y = Mul(p, c) }""",
        w=weights(16, 16),
        c=np.float32(3),
    )
    check(proto, {"x": weights(1, 16)}, {"FULLY_CONNECTED": 1, "MUL": 1})


@pytest.mark.parametrize("taken", ["Split", "Slice"])
def test_a_projection_taken_in_slices_is_made_in_slices(taken: str) -> None:
    cut = (
        "q, k, v = Split<axis=2, num_outputs=3>(p)"
        if taken == "Split"
        else "q = Slice(p, i0, i16, two) k = Slice(p, i16, i32, two) v = Slice(p, i32, i48, two)"
    )
    proto = model(
        f"""net (float[1,5,16] x) => (float[1,5,5] y) {{
            m = MatMul(x, w) p = Add(m, b) {cut}
            kt = Transpose<perm=[0,2,1]>(k) s = MatMul(q, kt) z = MatMul(s, v) u = MatMul(z, w2) y = Relu(u)
        }}""",
        w=weights(16, 48), b=weights(48), w2=weights(16, 5), two=np.array([2]),
        **{f"i{n}": np.array([n]) for n in (0, 16, 32, 48)},
    )  # fmt: skip
    check(proto, {"x": weights(1, 5, 16)}, {"FULLY_CONNECTED": 4, "BATCH_MATMUL": 2})


def test_the_scale_and_bias_of_a_normalization_go_into_the_next_projection() -> None:
    proto = model(
        """net (float[1,5,16] x) => (float[1,5,8] y) {
            n = LayerNormalization<axis=-1>(x, s, o) m = MatMul(n, w) y = Add(m, b)
        }""",
        s=weights(16), o=weights(16), w=weights(16, 8), b=weights(8),
    )  # fmt: skip
    check(proto, {"x": weights(1, 5, 16)}, {"MEAN": 2, "SUB": 1, "MUL": 2, "ADD": 1, "RSQRT": 1, "FULLY_CONNECTED": 1})


def test_a_normalization_that_others_see_keeps_its_scale() -> None:
    proto = model(
        """net (float[1,5,16] x) => (float[1,5,16] y) {
            n = LayerNormalization<axis=-1>(x, s, o) m = MatMul(n, w) y = Add(m, n)
        }""",
        s=weights(16), o=weights(16), w=weights(16, 16),
    )  # fmt: skip
    check(proto, {"x": weights(1, 5, 16)}, {"MEAN": 2, "SUB": 1, "MUL": 3, "ADD": 3, "RSQRT": 1, "FULLY_CONNECTED": 1})


@pytest.mark.parametrize("alike", [True, False])
def test_a_matrix_that_layers_share_takes_a_scale_only_from_all(alike: bool) -> None:
    """ALBERT's layers are equal, and become so together; CoaT has its own norm before each use of one matrix."""
    proto = model(
        """net (float[1,4,64] x) => (float[1,4,64] y) {
            a = LayerNormalization(x, s0, b0) p = MatMul(a, w) r = Relu(p)
            b = LayerNormalization(r, s1, b1) y = MatMul(b, w)
        }""",
        s0=(first := weights(64)), b0=(second := weights(64)), w=weights(64, 64),
        s1=first if alike else weights(64), b1=second if alike else weights(64),
    )  # fmt: skip
    feeds = {"x": weights(1, 4, 64)}
    compiled = compiled_as_it_is(proto)
    assert relative_error(source_results(proto, feeds)["y"], artifact_results(compiled, feeds)["y"]) < 5e-6
    assert operators(compiled.data)["MUL"] == (4 if alike else 6)
    assert len(compiled.data) < 64 * 64 * 4 + 6144


def test_max_pooling_of_what_is_not_negative_is_padded_with_zeros() -> None:
    proto = model(
        """net (float[1,4,8,8] x) => (float[1,4,4,4] y) {
            r = Relu(x) y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(r)
        }"""
    )
    check(proto, {"x": weights(1, 4, 8, 8)}, {"RELU": 1, "PAD": 1, "MAX_POOL_2D": 1})


def test_a_chain_of_one_dimensional_convolutions_keeps_its_activations_fused() -> None:
    proto = model(
        """net (float[1,4,32] x) => (float[1,4,32] y) {
            a = Conv<kernel_shape=[3], pads=[1,1]>(x, w1) b = Relu(a) c = Conv<kernel_shape=[3], pads=[1,1]>(b, w2) y = Relu(c)
        }""",
        w1=weights(4, 4, 3),
        w2=weights(4, 4, 3),
    )
    check(proto, {"x": weights(1, 4, 32)}, {"RESHAPE": 2, "CONV_2D": 2})


def test_equal_weights_are_written_once() -> None:
    shared = weights(128, 128)
    proto = model(
        "net (float[1,128] x) => (float[1,128] y) { a = MatMul(x, w1) b = Tanh(a) y = MatMul(b, w2) }",
        w1=shared,
        w2=shared.copy(),
    )
    assert len(litert.compile(proto)) < 1.1 * shared.nbytes


def test_an_activation_after_a_concatenation_stays() -> None:
    """No kernel fuses it, though the schema has a field for it."""
    proto = model("net (float[1,4] a, float[1,4] b) => (float[1,8] y) { c = Concat<axis=1>(a, b) y = Relu(c) }")
    check(proto, {"a": weights(1, 4), "b": weights(1, 4)}, {"CONCATENATION": 1, "RELU": 1})


def test_tensor_names_are_unique() -> None:
    proto = model("net (float[2,8] x) => (float[4,4] y) { a = Reshape(x, s) b = Relu(a) y = Reshape(b, s) }", s=np.array([4, 4]))
    interpreter = Interpreter(model_content=litert.compile(proto), experimental_op_resolver_type=WITHOUT_DELEGATES)
    names = [details["name"] for details in interpreter.get_tensor_details() if details["name"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("open_places", [[1, 1, 0, 1, 0], [0, 0, 0, 0, 0]], ids=["some", "none"])
def test_safe_softmax_looks_for_no_nans(open_places: list[int]) -> None:
    proto = model(
        """net (float[1,2,5,5] x, bool[1,1,1,5] mask) => (float[1,2,5,5] y) {
            m = Where(mask, zero, hidden) a = Add(x, m) s = Softmax<axis=-1>(a) n = IsNaN(s) y = Where(n, zero, s)
        }""",
        zero=np.float32(0),
        hidden=np.float32(-np.inf),
    )
    feeds = {"x": weights(1, 2, 5, 5), "mask": np.array(open_places, bool).reshape(1, 1, 1, 5)}
    check(proto, feeds, {"SELECT_V2": 2, "REDUCE_MAX": 1, "ADD": 1, "SOFTMAX": 1, "MUL": 1})


def test_a_finite_mask_needs_no_safe_softmax() -> None:
    proto = model(
        """net (float[1,2,5,4] q, float[1,2,4,5] k, bool[1,1,1,5] mask) => (float[1,2,5,5] y) {
            x = MatMul(q, k) m = Where(mask, zero, hidden) a = Add(x, m) s = Softmax<axis=-1>(a)
            n = IsNaN(s) y = Where(n, zero, s)
        }""",
        zero=np.float32(0),
        hidden=np.finfo(np.float32).min,
    )
    feeds = {"q": weights(1, 2, 5, 4), "k": weights(1, 2, 4, 5), "mask": np.zeros((1, 1, 1, 5), bool)}
    check(proto, feeds, {"BATCH_MATMUL": 1, "SELECT_V2": 1, "ADD": 1, "SOFTMAX": 1})


@pytest.mark.parametrize("hides", [-np.inf, np.finfo(np.float32).min], ids=["infinite", "finite"])
@pytest.mark.parametrize("outputs", [("s",), ("y", "s"), ("s", "y")], ids="-".join)
def test_a_guarded_softmax_that_is_given_out_keeps_its_name_and_its_numbers(outputs: tuple[str, ...], hides: float) -> None:
    declared = ", ".join(f"float[1,2,5,5] {name}" for name in ("z", *outputs))
    proto = model(
        f"""net (float[1,2,5,4] q, float[1,2,4,5] k, bool[1,1,5,5] mask) => ({declared}) {{
            x = MatMul(q, k) m = Where(mask, zero, hidden) a = Add(x, m) s = Softmax<axis=-1>(a)
            n = IsNaN(s) y = Where(n, zero, s) z = Relu(y)
        }}""",
        zero=np.float32(0),
        hidden=np.float32(hides),
    )
    mask = np.tril(np.ones((1, 1, 5, 5), bool), -1)  # the first row is masked everywhere
    feeds = {"q": weights(1, 2, 5, 4), "k": weights(1, 2, 4, 5), "mask": mask}
    results = artifact_results(litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto))), feeds)
    for name, want in source_results(proto, feeds).items():
        np.testing.assert_allclose(results[name], want, rtol=1e-5, atol=1e-6)


def test_pointwise_1d_convolutions_are_dense_layers() -> None:
    """Neither the axis that a 1-D convolution gets to be one of two dimensions, nor a second copy of its reshape, is left."""
    proto = model(
        """net (float[1,16,64] x) => (float[1,16,32] y, float[1,16,48] z) {
            t = Transpose<perm=[0,2,1]>(x)
            a = Conv(t, w1, b1)
            y = Transpose<perm=[0,2,1]>(a)
            b = Conv(t, w2, b2)
            z = Transpose<perm=[0,2,1]>(b)
        }""",
        w1=weights(32, 64, 1), b1=weights(32), w2=weights(48, 64, 1), b2=weights(48),
    )  # fmt: skip
    check(proto, {"x": weights(1, 16, 64)}, {"FULLY_CONNECTED": 2})


def test_reshapes_around_a_dense_layer_are_one() -> None:
    proto = model(
        """net (float[4,6,2,8] x) => (float[1,2,4,6,10] y) {
            t = Transpose<perm=[2,0,1,3]>(x)
            a = Reshape(t, rows)
            b = MatMul(a, w)
            y = Reshape(b, windows)
        }""",
        rows=np.array([8, 6, 8]), w=weights(8, 10), windows=np.array([1, 2, 4, 6, 10]),
    )  # fmt: skip
    check(proto, {"x": weights(4, 6, 2, 8)}, {"TRANSPOSE": 1, "RESHAPE": 1, "FULLY_CONNECTED": 1})


def test_equal_reshapes_are_shared() -> None:
    """Strided 1-D convolutions of one input each bring the same reshape with them."""
    proto = model(
        """net (float[1,16,64] x) => (float[1,8,32] y, float[1,8,48] z) {
            t = Transpose<perm=[0,2,1]>(x)
            a = Conv<kernel_shape=[2], strides=[2]>(t, w1)
            y = Transpose<perm=[0,2,1]>(a)
            b = Conv<kernel_shape=[2], strides=[2]>(t, w2)
            z = Transpose<perm=[0,2,1]>(b)
        }""",
        w1=weights(32, 64, 2), w2=weights(48, 64, 2),
    )  # fmt: skip
    check(proto, {"x": weights(1, 16, 64)}, {"RESHAPE": 3, "CONV_2D": 2})


def test_a_padding_that_several_convolutions_ask_for_is_made_once() -> None:
    proto = model(
        """net (float[1,3,8,8] x) => (float[1,4,4,4] y) {
            a = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x, w1)
            b = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x, w2)
            y = Add(a, b)
        }""",
        w1=weights(4, 3, 3, 3),
        w2=weights(4, 3, 3, 3),
    )
    check(proto, {"x": weights(1, 3, 8, 8)}, {"PAD": 1, "CONV_2D": 2, "ADD": 1})


def test_rms_norm_before_projections_is_five_operators() -> None:
    """1 / sqrt is one operator, and the scale is part of the weights that follow."""
    proto = model(
        """net (float[1,6,16] x) => (float[1,6,8] y, float[1,6,4] z) {
            s = Mul(x, x)
            m = ReduceMean(s, last)
            e = Add(m, epsilon)
            r = Sqrt(e)
            i = Reciprocal(r)
            n = Mul(x, i)
            g = Mul(scale, n)
            y = MatMul(g, w)
            z = MatMul(g, v)
        }""",
        last=np.array([-1]), epsilon=np.float32(1e-5), scale=weights(16), w=weights(16, 8), v=weights(16, 4),
    )  # fmt: skip
    check(proto, {"x": weights(1, 6, 16)}, {"MUL": 2, "MEAN": 1, "ADD": 1, "RSQRT": 1, "FULLY_CONNECTED": 2})


@pytest.mark.usefixtures("small_products")
def test_the_scale_of_a_norm_goes_into_attention_heads() -> None:
    """Weights that are read as heads take the scale like any other; the norm's bias joins theirs."""
    proto = model(
        """net (float[1,6,16] x) => (float[1,2,6,32] y) {
            n = LayerNormalization(x, scale, bias)
            p = MatMul(n, w)
            q = Add(p, b)
            r = Reshape(q, shape)
            y = Transpose<perm=[0,2,1,3]>(r)
        }""",
        scale=weights(16), bias=weights(16), w=weights(16, 64), b=weights(64), shape=np.array([1, 6, 2, 32]),
    )  # fmt: skip
    norm = {"MEAN": 2, "SUB": 1, "MUL": 2, "ADD": 1, "RSQRT": 1}
    check(proto, {"x": weights(1, 6, 16)}, {**norm, "ADD": 2, "RESHAPE": 1, "BATCH_MATMUL": 1})


def torch_group_norm(channels: int, groups: int) -> onnx.ModelProto:
    """GroupNorm between convolutions, in a batch of two."""
    return model(
        """net (float[2,3,4,6] x) => (float[2,3,4,6] y) {
            a = Conv(x, w)
            r = Reshape(a, rows)
            n = InstanceNormalization<epsilon=0.001>(r, one, zero)
            i = Reshape(n, image)
            s = Mul(i, scale)
            t = Add(s, bias)
            y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(t, v)
        }""",
        w=weights(channels, 3, 1, 1), v=weights(3, channels, 3, 3), rows=np.array([2, groups, -1]),
        image=np.array([2, channels, 4, 6]), one=np.ones(groups, np.float32), zero=np.zeros(groups, np.float32),
        scale=weights(channels, 1, 1), bias=weights(channels, 1, 1),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("channels", "groups", "more"),
    [
        (8, 1, {"ADD": 2}),
        (8, 8, {"ADD": 2}),
        (12, 4, {"CONV_2D": 4}),  # the convolutions that take the means of groups hold epsilon as well
        (512, 2, {"ADD": 2, "MEAN": 4, "MUL": 5, "RESHAPE": 4}),  # they would need more weights than they are worth
    ],
)
def test_torch_group_norm_between_convolutions_needs_no_transpose(channels: int, groups: int, more: dict[str, int]) -> None:
    expected = {"CONV_2D": 2, "MEAN": 2, "SUB": 1, "MUL": 3, "ADD": 1, "RSQRT": 1} | more
    check(torch_group_norm(channels, groups), {"x": weights(2, 3, 4, 6)}, expected)


@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (12, 4), (512, 2)])
def test_group_norm_gives_no_tensor_more_axes_than_an_image_has(channels: int, groups: int) -> None:
    interpreter = Interpreter(
        model_content=compiled_as_it_is(torch_group_norm(channels, groups)).data,
        experimental_op_resolver_type=WITHOUT_DELEGATES,
    )
    assert max(len(detail["shape"]) for detail in interpreter.get_tensor_details()) == 4


@pytest.mark.parametrize("space", [(10,), (3, 4), (3, 4, 5)], ids=["1-D", "2-D", "3-D"])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm_where_the_mean_is_large(space: tuple[int, ...], groups: int) -> None:
    """The mean is taken out before anything is squared."""
    shape = ",".join(map(str, (2, 6, *space)))
    proto = model(
        f"""net (float[{shape}] x) => (float[{shape}] y) {{
            r = Reshape(x, rows)
            n = InstanceNormalization(r, s, b)
            y = Reshape(n, whole)
        }}""",
        rows=np.array([2, groups, -1]), whole=np.array([2, 6, *space]), s=weights(groups), b=weights(groups),
    )  # fmt: skip
    feeds = {"x": 100 + weights(2, 6, *space)}
    made = artifact_results(compiled_as_it_is(proto), feeds)
    assert relative_error(source_results(proto, feeds)["y"], made["y"]) < 1e-4


def test_the_scale_of_a_norm_passes_shifted_windows() -> None:
    """Swin: rows are rolled, cut into windows, and only then projected."""
    proto = model(
        """net (float[1,4,6,8] x) => (float[6,4,5] y) {
            n = LayerNormalization(x, scale, bias)
            a = Slice(n, zero, one, one)
            b = Slice(n, one, far, one)
            c = Concat<axis=1>(b, a)
            r = Reshape(c, split)
            t = Transpose<perm=[0,1,3,2,4,5]>(r)
            w = Reshape(t, windows)
            y = MatMul(w, m)
        }""",
        scale=weights(8), bias=weights(8), m=weights(8, 5), zero=np.array([0]), one=np.array([1]), far=np.array([99]),
        split=np.array([1, 2, 2, 3, 2, 8]), windows=np.array([6, 4, 8]),
    )  # fmt: skip
    norm = {"MEAN": 2, "SUB": 1, "MUL": 2, "ADD": 1, "RSQRT": 1}
    moves = {"SLICE": 2, "CONCATENATION": 1, "RESHAPE": 2, "TRANSPOSE": 1}
    check(proto, {"x": weights(1, 4, 6, 8)}, {**norm, **moves, "FULLY_CONNECTED": 1})


def test_a_norm_that_is_also_taken_as_it_is_keeps_its_scale() -> None:
    proto = model(
        """net (float[1,4,8] x) => (float[1,4,5] y, float[2,2,8] z) {
            n = LayerNormalization(x, scale)
            y = MatMul(n, m)
            z = Reshape(n, rows)
        }""",
        scale=weights(8), m=weights(8, 5), rows=np.array([2, 2, 8]),
    )  # fmt: skip
    norm = {"MEAN": 2, "SUB": 1, "MUL": 3, "ADD": 1, "RSQRT": 1}
    check(proto, {"x": weights(1, 4, 8)}, {**norm, "FULLY_CONNECTED": 1, "RESHAPE": 1})


@pytest.mark.usefixtures("small_products")
def test_queries_keys_and_values_that_are_picked_by_index_are_projected_apart() -> None:
    """qkv.reshape(…, 3, heads, size).permute(2, 0, 3, 1, 4), then qkv[0], qkv[1], qkv[2]."""
    proto = model(
        """net (float[1,6,16] x) => (float[1,2,6,6] y, float[1,2,6,32] v) {
            p = MatMul(x, w)
            b = Add(p, bias)
            r = Reshape(b, shape)
            t = Transpose<perm=[2,0,3,1,4]>(r)
            q = Gather<axis=0>(t, zero)
            k = Gather<axis=0>(t, one)
            v = Gather<axis=0>(t, two)
            s = Transpose<perm=[0,1,3,2]>(k)
            y = MatMul(q, s)
        }""",
        w=weights(16, 192) / 4, bias=weights(192), shape=np.array([1, 6, 3, 2, 32]),
        zero=np.array(0), one=np.array(-2), two=np.array(2),
    )  # fmt: skip
    check(proto, {"x": weights(1, 6, 16)}, {"RESHAPE": 1, "BATCH_MATMUL": 4, "ADD": 3})
