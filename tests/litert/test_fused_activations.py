"""Every operator that the peephole gives an activation applies it: with XNNPACK and with the reference kernels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgekit import hub, litert
from edgekit.litert.peephole import CAN_FUSE

from .running import WITHOUT_DELEGATES, model, operators, relative_error, source_results

RNG = np.random.default_rng(2)
MAP, VOLUME = "float[1,4,6,6]", "float[1,4,6,6,6]"
BODIES = {
    "ADD": (MAP, "t = Add(x, z)"),
    "SUB": (MAP, "t = Sub(z, x)"),
    "MUL": (MAP, "t = Mul(x, z)"),
    "DIV": (MAP, "t = Div(x, z)"),
    "CONV_2D": (MAP, "t = Conv(x, w11)"),
    "DEPTHWISE_CONV_2D": (MAP, "t = Conv<group=4, pads=[1,1,1,1]>(x, wd)"),
    "TRANSPOSE_CONV": (MAP, "t = ConvTranspose<pads=[1,1,1,1]>(x, w33)"),
    "MAX_POOL_2D": (MAP, "t = MaxPool<kernel_shape=[1,1], strides=[2,2]>(x)"),
    "AVERAGE_POOL_2D": (MAP, "t = AveragePool<kernel_shape=[2,2], strides=[2,2]>(x)"),
    "FULLY_CONNECTED": (MAP, "t = MatMul(x, w6)"),
    "CONV_3D": (VOLUME, "t = Conv(x, w3d)"),
}


def test_every_operator_that_fuses_is_tested() -> None:
    assert set(BODIES) == CAN_FUSE


@pytest.mark.parametrize("resolver", [OpResolverType.AUTO, WITHOUT_DELEGATES], ids=["xnnpack", "reference"])
@pytest.mark.parametrize(
    "activation", ["Relu(t)", "Clip(t, zero, six)", "Clip(t, minus, one)"], ids=["relu", "relu6", "relu_n1_to_1"]
)
@pytest.mark.parametrize("code", BODIES)
def test_a_fused_activation_is_applied(code: str, activation: str, resolver: OpResolverType) -> None:
    shape, body = BODIES[code]
    result = "float[" + ",".join("abcde"[: shape.count(",") + 1]) + "]"
    proto = model(
        f"net ({shape} x) => ({result} y) {{ {body} y = {activation} }}",
        z=(RNG.normal(size=(1, 4, 6, 6)) * 3).astype(np.float32),
        w11=RNG.normal(size=(4, 4, 1, 1)).astype(np.float32) * 3,
        w33=RNG.normal(size=(4, 4, 3, 3)).astype(np.float32) * 3,
        wd=RNG.normal(size=(4, 1, 3, 3)).astype(np.float32) * 3,
        w6=RNG.normal(size=(6, 6)).astype(np.float32) * 3,
        w3d=RNG.normal(size=(4, 4, 1, 1, 1)).astype(np.float32) * 3,
        zero=np.float32(0), six=np.float32(6), minus=np.float32(-1), one=np.float32(1),
    )  # fmt: skip
    size = [int(d) for d in shape[len("float[") : -1].split(",")]
    feeds = {"x": (RNG.normal(size=size) * 5).astype(np.float32)}
    compiled = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)))
    found = operators(compiled.data)
    assert found[code] == 1
    assert not {"RELU", "RELU6", "RELU_N1_TO_1"} & set(found)
    runner = Interpreter(model_content=compiled.data, experimental_op_resolver_type=resolver).get_signature_runner()
    assert relative_error(source_results(proto, feeds)["y"], runner(**feeds)["y"]) < 5e-5
