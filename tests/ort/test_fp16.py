"""float16: what is converted, what stays, and that the result is still the model."""

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import onnx_ir as ir
import onnxruntime
import pytest

from edgekit import ort

FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def model(body, **weights):
    parsed = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 20]> {body}')
    parsed.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(w), name) for name, w in weights.items())
    return ir.from_proto(parsed)


def converted(hub, feeds, probes=()):
    """The float16 model, and the cosine between its outputs and the source's."""
    artifact = ort.build(hub, "fp16", probes=probes)[0]
    reference = onnxruntime.InferenceSession(ir.to_proto(hub).SerializeToString()).run(None, feeds)
    found = onnxruntime.InferenceSession(artifact.data).run(None, feeds)
    for want, have in zip(reference, found, strict=True):
        assert have.dtype == want.dtype
        if want.dtype == np.float32:
            cosine = (want * have).sum(dtype=np.float64) / np.sqrt(
                (want**2).sum(dtype=np.float64) * (have**2).sum(dtype=np.float64)
            )
            assert cosine > 0.9999
        else:
            np.testing.assert_array_equal(have, want)
    return onnx.load_model_from_string(artifact.data), artifact.notes


def types(found):
    return {t.name: t.data_type for t in found.graph.initializer}


def uniform(*shape):
    return np.random.default_rng(0).uniform(0.1, 1.0, shape).astype(np.float32)


def test_weights_are_float16_and_inputs_and_outputs_float32():
    hub = model("g (float[1,8] x) => (float[1,4] y) { y = MatMul(x, w) }", w=uniform(8, 4))
    found, notes = converted(hub, {"x": uniform(1, 8)})
    assert [n.op_type for n in found.graph.node] == ["Cast", "MatMul", "Cast"]
    assert set(types(found).values()) == {FLOAT16}
    assert [v.type.tensor_type.elem_type for v in (*found.graph.input, *found.graph.output)] == [FLOAT, FLOAT]
    assert notes == ()


def test_the_scales_of_resize_stay_float32():
    body = 'g (float[1,1,4,4] x) => (float[1,1,8,8] y) { y = Resize<mode="linear">(x, , s) }'
    found, _ = converted(model(body, s=np.array([1, 1, 2, 2], np.float32)), {"x": uniform(1, 1, 4, 4)})
    assert types(found) == {"s": FLOAT}


def test_a_weight_used_in_both_precisions_is_kept_in_both():
    body = "g (float[4] x) => (float[4] y, float[4] z) { y = Mul(x, w)  z = Pow(x, w) }"
    found, _ = converted(model(body, w=uniform(4)), {"x": uniform(4)})
    assert sorted(types(found).values()) == [FLOAT, FLOAT16]


def test_a_weight_beyond_float16_keeps_its_node_in_float32_and_says_so():
    body = "g (float[4] x) => (float[4] y) { a = Mul(x, w)  y = Div(a, w) }"
    found, notes = converted(model(body, w=np.float32([1e5, 2e5, 3e5, 4e5])), {"x": uniform(4)})
    assert types(found) == {"w": FLOAT}
    assert all("reaches 4e+05" in note for note in notes)
    assert len(notes) == 2


def test_the_infinity_of_an_attention_mask_stays_finite():
    body = "g (float[1,4] s, bool[1,4] m) => (float[1,4] y) { a = Where(m, s, w)  y = Softmax(a) }"
    hub = model(body, w=np.array(np.finfo(np.float32).min))
    for mask in ([[True, True, False, False]], [[False] * 4]):
        converted(hub, {"s": uniform(1, 4), "m": np.array(mask)})


def test_a_small_epsilon_does_not_become_a_division_by_zero():
    body = "g (float[1,4] x) => (float[1,4] y) { a = Sub(x, x)  b = Add(a, e)  c = Div(b, b)  y = Add(c, x) }"
    converted(model(body, e=np.float32(1e-12)), {"x": uniform(1, 4)})


def test_activations_beyond_float16_are_found_on_real_inputs():
    body = "g (float[1,64] x) => (float[1,1] y) { a = MatMul(x, w)  b = Mul(a, a)  y = Sqrt(b) }"
    hub = model(body, w=uniform(64, 1))
    feeds = {"x": uniform(1, 64) * 100}
    found, notes = converted(hub, feeds, [feeds])
    kinds = {n.op_type: n for n in found.graph.node}
    assert kinds["MatMul"].input[1] == "w_fp16"
    assert any("Mul" in note and "activation 'b'" in note for note in notes)
    # Without data nothing is known of activations. (onnxruntime on x86 computes in float32 and would hide the overflow.)
    assert ort.build(hub, "fp16")[0].notes == ()


