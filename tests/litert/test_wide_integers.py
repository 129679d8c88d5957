"""Integers of 32 and 64 bits that no kernel computes with: every bit is that of ONNX."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx.reference import ReferenceEvaluator

from edgekit import litert

from .running import WITHOUT_DELEGATES, source_results

COUNT = 500


@pytest.mark.parametrize("dtype", ["uint64", "int64", "uint32"])
def test_shifts_to_the_right_by_computed_amounts(dtype: str) -> None:
    width = 8 * np.dtype(dtype).itemsize
    amounts = np.random.default_rng(1).integers(0, width, COUNT).astype(dtype)
    amounts[:4] = [0, width // 2 - 1, width // 2, width - 1]
    check("BitShift", {"x": bits(dtype), "n": amounts}, direction="RIGHT")


@pytest.mark.parametrize("amount", [0, 1, 31, 32, 33, 63])
@pytest.mark.parametrize("dtype", ["uint64", "int64"])
def test_shifts_to_the_right_by_a_constant(dtype: str, amount: int) -> None:
    check("BitShift", {"x": bits(dtype)}, {"n": np.array([amount], dtype)}, direction="RIGHT")


@pytest.mark.parametrize("dtype", ["uint64", "int64"])
def test_a_shift_by_the_width_and_more_leaves_nothing_but_the_sign(dtype: str) -> None:
    x, amounts = bits(dtype), np.array([64, 65, 2**32, 2**40 + 1, np.iinfo(dtype).max], dtype)[:, None]
    want = np.broadcast_to(np.where(x < 0, -1, 0).astype(dtype), (len(amounts), COUNT))
    for feeds, constants in (({"x": x, "n": amounts}, {}), ({"x": x}, {"n": amounts})):
        source = one_node("BitShift", feeds, constants, direction="RIGHT")
        for results in run(source, feeds):
            np.testing.assert_array_equal(results, want)


@pytest.mark.parametrize("dtype", ["uint64", "uint32"])
def test_division_without_a_sign(dtype: str) -> None:
    generator, width, top = np.random.default_rng(2), 8 * np.dtype(dtype).itemsize, int(np.iinfo(dtype).max)
    x, y = (bits(dtype, seed) >> generator.integers(0, width, COUNT).astype(dtype) for seed in (3, 4))
    x[:8] = [top, top, top, top, 0, top - 1, top // 2, top // 2 + 1]
    y[:8] = [1, 2, top, top - 1, 5, top, top // 2 + 1, top // 2 + 1]
    check("Div", {"x": x, "y": np.maximum(y, np.array(1, dtype))})


@pytest.mark.parametrize("divisor", [3, 10, 2**31, 2**32 - 1])
@pytest.mark.parametrize("dtype", ["uint64", "uint32"])
def test_division_by_a_constant(dtype: str, divisor: int) -> None:
    check("Div", {"x": bits(dtype)}, {"y": np.array([divisor], dtype)})


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(("kind", "channels", "size"), [("uint8", 600, 1), ("int8", 64, 3), ("uint8", 3, 3)])
def test_convolutions_of_integers_with_sums_beyond_float32(kind: str, channels: int, size: int, constant: bool) -> None:
    x = np.resize(bits("uint8"), (1, channels, 4, 5))
    x[0, :, 0] = 255
    weights = {"w": np.resize(bits(kind, 1), (4, channels, size, size)), "zx": np.array(7, np.uint8)}
    weights["w"][0] = np.iinfo(kind).max
    points = {"zw": np.array(3, kind)}
    feeds = {"x": x} if constant else {"x": x, **weights}
    source = one_node("ConvInteger", feeds, {**weights, **points} if constant else points)
    want = source_results(source, feeds)["z"]
    for results in run(source, feeds):
        np.testing.assert_array_equal(results, want)


def bits(dtype: str, seed: int = 0) -> np.ndarray:
    """Numbers of the whole range."""
    return np.random.default_rng(seed).integers(0, 256, COUNT * np.dtype(dtype).itemsize, np.uint8).view(dtype)


def check(op: str, feeds: dict[str, np.ndarray], constants: dict[str, np.ndarray] | None = None, **attributes: str) -> None:
    source = one_node(op, feeds, constants or {}, **attributes)
    (want,) = ReferenceEvaluator(source).run(None, feeds)
    for results in run(source, feeds):
        assert results.dtype == want.dtype
        np.testing.assert_array_equal(results, want)


def run(source: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """With XNNPACK, and with the builtin kernels alone."""
    data = litert.compile(source)
    return [
        Interpreter(model_content=data, **kernels).get_signature_runner()(**feeds)["z"]
        for kernels in ({}, {"experimental_op_resolver_type": WITHOUT_DELEGATES})
    ]


def one_node(op: str, feeds: dict[str, np.ndarray], constants: dict[str, np.ndarray], **attributes: str) -> onnx.ModelProto:
    inputs = [oh.make_tensor_value_info(n, oh.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feeds.items()]
    held = [onnx.numpy_helper.from_array(a, n) for n, a in constants.items()]
    graph = oh.make_graph(
        [oh.make_node(op, [*feeds, *constants], ["z"], **attributes)], "net", inputs, [onnx.ValueInfoProto(name="z")], held
    )
    newest = onnx.defs.get_schema(op).since_version  # BitShift has had no signed numbers for long
    made = oh.make_model(graph, opset_imports=[oh.make_opsetid("", max(newest, 20))], ir_version=10)
    return onnx.shape_inference.infer_shapes(made)
