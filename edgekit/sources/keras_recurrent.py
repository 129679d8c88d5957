"""Keras LSTM and GRU layers as ONNX LSTM and GRU operators.

Keras 3 traces a recurrent layer into a TensorFlow While loop. tf2onnx looks for the pattern of a cell in the loop's body and
finds it for an LSTM with the usual activations and an open batch alone; everything else would arrive as an ONNX Loop, which no
mobile runtime runs well and no quantizer reads. So while a model is traced, each layer that an ONNX operator can express puts one
marker (a PyFunc that is never called) in place of its loop, and tf2onnx is told to write the operator for it:

    before   x ─► While(MatMul, Split, Sigmoid, Tanh, Mul, Add …) ─► y
    after    x ─► Transpose ─► LSTM(W, R, B, h0, c0) ─► Squeeze ─► Transpose ─► y

Every other recurrent layer (SimpleRNN, ConvLSTM, own cells, masked sequences, activations that ONNX has not) is unrolled into
its steps, which needs a fixed number of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.errors import SourceError
from edgekit.sources.tensorflow_graph import import_tensorflow

LSTM_GATES = (0, 3, 1, 2)
"""Keras keeps the gates as i f c o, ONNX as i o f c. Both keep those of a GRU as z r h."""

ACTIVATIONS: dict[str, tuple[str, float, float]] = {
    "sigmoid": ("Sigmoid", 0.0, 0.0),
    "tanh": ("Tanh", 0.0, 0.0),
    "relu": ("Relu", 0.0, 0.0),
    "hard_sigmoid": ("HardSigmoid", 1 / 6, 0.5),
    "softsign": ("Softsign", 0.0, 0.0),
}
"""By Keras name: the ONNX name, alpha and beta (they count only where the activation has them)."""

Handlers = dict[str, tuple[Callable[..., Any], list[str]]]


@contextlib.contextmanager
def recurrent_operators(model: Any, path: str) -> Iterator[Handlers]:
    """Inside the block, tracing `model` gives markers for its recurrent layers; yields tf2onnx's handler for them.

    Raises:
        SourceError: A layer keeps its state from one call to the next.
    """
    import keras

    changed: list[tuple[Any, str, Any]] = []
    marked: dict[str, _Operator] = {}

    def change(layer: Any, attribute: str, value: Any) -> None:
        changed.append((layer, attribute, layer.__dict__.get(attribute, _ABSENT)))
        object.__setattr__(layer, attribute, value)

    try:
        for layer in model._flatten_layers():
            if getattr(layer, "stateful", False) and isinstance(layer, keras.layers.RNN):
                raise SourceError(
                    f"the layer {layer.name!r} keeps its state between calls",
                    where=path,
                    fix="save the model with stateful=False, its states as inputs and outputs",
                )
            if type(layer) in (keras.layers.LSTM, keras.layers.GRU) and _expressible(layer):
                token = f"edgekit_recurrent_{len(marked)}"
                marked[token] = _Operator(type(layer).__name__, layer.name, _onnx_weights(layer), _attributes(layer))
                change(layer, "use_cudnn", False)
                change(layer, "inner_loop", _Marker(layer, token))
            elif hasattr(layer, "unroll"):
                change(layer, "unroll", True)
        yield {"PyFunc": (_Writer(marked), [])} if marked else {}
    finally:
        for layer, attribute, value in reversed(changed):
            if value is _ABSENT:
                object.__delattr__(layer, attribute)
            else:
                object.__setattr__(layer, attribute, value)


_ABSENT = object()


@dataclass(frozen=True)
class _Operator:
    """An ONNX LSTM or GRU, but for its inputs. Read from the layer before tracing, while its variables have values."""

    kind: str
    layer: str
    weights: dict[str, np.ndarray]
    attributes: dict[str, Any]


def _expressible(layer: Any) -> bool:
    return all(_name(activation) in ACTIVATIONS for activation in (layer.cell.activation, layer.cell.recurrent_activation))


def _name(activation: Any) -> str:
    return getattr(activation, "__name__", type(activation).__name__)


@dataclass(frozen=True)
class _Marker:
    """Stands in for `RNN.inner_loop` of one layer."""

    layer: Any
    token: str

    def __call__(self, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> tuple[Any, Any, list[Any]]:
        tensorflow = import_tensorflow()
        if mask is not None:  # ONNX knows lengths, which a mask with holes or padding in front is not
            return _unrolled(self.layer, sequences, initial_state, mask)
        batch, steps, _ = sequences.shape
        units = self.layer.cell.units
        results = tensorflow.raw_ops.PyFunc(
            input=[sequences, *initial_state], token=self.token, Tout=[tensorflow.float32] * (1 + len(initial_state))
        )
        outputs = tensorflow.ensure_shape(results[0], [batch, steps, units])
        states = [tensorflow.ensure_shape(state, [batch, units]) for state in results[1:]]
        if self.layer.go_backwards and self.layer.return_sequences:
            outputs = tensorflow.reverse(outputs, [1])  # ONNX gives them in the order of time, Keras as they were computed
        return states[0], outputs, states


def _unrolled(layer: Any, sequences: Any, initial_state: Any, mask: Any) -> tuple[Any, Any, list[Any]]:
    unroll = layer.unroll
    object.__setattr__(layer, "unroll", True)
    try:
        return type(layer).inner_loop(layer, sequences, initial_state, mask)
    finally:
        object.__setattr__(layer, "unroll", unroll)


@dataclass(frozen=True)
class _Writer:
    """The tf2onnx handler: a marker becomes its layer's ONNX operator (ONNX LSTM-14, GRU-14)."""

    operators: dict[str, _Operator]

    def __call__(self, ctx: Any, node: Any, name: str, args: list[str]) -> None:
        operator = self.operators[node.get_attr_str("token")]
        sequences, *states = node.input
        results, shapes, dtypes = list(node.output), list(node.output_shapes), list(node.output_dtypes)
        ctx.remove_node(node.name)
        scope = name.rpartition("/")[0] or operator.layer

        def constant(role: str, value: np.ndarray) -> str:
            return ctx.make_const(f"{scope}/{role}", value).output[0]

        first, second = constant("axis_0", np.array([0], np.int64)), constant("axis_1", np.array([1], np.int64))
        over_time = ctx.make_node("Transpose", [sequences], attr={"perm": [1, 0, 2]}).output[0]
        initial = [ctx.make_node("Unsqueeze", [state, first]).output[0] for state in states]
        recurrent = ctx.make_node(
            operator.kind,
            [over_time, *(constant(role, value) for role, value in operator.weights.items()), "", *initial],
            attr=operator.attributes,
            output_count=len(results),
            name=f"{scope}/{operator.kind}",
        )
        squeezed = ctx.make_node("Squeeze", [recurrent.output[0], second]).output[0]
        ctx.make_node("Transpose", [squeezed], {"perm": [1, 0, 2]}, outputs=[results[0]], shapes=shapes[:1], dtypes=dtypes[:1])
        for index, state in enumerate(recurrent.output[1:], start=1):
            ctx.make_node("Squeeze", [state, first], outputs=[results[index]], shapes=[shapes[index]], dtypes=[dtypes[index]])


