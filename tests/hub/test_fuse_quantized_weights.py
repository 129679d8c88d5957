"""Quantized weights stay the integers that they are."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.hub.graphs import operators, same, text_model

INTEGERS = np.array([[5, -7, 120], [-127, 3, 0]], np.int8)
NORM = "float[2] s = {1, -2}, float[2] o = {3, 4}, float[2] m = {1, 1}, float[2] v = {4, 9}"


def with_weights(body: str, integers: np.ndarray, scale: np.ndarray) -> onnx.ModelProto:
    model = text_model(body)
    model.graph.initializer.append(numpy_helper.from_array(integers, "q"))
    model.graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), "f"))
    return model


def held(model) -> tuple[np.ndarray, np.ndarray]:
    """The integers and scales of the only DequantizeLinear."""
    (node,) = (node for node in model.graph if node.op_type == "DequantizeLinear")
    return tuple(value.const_value.numpy() for value in node.inputs[:2])  # type: ignore[return-value]


def test_a_transposed_kernel() -> None:
    body = """g (float[1,3,4,4] x) => (y) { d = DequantizeLinear<axis=3>(q, f) w = Transpose<perm=[3,2,0,1]>(d)
        y = Conv<kernel_shape=[1,1]>(x, w) }"""
    model = same(with_weights(body, INTEGERS.T.reshape(1, 1, 3, 2), np.array([0.1, 0.3])))
    assert operators(model) == {"DequantizeLinear": 1, "Conv": 1}
    integers, scale = held(model)
    assert np.array_equal(integers, INTEGERS.reshape(2, 3, 1, 1))
    assert scale.tolist() == np.array([0.1, 0.3], np.float32).tolist()


def test_a_reshaped_kernel() -> None:
    body = """g (float[1,3,4,4] x) => (y) <int64[4] s = {2,3,1,1}> { d = DequantizeLinear<axis=0>(q, f) w = Reshape(d, s)
        y = Conv(x, w) }"""
    model = same(with_weights(body, INTEGERS, np.array([0.1, 0.3])))
    assert operators(model) == {"DequantizeLinear": 1, "Conv": 1}
    assert np.array_equal(held(model)[0].reshape(2, 3), INTEGERS)


def test_a_reshape_that_tears_the_scales_apart_stays() -> None:
    body = """g (float[1,2,4,4] x) => (y) <int64[4] s = {3,2,1,1}> { d = DequantizeLinear<axis=0>(q, f) w = Reshape(d, s)
        y = Conv(x, w) }"""
    model = same(with_weights(body, INTEGERS, np.array([0.1, 0.3])))
    assert operators(model) == {"DequantizeLinear": 1, "Reshape": 1, "Conv": 1}


@pytest.mark.parametrize("scale", [[0.1, 0.3], 0.2], ids=["per channel", "per tensor"])
def test_a_normalization_is_in_the_scales(scale: object) -> None:
    body = f"""g (float[1,3,4,4] x) => (y) <{NORM}> {{ d = DequantizeLinear<axis=0>(q, f) c = Conv(x, d)
        y = BatchNormalization<epsilon=0.0>(c, s, o, m, v) }}"""
    model = same(with_weights(body, INTEGERS.reshape(2, 3, 1, 1), np.array(scale)))
    assert operators(model) == {"DequantizeLinear": 1, "Conv": 1}
    integers, scales = held(model)
    assert np.array_equal(integers.reshape(2, 3), INTEGERS * np.array([[1], [-1]]))
    assert scales == pytest.approx(np.array(scale) * [1 / 2, 2 / 3])


def test_arithmetic_after_a_dense_layer() -> None:
    body = """g (float[4,3] x) => (y) <float[2] a = {2, 3}, float[2] b = {-1, 4}> { d = DequantizeLinear<axis=1>(q, f)
        c = MatMul(x, d) e = Mul(c, a) y = Add(e, b) }"""
    model = same(with_weights(body, np.ascontiguousarray(INTEGERS.T), np.array([0.1, 0.3])))
    assert np.array_equal(held(model)[0], INTEGERS.T)
    assert "Mul" not in operators(model)


def test_a_number_keeps_the_scale_one_number() -> None:
    body = "g (float[4,3] x) => (y) <float a = {2}> { d = DequantizeLinear(q, f) c = MatMul(x, d) y = Mul(c, a) }"
    model = same(with_weights(body, np.ascontiguousarray(INTEGERS.T), np.array(0.1)))
    assert operators(model) == {"DequantizeLinear": 1, "MatMul": 1}
    assert held(model)[1].shape == ()


def test_the_least_integer_does_not_change_its_sign() -> None:
    body = f"""g (float[1,3,4,4] x) => (y) <{NORM}> {{ d = DequantizeLinear<axis=0>(q, f) c = Conv(x, d)
        y = BatchNormalization<epsilon=0.0>(c, s, o, m, v) }}"""
    integers = np.where(INTEGERS == -127, -128, INTEGERS).astype(np.int8)
    model = same(with_weights(body, integers.reshape(2, 3, 1, 1), np.array([0.1, 0.3])))
    assert np.array_equal(held(model)[0].reshape(2, 3), integers)


def test_a_product_that_others_read_stays() -> None:
    body = f"""g (float[1,3,4,4] x) => (y, z) <{NORM}> {{ d = DequantizeLinear<axis=0>(q, f) c = Conv(x, d)
        y = BatchNormalization(c, s, o, m, v) z = Abs(c) }}"""
    model = same(with_weights(body, INTEGERS.reshape(2, 3, 1, 1), np.array([0.1, 0.3])))
    assert np.array_equal(held(model)[0].reshape(2, 3), INTEGERS)
    assert held(model)[1].tolist() == np.array([0.1, 0.3], np.float32).tolist()
