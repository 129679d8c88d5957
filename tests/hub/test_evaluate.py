"""What is computed while a model is prepared is what ONNX's reference implementation computes, bit for bit."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from edgekit.hub.evaluate import evaluate

RNG = np.random.default_rng(0)
FLOATS = (RNG.standard_normal((2, 3, 4)) * 30).astype(np.float32)
PLACES = np.array([[[0, 1], [1, -1]], [[0, 1], [1, 2]]])
CASES = {
    "gather_elements": ("GatherND", {}, FLOATS, np.concatenate([PLACES, np.ones((2, 2, 1), np.int64)], -1)),
    "gather_rows": ("GatherND", {}, FLOATS, PLACES),
    "gather_in_batches": ("GatherND", {"batch_dims": 1}, FLOATS, np.array([[[0], [-1], [2]], [[1], [1], [0]]])),
    "gather_elements_in_batches": ("GatherND", {"batch_dims": 2}, FLOATS, np.array([[[0], [3], [-1]], [[1], [1], [2]]])),
    "scatter": ("ScatterND", {}, FLOATS, np.array([[0, 1], [1, -1]]), FLOATS[1, :2] + 1),
    "scatter_twice": ("ScatterND", {}, FLOATS, np.array([[1], [1]]), FLOATS + 1),
    **{
        f"scatter_{how}": ("ScatterND", {"reduction": how}, FLOATS, np.array([[1], [1]]), FLOATS + 1)
        for how in ("none", "add", "mul", "min", "max")
    },
    "relu": ("Relu", {}, FLOATS),
    "relu_of_integers": ("Relu", {}, FLOATS.astype(np.int32)),
    "sigmoid": ("Sigmoid", {}, np.append(FLOATS, np.float32([0, 88, -104, np.inf, -np.inf, np.nan]))),
    "sigmoid_of_halves": ("Sigmoid", {}, FLOATS.astype(np.float16)),
}


@pytest.mark.parametrize("case", CASES)
def test_it_computes_what_onnx_defines(case: str) -> None:
    op_type, attributes, *inputs = CASES[case]
    names = [f"x{i}" for i in range(len(inputs))]
    proto = helper.make_node(op_type, names, ["y"], **attributes)
    with np.errstate(all="ignore"):
        (wanted,) = ReferenceEvaluator(proto, opsets={"": 20}).run(None, dict(zip(names, inputs, strict=True)))
    found = evaluate(ir.serde.deserialize_node(proto), inputs, 20)
    assert found is not None
    assert found[0].dtype == wanted.dtype
    np.testing.assert_array_equal(found[0], wanted, strict=True)
