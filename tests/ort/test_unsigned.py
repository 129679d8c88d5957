"""Signed activations become unsigned ones that stand for the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.ort.unsigned import with_unsigned_activations
from tests.litert.quantized_models import NETWORKS, quantized, random_feeds
from tests.litert.running import model, source_results


def kinds(made: onnx.ModelProto) -> dict[str, int]:
    """Of each value that a QuantizeLinear makes, the dtype of its zero point."""
    constants = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    return {node.output[0]: constants[node.input[2]] for node in made.graph.node if node.op_type == "QuantizeLinear"}


@pytest.mark.parametrize("network", NETWORKS)
def test_the_numbers_stay(network, tmp_path):
    source = NETWORKS[network]
    feeds = random_feeds(source, 8)
    signed = quantized(source, feeds, tmp_path, "QDQ", "QInt8", per_channel=True)
    unsigned = with_unsigned_activations(onnx.ModelProto.FromString(signed.SerializeToString()))
    onnx.checker.check_model(unsigned, full_check=True)
    assert set(kinds(unsigned).values()) == {onnx.TensorProto.UINT8}
    weights = {tensor.name for tensor in signed.graph.initializer if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims}
    assert weights <= {tensor.name for tensor in unsigned.graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    for name, array in source_results(signed, feeds[0]).items():
        assert np.array_equal(source_results(unsigned, feeds[0])[name], array)


def test_what_others_read_and_constants_stay():
    made = model(
        """net (float[1,4] x) => (float[1,4] y, int8[1,4] z, float[4] v) {
            q = QuantizeLinear(x, s, zero)  d = DequantizeLinear(q, s, zero)  z = QuantizeLinear(d, s, zero)
            r = QuantizeLinear(d, s, zero)  m = Concat<axis=0>(r)  y = DequantizeLinear(m, s, zero)
            w = QuantizeLinear(c, s, zero)  v = DequantizeLinear(w, s, zero)
        }""",
        s=np.float32(0.1),
        zero=np.int8(-3),
        c=np.ones(4, np.float32),
    )
    before = source_results(made, {"x": np.linspace(-3, 3, 4, dtype=np.float32)[None]})
    unsigned = with_unsigned_activations(made)
    int8, uint8 = onnx.TensorProto.INT8, onnx.TensorProto.UINT8
    assert kinds(unsigned) == {"q": uint8, "z": int8, "r": int8, "w": int8}
    zeros = {tensor.name: int(numpy_helper.to_array(tensor)) for tensor in unsigned.graph.initializer if "zero" in tensor.name}
    assert zeros == {"zero": -3, "zero/unsigned": 125}
    after = source_results(unsigned, {"x": np.linspace(-3, 3, 4, dtype=np.float32)[None]})
    assert all(np.array_equal(before[name], after[name]) for name in before)
