"""Parts of a .tflite file that int8 with fixed ranges does not suit, named by the results of their operators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgekit.ort.probe import INFINITE

# What may stand between the last product and the file's output: it takes the product's float results as they are.
_READING = frozenset(
    "EXPAND_DIMS HARD_SWISH LEAKY_RELU LOGISTIC LOG_SOFTMAX RELU RELU6 RESHAPE SLICE SOFTMAX SPLIT SQUEEZE STRIDED_SLICE "
    "TANH".split()
)


class TfliteParts:
    """A .tflite file read for its operators and names."""

    def __init__(self, data: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._model = schema.ModelT.InitFromPackedBuf(data, 0)
        self._names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
        self._float = schema.TensorType.FLOAT32

    def readout(self) -> list[str]:
        """The dense layers whose results are the file's outputs, and what reads them off (SOFTMAX …).

        Their results need no fixed range: the product can give them in float. In 256 steps of its range, the scores of a
        classifier tie or change places where the float ones are close together.
        """
        graph = self._model.subgraphs[0]
        makers = {i: operator for operator in graph.operators for i in operator.outputs}
        found: list[str] = []
        for output in graph.outputs:
            branch: list[str] = []
            maker = makers.get(output)
            while maker is not None and self._kind(maker) in _READING:
                branch += self._results(graph, maker)
                maker = makers.get(maker.inputs[1 if self._kind(maker) == "SPLIT" else 0])
            if maker is not None and self._kind(maker) == "FULLY_CONNECTED":
                found += [*branch, *self._results(graph, maker)]
        return list(dict.fromkeys(found))

    def inside_control_flow(self) -> list[str]:
        """Results of the operators in the bodies of loops and branches: a loop's state is float at its start."""
        return [
            name for graph in self._model.subgraphs[1:] for operator in graph.operators for name in self._results(graph, operator)
        ]

    def beside_infinity(self, ranges: Mapping[str, Any]) -> list[str]:
        """Results of the operators that touch a stand-in for infinity (attention masks): one int8 scale over it would make all
        else zero. `ranges` holds {"min": array, "max": array} by tensor name."""
        found = []
        for graph in self._model.subgraphs:
            infinite = {i for i, tensor in enumerate(graph.tensors) if _is_infinite(ranges.get(tensor.name.decode()))}
            infinite |= {i for i, values in self._constants(graph) if (np.abs(values[np.isfinite(values)]) >= INFINITE).any()}
            for operator in graph.operators:
                if infinite.intersection([*operator.inputs, *operator.outputs]):
                    found += self._results(graph, operator)
        return found

    def has_attention(self) -> bool:
        """Whether a BATCH_MATMUL takes what a SOFTMAX makes."""
        for graph in self._model.subgraphs:
            soft = {i for operator in graph.operators if self._kind(operator) == "SOFTMAX" for i in operator.outputs}
            products = [operator for operator in graph.operators if self._kind(operator) == "BATCH_MATMUL"]
            if any(soft.intersection(operator.inputs) for operator in products):
                return True
        return False

    def _kind(self, operator: Any) -> str:
        code = self._model.operatorCodes[operator.opcodeIndex]
        return self._names[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def _results(self, graph: Any, operator: Any) -> list[str]:
        return [graph.tensors[i].name.decode() for i in operator.outputs]

    def _constants(self, graph: Any) -> Iterator[tuple[int, np.ndarray]]:
        for i, tensor in enumerate(graph.tensors):
            content = self._model.buffers[tensor.buffer].data
            if tensor.type == self._float and content is not None and len(content):
                yield i, np.frombuffer(bytes(content), np.float32)


def _is_infinite(extremes: Mapping[str, Any] | None) -> bool:
    return any(np.abs(array).max() >= INFINITE for end, array in (extremes or {}).items() if end in ("min", "max"))
