"""Random small graphs mean the same before and after."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tests.hub.graphs import same

# Elementwise on a value; linear operators and rearrangements keep rank 4 and their channels are looked up.
UNARY = ["Relu", "Sigmoid", "Tanh", "HardSwish", "Abs", "Neg", "Identity", "Erf", "HardSigmoid", "Softplus"]
BINARY = ["Add", "Sub", "Mul", "Div", "Max", "Min"]
OTHER = [
    "Conv",
    "BatchNormalization",
    "Transpose",
    "Reshape",
    "Pad",
    "Clip",
    "ReduceMean",
    "Concat",
    "GlobalAveragePool",
    "Unsqueeze",
]


class Builder:
    """A graph under construction: values with their shapes."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shapes: dict[str, tuple[int, ...]] = {"x": (1, 4, 5, 5)}

    def add(self, operator: str, inputs: list[str], shape: tuple[int, ...], **attributes: object) -> None:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        self.shapes[name] = shape

    def weight(self, values: object, dtype: type = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def floats(self, *shape: int) -> str:
        return self.weight(self.rng.uniform(0.5, 1.5, shape) * self.rng.choice([-1, 1], shape))

    def step(self, operator: str, x: str, other: str, choice: int) -> None:
        shape = self.shapes[x]
        channels, height, width = shape[1:]
        if operator in UNARY:
            self.add(operator, [x], shape)
        elif operator in BINARY:
            constants = [(), (channels, 1, 1), (1, channels, 1, 1), (width,), (1,)]
            right = (
                other if self.shapes[other] == shape and operator != "Div" and choice % 2 else self.floats(*constants[choice % 5])
            )
            self.add(operator, [x, right] if choice % 3 or operator == "Div" else [right, x], shape)
        elif operator == "Conv":
            groups = channels if choice % 3 == 0 else 1
            outputs = channels if groups > 1 else 3
            pads = [1, 1, 1, 1] if choice % 2 or min(height, width) < 3 else [0, 0, 0, 0]
            size = tuple(s + 2 * pads[0] - 2 for s in (height, width))
            inputs = [x, self.floats(outputs, channels // groups, 3, 3)] + ([self.floats(outputs)] if choice % 5 else [])
            self.add("Conv", inputs, (1, outputs, *size), group=groups, pads=pads)
        elif operator == "BatchNormalization":
            positive = self.weight(self.rng.uniform(0.5, 2, channels))
            self.add(operator, [x, self.floats(channels), self.floats(channels), self.floats(channels), positive], shape)
        elif operator == "Transpose":
            perm = [(0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 3, 2), (0, 1, 2, 3)][choice % 4]
            self.add(operator, [x], tuple(shape[axis] for axis in perm), perm=perm)
        elif operator == "Reshape":
            target = [(1, channels, height * width, 1), (1, channels * height, 1, width), (1, height, width, channels)][
                choice % 3
            ]
            self.add(operator, [x, self.weight(target, np.int64)], target)
        elif operator == "Pad":
            a, b = choice % 2, choice % 3
            self.add(operator, [x, self.weight([0, 0, a, b, 0, 0, b, a], np.int64)], (1, channels, height + a + b, width + a + b))
        elif operator == "Clip":
            self.add(operator, [x, self.weight([0, -1][choice % 2]), self.weight([6, 1][choice % 2])], shape)
        elif operator == "ReduceMean":
            self.add(
                operator,
                [x, self.weight([1 + choice % 3], np.int64)],
                tuple(1 if axis == 1 + choice % 3 else s for axis, s in enumerate(shape)),
            )
        elif operator == "Concat":
            right = other if self.shapes[other] == shape else x
            self.add(operator, [x, right], (1, 2 * channels, height, width), axis=1)
        elif operator == "GlobalAveragePool":
            self.add(operator, [x], (1, channels, 1, 1))
        elif operator == "Unsqueeze":
            self.add(operator, [x, self.weight([2], np.int64)], (1, channels, 1, height, width))
            self.add("Relu", [f"v{len(self.nodes) - 1}"], (1, channels, 1, height, width))
            self.add("Squeeze", [f"v{len(self.nodes) - 1}", self.weights[-1].name], shape)
            for hidden in (f"v{len(self.nodes) - 3}", f"v{len(self.nodes) - 2}"):
                self.shapes.pop(hidden)

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        infos = [helper.make_tensor_value_info(name, 1, self.shapes[name]) for name in outputs]
        entry = helper.make_tensor_value_info("x", 1, self.shapes["x"])
        graph = helper.make_graph(self.nodes, "g", [entry], infos, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


steps = st.lists(
    st.tuples(st.sampled_from(UNARY + 2 * BINARY + 2 * OTHER), st.integers(0, 5), st.integers(0, 5), st.integers(0, 29)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), steps)
def test_the_same_results(seed: int, plan: list[tuple[str, int, int, int]]) -> None:
    builder = Builder(seed)
    for operator, first, second, choice in plan:
        names = list(builder.shapes)
        builder.step(operator, names[-1 - first % len(names)], names[-1 - second % len(names)], choice)
    names = [name for name in builder.shapes if name != "x"]
    same(builder.model([names[-1], *names[-2:-1]]), tolerance=2e-4)
