"""What exporters leave out of their graphs."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from edgekit.contract import TensorSpec
from edgekit.sources.source import bind


def test_constants_that_the_exporter_did_not_list() -> None:
    """torch's leaves bounds of clamp() as values with contents that belong to no graph, some under one name."""
    x = ir.val("x", ir.DataType.FLOAT, [2])
    low, high = (ir.val("bound", const_value=ir.tensor(np.float32(number))) for number in (-1, 1))
    clip = ir.node("Clip", [x, low, high])
    clip.outputs[0].name = "y"
    model = ir.Model(ir.Graph([x], clip.outputs, nodes=[clip], opset_imports={"": 20}, name="g"), ir_version=9)
    bound = bind(model, [TensorSpec("x", (2,))], [TensorSpec("y", (2,))], "net.py:factory")
    onnx.checker.check_model(ir.to_proto(bound))
    assert sorted(float(value.const_value.numpy()) for value in bound.graph.initializers.values()) == [-1, 1]
