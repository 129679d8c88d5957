"""The weights of convolutions and dense layers, as int8 sees them: one row per output channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

# The most inputs of a sum that are looked at together.
WIDEST = 4608


@dataclass(frozen=True)
class Layer:
    """A Conv or Gemm with constant weights that nothing else uses.

    `kernel` views the weights as outputs x inputs per group x taps, float64.
    """

    node: ir.Node
    kernel: np.ndarray
    groups: int

    @property
    def takes(self) -> str:
        """The name of the input that is not a weight."""
        return str(self.node.inputs[0].name)  # type: ignore[union-attr]

    @property
    def makes(self) -> str:
        """The name of the result."""
        return str(self.node.outputs[0].name)

    @property
    def depthwise(self) -> bool:
        """One input channel per group: input channel i feeds the outputs i * m up to (i + 1) * m."""
        return self.groups > 1 and self.kernel.shape[1] == 1

    @property
    def has_window(self) -> bool:
        """Whether it is known what its sums are made of: the hub spells out the windows of convolutions whose sizes it knows."""
        return self.node.op_type == "Gemm" or all(name in self.node.attributes for name in ("strides", "dilations", "pads"))

    @property
    def can_be_learned(self) -> bool:
        """Whether its sums can be looked at, and are not too wide for that."""
        return self.has_window and self.kernel[0].size <= WIDEST

    def per_input(self, channels: np.ndarray) -> np.ndarray:
        """A number per input channel, broadcast to the form of `kernel`."""
        each = self.kernel.shape[0] // self.groups
        return np.repeat(channels.reshape(self.groups, -1), each, axis=0)[:, :, None]

    def store(self, kernel: np.ndarray) -> None:
        """Replace the weights."""
        value = self.node.inputs[1]
        assert value is not None
        shape = value.const_value.shape.numpy()  # type: ignore[union-attr]
        put(value, kernel[:, :, 0].T if _is_transposed(self.node) else kernel.reshape(shape))

    @property
    def bias(self) -> np.ndarray | None:
        """One number per output channel; None where there is none that may be changed."""
        value = self.node.inputs[2] if len(self.node.inputs) > 2 else None
        if not _is_own(value) or value.const_value.size != self.kernel.shape[0]:  # type: ignore[union-attr]
            return None
        return value.const_value.numpy().astype(np.float64).reshape(-1)  # type: ignore[union-attr]

    def store_bias(self, bias: np.ndarray) -> None:
        value = self.node.inputs[2]
        assert value is not None
        put(value, bias.reshape(value.const_value.shape.numpy()))  # type: ignore[union-attr]


def layer(node: ir.Node) -> Layer | None:
    """The node as a layer, or None where it is none or its weights are computed, shared or not float32."""
    if node.op_type not in ("Conv", "Gemm") or not _is_own(node.inputs[1]):
        return None
    if node.inputs[0] is None or node.inputs[0].const_value is not None:
        return None
    scaled = any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta"))
    if node.op_type == "Gemm" and (scaled or node.attributes.get_int("transA", 0) != 0):
        return None
    weights = node.inputs[1].const_value.numpy().astype(np.float64)  # type: ignore[union-attr]
    weights = weights.T if _is_transposed(node) else weights
    return Layer(node, weights.reshape(*weights.shape[:2], -1), node.attributes.get_int("group", 1))


def rounded(kernel: np.ndarray) -> np.ndarray:
    """The kernel as both quantizers round it: symmetric int8, one scale per output channel."""
    step = steps(kernel)
    return np.round(kernel / step) * step


def steps(kernel: np.ndarray) -> np.ndarray:
    """The step of each output channel, broadcast to the form of the kernel: its largest weight is 127 of them."""
    return np.maximum(np.abs(kernel).max((1, 2), keepdims=True), 1e-12) / 127


def put(value: ir.Value, array: np.ndarray) -> None:
    """Give an initializer another content of the same shape, in float32."""
    value.const_value = ir.tensor(np.asarray(array, np.float32, order="C"), name=value.name)


def _is_own(value: ir.Value | None) -> bool:
    """A float32 initializer that one node uses, and no caller can replace."""
    if value is None or value.const_value is None or value.dtype != ir.DataType.FLOAT:
        return False
    return not value.is_graph_input() and not value.is_graph_output() and len(value.uses()) == 1


def _is_transposed(node: ir.Node) -> bool:
    return node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 0
