"""What an inspection finds, for every format alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.contract import TensorSpec


@dataclass(frozen=True)
class WeightCount:
    """All weights of one dtype: how many tensors, numbers and bytes."""

    tensors: int
    elements: int
    bytes: int


@dataclass(frozen=True)
class Inspection:
    """What is in a model file.

    Args:
        file: Its name.
        format: `onnx`, `tflite`, `ort`, `keras`, `h5`, `saved_model`, `pt2`, `torchscript` or `pickle`.
        bytes: Its size, external weights included.
        inputs, outputs: Empty where the format does not say (TorchScript has names only, a pickle nothing).
        operators: Operators (layers in a Keras file, calls in TorchScript) and how often each is written in the file.
        weights: By dtype.
        precision: One of `edgekit.quantize.PRECISIONS`, another dtype's name, or `unknown`.
        notes: What the reader could not say, or must warn of.
    """

    file: str
    format: str
    bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: Mapping[str, int]
    weights: Mapping[str, WeightCount]
    precision: str
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Numbers in all weights."""
        return sum(count.elements for count in self.weights.values())

    def to_json(self) -> dict[str, Any]:
        """What `edgekit inspect --json` prints (docs/inspect.md)."""
        specs = {
            side: [{"name": s.name, "shape": list(s.shape), "dtype": s.dtype} for s in getattr(self, side)]
            for side in ("inputs", "outputs")
        }
        weights = {dtype: dict(vars(count)) for dtype, count in self.weights.items()}
        return {**vars(self), **specs, "weights": weights, "parameters": self.parameters, "notes": list(self.notes)}


def count_operators(names: Iterable[str]) -> dict[str, int]:
    """The most frequent first, then by name."""
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def count_weights(weights: Iterable[tuple[str, int, int]]) -> dict[str, WeightCount]:
    """Sum up (dtype, elements, bytes), the largest dtype first."""
    totals: dict[str, tuple[int, int, int]] = {}
    for dtype, elements, size in weights:
        tensors, n, b = totals.get(dtype, (0, 0, 0))
        totals[dtype] = (tensors + 1, n + elements, b + size)
    return {dtype: WeightCount(*total) for dtype, total in sorted(totals.items(), key=lambda item: (-item[1][1], item[0]))}


def name_precision(weights: Mapping[str, WeightCount], *, activations: str | None = None, four_bits: bool | None = None) -> str:
    """The precision that most weights have. Index tables (int32, int64) are not weights.

    Args:
        weights: By dtype.
        activations: What integer weights are multiplied by: `int8` or `int16` with fixed scales, `dynamic` with scales that are
            found in each run; None where they are expanded to float.
        four_bits: Whether integer weights are in 4 bits; by default, where that is their dtype.
    """
    kinds = [dtype for dtype in weights if dtype not in ("int32", "int64", "bool", "string")]
    if not kinds:
        return "unknown"
    if kinds[0] == "int16" and activations == "int16":
        return "int16x8"
    if kinds[0] not in ("int8", "uint8", "int4", "uint4"):
        return {"float32": "fp32", "float16": "fp16"}.get(kinds[0], kinds[0])
    if activations in ("int8", "int16"):
        return {"int8": "int8", "int16": "int16x8"}[activations]
    if not {"int4", "uint4"}.isdisjoint(kinds) if four_bits is None else four_bits:
        return "int4-weights"
    return "int8-dynamic" if activations == "dynamic" else "int8-weights"
