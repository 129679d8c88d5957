"""The work grows with the graph, not with its square."""

import sys
from collections.abc import Callable
from types import FrameType

import numpy as np
import onnx_ir as ir
import pytest

from edgekit.layout import remove_transposes, to_channels_last, window

NCHW, NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


def residual_network(blocks: int, *, stray: int = 0, shared_mask: bool = False) -> ir.Model:
    """Ten nodes per block, as Keras writes them: each Conv between a pair of Transposes, all else on NHWC.

    Every `stray`-th block adds its transposed self, which no layout of the whole suits; a mask may be read by every block.
    """
    shape = [1, 8, 8, 8]
    x = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    weights = ir.Value(name="w", const_value=ir.tensor(np.zeros((8, 8, 3, 3), np.float32)))
    weights.shape, weights.dtype = ir.Shape([8, 8, 3, 3]), ir.DataType.FLOAT
    nodes: list[ir.Node] = []

    def add(op: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        node = ir.node(op, inputs, attributes=attributes)  # type: ignore[arg-type]
        out = node.outputs[0]
        out.name, out.shape, out.dtype = f"v{len(nodes)}", ir.Shape(shape), ir.DataType.FLOAT
        nodes.append(node)
        return out

    y = add("Relu", x)
    mask = add("Sigmoid", x)
    for i in range(blocks):
        branch = y
        for _ in range(2):
            branch = add("Transpose", branch, perm=NCHW)
            branch = add("Conv", branch, weights, pads=[1, 1, 1, 1])
            branch = add("Relu", add("Transpose", branch, perm=NHWC))
        if shared_mask:
            branch = add("Mul", branch, mask)
        if stray and i % stray == 0:
            branch = add("Add", branch, add("Transpose", branch, perm=(0, 2, 1, 3)))
        y = add("Add", y, branch)
    graph = ir.Graph([x], [y], nodes=nodes, initializers=[weights], opset_imports={"": 18})
    return ir.Model(graph, ir_version=9)


def calls(work: Callable[[], object]) -> int:
    """How many functions of ours it calls."""
    count = 0

    def counted(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event == "call" and "edgekit" in frame.f_code.co_filename

    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("shape", [{}, {"stray": 3}, {"shared_mask": True}], ids=["plain", "stray", "mask"])
def test_four_times_the_graph_is_four_times_the_work(shape: dict) -> None:
    small, large = residual_network(40, **shape), residual_network(160, **shape)
    assert calls(lambda: to_channels_last(large)) < 5 * calls(lambda: to_channels_last(small))


def test_what_repeated_layers_ask_is_searched_once() -> None:
    asked = []
    for blocks in (12, 48):
        window._cheapest.cache_clear()
        to_channels_last(residual_network(blocks, stray=3))
        asked.append(window._cheapest.cache_info())
    small, large = asked
    assert large.hits > small.hits
    assert large.misses == small.misses


def test_transpose_pairs_vanish() -> None:
    model = residual_network(30)
    to_channels_last(model)
    assert not [node for node in model.graph if node.op_type == "Transpose"]
    model = residual_network(30)
    assert remove_transposes(model) == 2  # at the input and at the output, which stay NHWC
