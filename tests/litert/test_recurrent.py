"""LSTM, GRU and RNN against onnxruntime: every option, short and long sequences, twice in one interpreter."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit import hub, litert
from edgekit.errors import UnsupportedOperator

from .repeated import Arrays, compiled, runner, worst_error
from .running import relative_error, source_results

BATCH, INPUTS, HIDDEN = 2, 3, 5
SHORT, LONG = 6, 45  # unrolled; a WHILE and the one step that fills no chunk
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Layer:
    """A recurrent layer of fixed weights, as a model of one node."""

    kind: str
    steps: int
    direction: str = "forward"
    attributes: dict[str, Any] = field(default_factory=dict)
    bias: bool = True
    initial: str = ""  # "constant", "input", or none
    lengths: str = ""  # the same, of sequence_lens
    empty: bool = False  # whether one of the sequences has no steps
    peepholes: bool = False
    weights: str = "constant"
    outputs: tuple[str, ...] = ("Y", "Y_h", "Y_c")
    hidden: int = HIDDEN

    def arrays(self) -> Arrays:
        """All inputs of the node but X, by name."""
        noise = np.random.default_rng(1)
        directions = 2 if self.direction == "bidirectional" else 1
        rows = GATES[self.kind] * self.hidden

        def normal(*shape: int) -> np.ndarray:
            return noise.normal(0, self.hidden**-0.5, shape).astype(np.float32)

        made = {"W": normal(directions, rows, INPUTS), "R": normal(directions, rows, self.hidden)}
        if self.bias:
            made["B"] = normal(directions, 2 * rows)
        if self.lengths:
            made["sequence_lens"] = np.array([0 if self.empty else self.steps - 3, self.steps], np.int32)
        if self.initial:
            made["initial_h"] = normal(directions, BATCH, self.hidden)
            if self.kind == "LSTM":
                made["initial_c"] = normal(directions, BATCH, self.hidden)
        if self.peepholes:
            made["P"] = normal(directions, 3 * self.hidden)
        return made

    def model(self) -> onnx.ModelProto:
        directions = 2 if self.direction == "bidirectional" else 1
        arrays, fed = self.arrays(), self.feeds(0)
        slots = ["X", "W", "R", "B", "sequence_lens", "initial_h"] + ["initial_c", "P"] * (self.kind == "LSTM")
        outputs = ["Y", "Y_h"] + ["Y_c"] * (self.kind == "LSTM")
        attributes = {"hidden_size": self.hidden, "direction": self.direction, **self.attributes}
        node = helper.make_node(
            self.kind,
            [name if name == "X" or name in arrays else "" for name in slots],
            [name if name in self.outputs else "" for name in outputs],
            **attributes,
        )
        state = [directions, BATCH, self.hidden]
        kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int32): TensorProto.INT32}
        graph = helper.make_graph(
            [node],
            "layer",
            [helper.make_tensor_value_info(name, kinds[a.dtype], a.shape) for name, a in fed.items()],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [self.steps, *state] if name == "Y" else state)
                for name in outputs
                if name in self.outputs
            ],
            [numpy_helper.from_array(a, name) for name, a in arrays.items() if name not in fed],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    def feeds(self, seed: int) -> Arrays:
        noise = np.random.default_rng(10 + seed)
        made = {"X": noise.normal(size=(self.steps, BATCH, INPUTS)).astype(np.float32)}
        arrays = self.arrays()
        if self.weights == "input":
            made |= {name: arrays[name] for name in ("W", "R", "B")}
        if self.initial == "input":
            states = [name for name in ("initial_h", "initial_c") if name in arrays]
            made |= {name: noise.normal(size=arrays[name].shape).astype(np.float32) for name in states}
        if self.lengths == "input":
            made["sequence_lens"] = np.array([self.steps - seed, 0 if self.empty else 2], np.int32)
        return made

    def error(self) -> float:
        return worst_error(self.model(), [self.feeds(0), self.feeds(1)])


DIRECTIONS = ("forward", "reverse", "bidirectional")


@pytest.mark.parametrize(("kind", "direction", "steps"), [*itertools.product(GATES, DIRECTIONS, (1, SHORT, LONG, 48))])
def test_directions(kind: str, direction: str, steps: int) -> None:
    assert Layer(kind, steps, direction, initial="input").error() < TOLERANCE


@pytest.mark.parametrize(("kind", "steps", "initial"), [*itertools.product(GATES, (SHORT, LONG), ("", "constant"))])
def test_initial_states_that_are_zero_or_constant(kind: str, steps: int, initial: str) -> None:
    assert Layer(kind, steps, "bidirectional", initial=initial, bias=bool(initial)).error() < TOLERANCE


@pytest.mark.parametrize(("kind", "lengths", "direction"), [*itertools.product(GATES, ("constant", "input"), DIRECTIONS)])
@pytest.mark.parametrize("steps", [SHORT, LONG])
def test_sequences_of_different_lengths(kind: str, lengths: str, direction: str, steps: int) -> None:
    assert Layer(kind, steps, direction, lengths=lengths, initial="input").error() < TOLERANCE


@pytest.mark.parametrize(
    ("kind", "lengths", "initial"), [*itertools.product(GATES, ("constant", "input"), ("", "constant", "input"))]
)
def test_the_last_state_of_an_empty_sequence_is_zero(kind: str, lengths: str, initial: str) -> None:
    for steps in (SHORT, LONG):
        assert Layer(kind, steps, "bidirectional", lengths=lengths, initial=initial, empty=True).error() < TOLERANCE


def test_lengths_that_are_all_full_cost_nothing() -> None:
    plain = Layer("LSTM", SHORT)
    masked = plain.model()
    masked.graph.node[0].input[4] = "sequence_lens"
    masked.graph.initializer.append(numpy_helper.from_array(np.full(BATCH, SHORT, np.int32), "sequence_lens"))
    assert compiled(masked).operators == compiled(plain.model()).operators


@pytest.mark.parametrize("steps", [SHORT, LONG])
@pytest.mark.parametrize(
    "options",
    [
        {"kind": "GRU", "attributes": {"linear_before_reset": 1}},
        {"kind": "GRU", "attributes": {"linear_before_reset": 1}, "bias": False},
        {"kind": "GRU", "attributes": {"clip": 0.4}},
        {"kind": "LSTM", "attributes": {"input_forget": 1}},
        {"kind": "LSTM", "peepholes": True},
        {"kind": "LSTM", "peepholes": True, "initial": "input", "attributes": {"clip": 0.4}},
        {"kind": "RNN", "attributes": {"clip": 0.4}},
    ],
    ids=str,
)
def test_options(options: dict[str, Any], steps: int) -> None:
    layer = Layer(**{"steps": steps, "direction": "bidirectional", **options})
    assert layer.error() < TOLERANCE


@pytest.mark.parametrize(
    ("names", "parameters"),
    [
        (["Relu", "Softsign"], {}),
        (["HardSigmoid", "Tanh"], {"activation_alpha": [1 / 6], "activation_beta": [0.5]}),
        (["HardSigmoid", "LeakyRelu"], {}),
        (["Affine", "ScaledTanh"], {"activation_alpha": [0.3, 1.2], "activation_beta": [0.1, 0.7]}),
        (["Softplus", "Elu"], {"activation_alpha": [1.0]}),
    ],
    ids=str,
)
def test_activations(names: list[str], parameters: dict[str, list[float]]) -> None:
    assert Layer("GRU", SHORT, attributes={"activations": names, **parameters}).error() < TOLERANCE


def test_an_activation_without_a_lowering_is_refused_by_name() -> None:
    layer = Layer("RNN", SHORT, attributes={"activations": ["ThresholdedRelu"]})
    with pytest.raises(UnsupportedOperator, match="thresholdedrelu") as caught:
        compiled(layer.model())
    assert "activations" in str(caught.value.where)


@pytest.mark.parametrize(("kind", "steps"), [*itertools.product(GATES, (SHORT, LONG))])
def test_weights_that_are_computed(kind: str, steps: int) -> None:
    assert Layer(kind, steps, "bidirectional", weights="input").error() < TOLERANCE


@pytest.mark.parametrize("outputs", [("Y",), ("Y_h",), ("Y_c",), ("Y_h", "Y_c")], ids=" ".join)
@pytest.mark.parametrize("steps", [SHORT, LONG])
def test_outputs_that_are_used(outputs: tuple[str, ...], steps: int) -> None:
    assert Layer("LSTM", steps, outputs=outputs).error() < TOLERANCE


def test_without_its_sequence_a_loop_keeps_no_buffer() -> None:
    assert "DYNAMIC_UPDATE_SLICE" in compiled(Layer("LSTM", LONG).model()).operators
    assert "DYNAMIC_UPDATE_SLICE" not in compiled(Layer("LSTM", LONG, outputs=("Y_h",)).model()).operators


@pytest.mark.parametrize(("kind", "steps"), [*itertools.product(GATES, (SHORT, LONG))])
def test_batch_in_front(kind: str, steps: int) -> None:
    """onnxruntime has no layout 1; it is layout 0 with the axes exchanged."""
    layer = Layer(kind, steps, "bidirectional", initial="input", lengths="constant")
    feeds = [layer.feeds(0), layer.feeds(1)]
    plain = [source_results(layer.model(), fed) for fed in feeds]
    exchanged = layer.model()
    exchanged.graph.node[0].attribute.append(helper.make_attribute("layout", 1))
    for value in (*exchanged.graph.input, *exchanged.graph.output):
        dims = value.type.tensor_type.shape.dim
        sizes = [d.dim_value for d in dims]
        order = (2, 0, 1, 3) if value.name == "Y" else (1, 0, 2)
        for dim, axis in zip(dims, order, strict=True):
            dim.dim_value = sizes[axis]
    expected = [
        {name: np.transpose(a, (2, 0, 1, 3) if name == "Y" else (1, 0, 2)) for name, a in results.items()} for results in plain
    ]
    moved = [{name: a.swapaxes(0, 1) for name, a in fed.items()} for fed in feeds]
    assert worst_error(exchanged, moved, expected) < TOLERANCE


@pytest.mark.parametrize(("kind", "steps"), [*itertools.product(GATES, (SHORT, LONG))])
def test_a_dynamic_batch(kind: str, steps: int) -> None:
    """The batch that the artifact was compiled with is a name; it runs on the size that comes."""
    layer = Layer(kind, steps, "bidirectional")
    source = layer.model()
    for value in (*source.graph.input, *source.graph.output):
        value.type.tensor_type.shape.dim[1 if value.name == "X" else -2].dim_param = "batch"
    run = runner(compiled(source))
    for size in (2, 1, 4):
        fed = {"X": np.random.default_rng(size).normal(size=(steps, size, INPUTS)).astype(np.float32)}
        results, made = source_results(source, fed), run(fed)
        assert max(relative_error(results[name], made[name]) for name in results) < TOLERANCE


def test_a_dynamic_length_is_refused() -> None:
    source = Layer("LSTM", SHORT).model()
    source.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "steps"
    source.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "steps"
    with pytest.raises(UnsupportedOperator, match="length of its sequence is dynamic"):
        compiled(source)


def test_half_precision_weights() -> None:
    layer = Layer("LSTM", LONG, "bidirectional", initial="input", hidden=16)
    artifact = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(layer.model())), precision="fp16")
    fed = layer.feeds(0)
    results, made = source_results(layer.model(), fed), runner(artifact)(fed)
    assert max(relative_error(results[name], made[name]) for name in results) < 2e-3


@pytest.mark.parametrize(("hidden", "products"), [(64, 12), (96, 3), (128, 2), (192, 1)])
def test_large_weights_are_not_copied_for_every_step(hidden: int, products: int) -> None:
    """XNNPACK packs the weights of each FULLY_CONNECTED; the more there are, the fewer steps an iteration does."""
    layer = Layer("LSTM", 12, hidden=hidden, initial="input", outputs=("Y_h",))
    operators = compiled(layer.model()).operators
    assert ("WHILE" in operators) == (products < 12)
    assert operators["FULLY_CONNECTED"] == products + 1
    assert layer.error() < TOLERANCE
