"""A .tflite file read for its operators: which of them int8 with fixed ranges does not suit, and what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from edgekit.inspect.tflite_file import operator_name
from edgekit.ort.probe import INFINITE

# What may stand between the last product and the file's output: it takes the product's float results as they are.
_READING = frozenset(
    "EXPAND_DIMS HARD_SWISH LEAKY_RELU LOGISTIC LOG_SOFTMAX MAXIMUM MINIMUM RELU RELU6 RESHAPE SLICE SOFTMAX SPLIT SQUEEZE "
    "STRIDED_SLICE TANH".split()
)

# The quantizer's Quantize and Dequantize operators, and those that carry no arithmetic, are not "in float".
_NOT_ARITHMETIC = ("QUANTIZE", "DEQUANTIZE", "CAST", "SHAPE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "IF", "WHILE", "CALL_ONCE")

# The operators whose weights make the size of a model.
_WEIGHTED = (
    "BATCH_MATMUL",
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "EMBEDDING_LOOKUP",
    "FULLY_CONNECTED",
    "GATHER",
    "TRANSPOSE_CONV",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
)


# Operators that XNNPACK bounds the rescaling of.
_RESCALING = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_LARGEST_RESCALING = 256.0


@dataclass(frozen=True)
class Part:
    """An operator.

    Args:
        kind: Its name, such as CONV_2D.
        code: The builtin operator's number.
        takes, makes: The names of its operands (without those that are left out) and of its results.
        subgraph: Which subgraph it is in; 0 is the model itself, others are bodies of loops and branches.
    """

    kind: str
    code: int
    takes: tuple[str, ...]
    makes: tuple[str, ...]
    subgraph: int

    @property
    def name(self) -> str:
        """What the operator is known by: its first result, or its first operand where it has no result."""
        return next(iter((*self.makes, *self.takes)), "")


class TfliteParts:
    """A .tflite file, parsed once. Every tensor has a name of its own, as edgekit's compiler writes them."""

    def __init__(self, data: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.data = data
        self._model = schema.ModelT.InitFromPackedBuf(data, 0)
        self._types = schema.TensorType
        self._tensors = {tensor.name.decode(): tensor for graph in self._model.subgraphs for tensor in graph.tensors}
        self.operators = tuple(
            self._part(graph, i, operator) for i, graph in enumerate(self._model.subgraphs) for operator in graph.operators or []
        )

    def is_quantized(self) -> bool:
        """Whether any tensor holds integers that stand for other numbers, beside weights that are expanded before their use."""
        expanded = {name for part in self.operators if part.kind == "DEQUANTIZE" for name in part.takes if self.is_constant(name)}
        return any(_has_scales(tensor) for name, tensor in self._tensors.items() if name not in expanded)

    def beyond_rescaling(self) -> list[str]:
        """The operators with int8 weights whose sums must grow too much to become their results, by name.

        XNNPACK takes input scale x weight scale / output scale below 256 only: channels a million times apart in size, which the
        next layer brings together again, are beyond that.
        """
        found = []
        for part in self.operators:
            scales = [self._scales(name) for name in (*part.takes[:2], *part.makes[:1])]
            if part.kind in _RESCALING and len(scales) == 3 and all(each.size for each in scales):
                taken, weights, made = (float(each.max()) for each in scales)
                found += [part.name] if taken * weights / made >= _LARGEST_RESCALING else []
        return found

    def _scales(self, name: str) -> np.ndarray:
        quantization = self._tensors[name].quantization
        return np.asarray([] if quantization is None or quantization.scale is None else quantization.scale)

    def readout(self) -> set[str]:
        """The dense layers whose results are the file's outputs, and what reads them off (SOFTMAX …), by name.

        Their results need no fixed range: the product can give them in float. In 256 steps of its range, the scores of a
        classifier tie or change places where the float ones are close together.
        """
        graph = self._model.subgraphs[0]
        makers = {name: part for part in self.operators if part.subgraph == 0 for name in part.makes}
        found: set[str] = set()
        for output in graph.outputs:
            branch: set[str] = set()
            maker = makers.get(graph.tensors[output].name.decode())
            while maker is not None and maker.kind in _READING:
                branch.add(maker.name)
                maker = makers.get(maker.takes[1 if maker.kind == "SPLIT" else 0])
            if maker is not None and maker.kind == "FULLY_CONNECTED":
                found |= {*branch, maker.name}
        return found

    def beside_infinity(self, ranges: Mapping[str, Any]) -> set[str]:
        """The operators that touch a stand-in for infinity (attention masks), by name: one int8 scale over it would make all
        else zero. `ranges` holds {"min": array, "max": array} by tensor name."""
        infinite = self._infinite_constants | {name for name, extremes in ranges.items() if _is_infinite(extremes)}
        return {part.name for part in self.operators if not infinite.isdisjoint((*part.takes, *part.makes))}

    @cached_property
    def has_attention(self) -> bool:
        """Whether a BATCH_MATMUL takes what a SOFTMAX makes."""
        soft = {name for part in self.operators if part.kind == "SOFTMAX" for name in part.makes}
        return any(part.kind == "BATCH_MATMUL" and not soft.isdisjoint(part.takes) for part in self.operators)

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds float32 numbers that are no constants."""
        return self._tensors[name].type == self._types.FLOAT32 and not self.is_constant(name)

    def is_constant(self, name: str) -> bool:
        """Whether a tensor comes with the file."""
        return content(self._model.buffers[self._tensors[name].buffer], self.data) is not None

    def constant(self, name: str) -> np.ndarray | None:
        """The numbers of a float32 constant, flat; None where there is no such constant."""
        if name not in self._tensors or self._tensors[name].type != self._types.FLOAT32:
            return None
        held = content(self._model.buffers[self._tensors[name].buffer], self.data)
        return None if held is None else held.view(np.float32)

    def counts(self) -> dict[str, int]:
        """How many of each operator the file has."""
        return dict(sorted(Counter(part.kind for part in self.operators).items()))

    def in_float(self, precision: str) -> dict[str, int]:
        """How many of each operator that could be in `precision` compute in float, by kind."""

        def is_float(part: Part) -> bool:
            if precision == "int8-dynamic":  # activations always are
                return part.kind in _WEIGHTED and self._has_float_weights(part)
            return part.kind not in _NOT_ARITHMETIC and self._computes_in_float(part)

        return dict(sorted(Counter(part.kind for part in self.operators if is_float(part)).items()))

    def _has_float_weights(self, part: Part) -> bool:
        weights = [name for name in part.takes if self.is_constant(name) and len(self._shape(name)) >= 2]
        return any(self._tensors[name].type == self._types.FLOAT32 for name in weights)

    def _computes_in_float(self, part: Part) -> bool:
        """The first result and all operands are float."""
        integers = any(self._tensors[name].type in (self._types.INT8, self._types.INT16) for name in part.takes)
        return self._tensors[part.makes[0]].type == self._types.FLOAT32 and not integers

    @cached_property
    def _infinite_constants(self) -> set[str]:
        return {name for name in self._tensors if self.is_constant(name) and self._holds_infinity(name)}

    def _holds_infinity(self, name: str) -> bool:
        values = self.constant(name)
        return values is not None and bool((np.abs(values[np.isfinite(values)]) >= INFINITE).any())

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = self._tensors[name].shape
        return () if shape is None else tuple(shape)

    def _part(self, graph: Any, subgraph: int, operator: Any) -> Part:
        code = self._model.operatorCodes[operator.opcodeIndex]
        takes, makes = (
            tuple(graph.tensors[i].name.decode() for i in side if i >= 0) for side in (operator.inputs, operator.outputs)
        )
        return Part(
            operator_name(self._model, operator), max(code.builtinCode, code.deprecatedBuiltinCode), takes, makes, subgraph
        )


def content(buffer: Any, data: bytes | bytearray) -> np.ndarray | None:
    """The bytes of a `schema.BufferT`, as a view; None where it has none. In a large file they lie behind the flatbuffer."""
    if buffer.data is not None and len(buffer.data) > 0:
        return buffer.data
    return np.frombuffer(data, np.uint8, buffer.size, buffer.offset) if (buffer.offset or 0) > 1 else None


def _has_scales(tensor: Any) -> bool:
    found = tensor.quantization
    return found is not None and found.scale is not None and len(found.scale) > 0


def _is_infinite(extremes: Mapping[str, Any] | None) -> bool:
    return any(np.abs(array).max() >= INFINITE for end, array in (extremes or {}).items() if end in ("min", "max"))