def _onnx_weights(layer: Any) -> dict[str, np.ndarray]:
    """W `[1, gates·units, inputs]`, R `[1, gates·units, units]` and B `[1, 2·gates·units]`."""
    cell = layer.cell
    gates = LSTM_GATES if hasattr(cell, "unit_forget_bias") else (0, 1, 2)

    def reorder(matrix: np.ndarray) -> np.ndarray:
        parts = np.split(matrix, len(gates), axis=-1)
        return np.concatenate([parts[gate] for gate in gates], axis=-1)

    kernel, recurrent = np.asarray(cell.kernel), np.asarray(cell.recurrent_kernel)
    bias = np.zeros((2, kernel.shape[1]), np.float32)
    if cell.bias is not None:
        given = np.asarray(cell.bias)
        bias[: 1 if given.ndim == 1 else 2] = given
    return {
        "W": np.ascontiguousarray(reorder(kernel).T[None]),
        "R": np.ascontiguousarray(reorder(recurrent).T[None]),
        "B": reorder(bias).reshape(1, -1),
    }


def _attributes(layer: Any) -> dict[str, Any]:
    gate = ACTIVATIONS[_name(layer.cell.recurrent_activation)]
    inner = ACTIVATIONS[_name(layer.cell.activation)]
    lstm = hasattr(layer.cell, "unit_forget_bias")
    used = [gate, inner, inner] if lstm else [gate, inner]
    attributes: dict[str, Any] = {
        "hidden_size": layer.cell.units,
        "direction": "reverse" if layer.go_backwards else "forward",
    }
    if [name for name, _, _ in used[:2]] != ["Sigmoid", "Tanh"]:
        attributes["activations"] = [name for name, _, _ in used]
        attributes["activation_alpha"] = [alpha for name, alpha, _ in used if name == "HardSigmoid"]
        attributes["activation_beta"] = [beta for name, _, beta in used if name == "HardSigmoid"]
        if not attributes["activation_alpha"]:
            del attributes["activation_alpha"], attributes["activation_beta"]
    if not lstm:
        attributes["linear_before_reset"] = int(layer.cell.reset_after)
    return attributes
