"""Quantized integers that a model moves as they are, and reads in another way than it wrote them: the same integers arrive."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from .quantized_models import compiled
from .running import WITHOUT_DELEGATES, model, source_results

CONSTANTS = {  # t divides s: no number lies between two integers, where kernels round differently
    "s": np.float32(0.05),
    "t": np.float32(0.025),
    "zero": np.int8(0),
    "low": np.int8(-100),
    "half": np.uint8(128),
    "fill": np.int8(3),
    "flat": np.array([1, 72]),
    "pads": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
    "order": np.array([1, 0]),
    "chosen": np.array([True, False, True, False, True, False]),
    "w": np.array([[1, 1], [1, -1]], np.float32).reshape(2, 2, 1, 1),
}
ONE = "(float[1,2,6,6] x) => "
TWO = "(float[1,2,6,6] x, float[1,2,6,6] z) => "
BOTH = "q = QuantizeLinear(x, s, zero) r = QuantizeLinear(z, t, low)"
CASES = {
    "a chain": ONE + "(float[1,2,6,6] y) { q = QuantizeLinear(x, s, zero) y = DequantizeLinear(q, t, low) }",
    "concat": TWO + f"(int8[1,4,6,6] y) {{ {BOTH} y = Concat<axis=1>(q, r) }}",
    "concat, read by the first": TWO
    + f"(float[1,4,6,6] y) {{ {BOTH} c = Concat<axis=1>(q, r) y = DequantizeLinear(c, s, zero) }}",
    "gather of an input": "(int8[1,2,6,6] x) => (float[1,2,6,6] y, float[1,2,6,6] v)"
    " { c = Gather<axis=1>(x, order) y = DequantizeLinear(c, s, zero) v = DequantizeLinear(x, t, low) }",
    "layout": ONE + "(float[1,2,6,6] y)"
    " { c = Conv<kernel_shape=[1,1]>(x, w) d = Relu(c) q = QuantizeLinear(d, s, half) y = DequantizeLinear(q, s) }",
    "max": TWO + f"(float[1,2,6,6] y) {{ {BOTH} c = Max(q, r) y = DequantizeLinear(c, t, zero) }}",
    "max pool": ONE + "(float[1,2,3,3] y) { q = QuantizeLinear(x, s, zero)"
    " c = MaxPool<kernel_shape=[2,2], strides=[2,2]>(q) y = DequantizeLinear(c, t, low) }",
    "negated": ONE + "(float[1,2,6,6] y) { q = QuantizeLinear(x, s, low) r = Neg(q) y = DequantizeLinear(r, s, low) }",
    "or exclusive": ONE
    + "(float[1,2,6,6] y) { q = QuantizeLinear(x, s, low) r = BitwiseXor(q, fill) y = DequantizeLinear(r, t, zero) }",
    "pad": ONE + "(float[1,2,7,7] y) { q = QuantizeLinear(x, s, low) c = Pad(q, pads) y = DequantizeLinear(c, s, low) }",
    "pad, given out": ONE + "(int8[1,2,7,7] y) { q = QuantizeLinear(x, s, low) y = Pad(q, pads) }",
    "pad of an input": "(int8[1,2,6,6] x) => (float[1,2,7,7] y) { c = Pad(x, pads) y = DequantizeLinear(c, s, low) }",
    "pad of an input by amounts that are fed": "(int8[1,2,6,6] x, int64[8] amounts) => (float[1,2,h,w] y)"
    " { c = Pad(x, amounts) y = DequantizeLinear(c, s, low) }",
    "pad with a number": ONE + "(float[1,2,7,7] y)"
    " { q = QuantizeLinear(x, s, low) c = Pad(q, pads, fill) y = DequantizeLinear(c, t, zero) }",
    "reshape": ONE + "(float[1,72] y) { q = QuantizeLinear(x, s, zero) c = Reshape(q, flat) y = DequantizeLinear(c, t, low) }",
    "reshape of an input": "(int8[1,2,6,6] x) => (float[1,72] y, float[1,2,6,6] v)"
    " { c = Reshape(x, flat) y = DequantizeLinear(c, s, zero) v = DequantizeLinear(x, t, low) }",
    "shape": "(float[n,6] x) => (float[n,6] y, int64[2] v)"
    " { q = QuantizeLinear(x, s, low) v = Shape(q) y = DequantizeLinear(q, s, low) }",
    "split": ONE + "(float[1,1,6,6] y, float[1,1,6,6] v) { q = QuantizeLinear(x, s, zero)"
    " a, b = Split<axis=1, num_outputs=2>(q) y = DequantizeLinear(a, s, zero) v = DequantizeLinear(b, t, low) }",
    "through a branch": "(bool c, float[1,6] x) => (float[1,6] y) { q = QuantizeLinear(x, s, low)"
    " r = If(c) <then_branch = a () => (int8[1,6] i) { i = Max(q, fill) }, else_branch = b () => (int8[1,6] j) { j = Neg(q) }>"
    " y = DequantizeLinear(r, t, zero) }",
    "transpose": ONE + "(float[1,6,6,2] y)"
    " { q = QuantizeLinear(x, s, zero) c = Transpose<perm=[0,2,3,1]>(q) y = DequantizeLinear(c, t, low) }",
    "transpose of uint8": "(uint8[1,2,6,6] x) => (float[1,6,6,2] y, float[1,2,6,6] v)"
    " { c = Transpose<perm=[0,2,3,1]>(x) y = DequantizeLinear(c, t) v = DequantizeLinear(x, s, half) }",
    "where": TWO + f"(float[1,2,6,6] y) {{ {BOTH} c = Where(chosen, q, r) y = DequantizeLinear(c, s, zero) }}",
}


@pytest.mark.parametrize("resolver", [OpResolverType.AUTO, WITHOUT_DELEGATES], ids=["xnnpack", "builtin"])
@pytest.mark.parametrize("case", CASES)
def test_the_same_integers_arrive(case: str, resolver: Any) -> None:
    body = CASES[case]
    source = model(f"net {body}", **{name: array for name, array in CONSTANTS.items() if name in re.findall(r"\w+", body)})
    generator = np.random.default_rng(7)
    feeds = {}
    for value in source.graph.input:
        if value.name == "amounts":
            feeds[value.name] = CONSTANTS["pads"]
            continue
        integers = generator.integers(-128, 128, [d.dim_value or 3 for d in value.type.tensor_type.shape.dim])
        dtype = {1: np.float32, 2: np.uint8, 3: np.int8, 9: np.bool_}[value.type.tensor_type.elem_type]
        feeds[value.name] = (integers * 0.05).astype(np.float32) if dtype is np.float32 else integers.astype(dtype)
    results = Interpreter(model_content=compiled(source).data, experimental_op_resolver_type=resolver).get_signature_runner()(
        **feeds
    )
    for name, want in source_results(source, feeds).items():
        assert results[name].dtype == want.dtype
        np.testing.assert_allclose(results[name], want, rtol=0, atol=1e-5)