def test_activations_that_float16_would_flush_to_zero_are_found_on_the_inputs():
    """Networks with their first random weights often shrink what goes through them, until nothing is left in float16."""
    body = """g (float[1,8] x) => (float[1,8] y)
        { a = MatMul(x, w)  b = MatMul(a, w)  c = MatMul(b, w)  d = MatMul(c, w)  y = MatMul(d, w) }"""
    hub = model(body, w=uniform(8, 8) / 300)
    feeds = {"x": uniform(1, 8)}
    found, notes = converted(hub, feeds, [feeds])
    assert [n.op_type for n in found.graph.node][:3] == ["Cast", "MatMul", "Cast"]
    assert sorted(types(found).values()) == [FLOAT, FLOAT16]
    assert len(notes) == 4
    assert all("reaches only" in note for note in notes)
    # onnxruntime on x86 would compute in float32 and hide it; ONNX's own evaluator rounds every value.
    assert not onnx.reference.ReferenceEvaluator(ort.build(hub, "fp16")[0].data).run(None, feeds)[0].any()
    reference = onnxruntime.InferenceSession(ir.to_proto(hub).SerializeToString()).run(None, feeds)[0]
    np.testing.assert_allclose(onnx.reference.ReferenceEvaluator(found).run(None, feeds)[0], reference, rtol=1e-2)


def test_many_nodes_that_stay_in_float32_are_counted():
    chain = " ".join(f"v{i + 1} = Mul(v{i}, w)" for i in range(9))
    hub = model(f"g (float[4] v0) => (float[4] v9) {{ {chain} }}", w=np.float32([1e5, 2e5, 1, 1]))
    _, notes = converted(hub, {"v0": np.float32([0, 0, 1, 2])})
    assert len(notes) == 5
    assert notes[-1] == "5 more nodes stay in float32 for such reasons"


def test_integers_casts_and_names_survive():
    body = """g (int64[1,3] ids) => (float[1,3,4] y, int64[1,3] z)
        { e = Gather(table, ids)  f = Cast<to=1>(ids)  g = Mul(f, half)  z = Cast<to=7>(g)  y = Relu(e) }"""
    hub = model(body, table=uniform(10, 4), half=np.float32(0.5))
    found, _ = converted(hub, {"ids": np.array([[1, 8, 4]])})
    assert {"e", "g"} <= {name for node in found.graph.node for name in node.output}


@pytest.mark.parametrize("flag", [True, False])
def test_branches_of_an_if_stay_float32_and_see_outer_values(flag):
    body = """g (float[4] x, bool c) => (float[4] y)
        { a = Mul(x, w)  y = If (c) <then_branch = t () => (float[4] p) { p = Neg(a) },
                                    else_branch = e () => (float[4] q) { q = Add(a, x) }> }"""
    converted(model(body, w=uniform(4)), {"x": uniform(4), "c": np.array(flag)})


def test_filters_before_a_logarithm_stay_float32():
    """A filter whose response cancels: rounded to float16 it leaks, and the logarithm of the leak is what comes out."""
    rng = np.random.default_rng(0)
    taps = rng.normal(size=(64, 4)).astype(np.float32)
    cancelled = np.linalg.svd(taps.T)[2][-8:].astype(np.float32)
    hub = model(
        "g (float[8,64] x) => (float[8,4] y) { f = MatMul(x, taps) s = Mul(f, f) e = Add(s, tiny) y = Log(e) }",
        taps=taps,
        tiny=np.float32(1e-9),
    )
    found, notes = converted(hub, {"x": cancelled})
    assert types(found)["taps"] == FLOAT
    assert any("logarithm" in note for note in notes)


def test_a_logarithm_of_bounded_values_changes_nothing():
    hub = model(
        "g (float[2,64] x) => (float[2,4] y) { f = MatMul(x, taps) p = Softmax(f) y = Log(p) }",
        taps=np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32) / 8,
    )
    found, _ = converted(hub, {"x": np.random.default_rng(1).normal(size=(2, 64)).astype(np.float32)})
    assert FLOAT not in types(found).values()
