"""The I/O contract: what a model takes and gives, and how an artifact's tensors relate to its source's.

Everywhere in edgekit, *feeds* and *results* are `dict[str, numpy.ndarray]` keyed by the **source's** tensor names, in the
source's layout. Only a `Binding` knows that an artifact calls a tensor otherwise or holds it in another order of axes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgekit.errors import InputError

Feeds = Mapping[str, np.ndarray]
Results = dict[str, np.ndarray]


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of a model's input or output.

    A dimension is an int, or a str that names a dynamic dimension (`"batch"`). `dtype` is a numpy name (`"float32"`).
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"

    @classmethod
    def parse(cls, text: str) -> TensorSpec:
        """Read `name=1x3x224x224:float32`; the dtype is float32 where it is not given, a scalar is `name=:float32`.

        Raises:
            InputError: The text does not have that form.
        """
        found = re.fullmatch(r"(?P<name>[^=]+)=(?P<shape>[^:]*)(:(?P<dtype>\w+))?", text.strip())
        if not found:
            raise InputError(f"cannot read the input {text!r}", fix="write it as NAME=1x3x224x224:float32")
        shape = tuple(_dimension(part, text) for part in found["shape"].split("x") if found["shape"])
        dtype = found["dtype"] or "float32"
        try:
            np.dtype(dtype)
        except TypeError:
            raise InputError(f"{dtype!r} is not a dtype", where=text, fix="use a numpy name such as float32 or int64") from None
        return cls(found["name"].strip(), shape, dtype)

    def check(self, array: np.ndarray) -> None:
        """Raise InputError unless `array` has this shape and dtype (a dynamic dimension takes any size)."""
        fits = len(array.shape) == len(self.shape) and all(
            isinstance(want, str) or want == have for want, have in zip(self.shape, array.shape, strict=True)
        )
        if not fits or array.dtype != np.dtype(self.dtype):
            have = f"{format_shape(array.shape)}:{array.dtype}"
            raise InputError(
                f"the input {self.name!r} must be {self}, not {have}",
                fix="reshape or convert the data, or re-export with --input",
            )

    def __str__(self) -> str:
        return f"{format_shape(self.shape)}:{self.dtype}"


@dataclass(frozen=True)
class Binding:
    """How one tensor of an artifact relates to the source's tensor.

    `permutation` turns the source's array into the artifact's: `artifact = source.transpose(permutation)`; None where both
    have the same order of axes. `shape` and `dtype` are the artifact's.
    """

    source: str
    artifact: str
    shape: tuple[int | str, ...]
    dtype: str
    permutation: tuple[int, ...] | None = None

    def to_artifact(self, array: np.ndarray) -> np.ndarray:
        """The source's array as the artifact takes it."""
        array = array if self.permutation is None else array.transpose(self.permutation)
        return np.asarray(array, dtype=self.dtype, order="C")  # not ascontiguousarray: it makes a scalar a vector

    def to_source(self, array: np.ndarray) -> np.ndarray:
        """The artifact's array as the source would give it."""
        return array if self.permutation is None else array.transpose(np.argsort(self.permutation))


@dataclass(frozen=True)
class Artifact:
    """One file of a package, still in memory.

    Args:
        file: Its name in the package, `model_int8.tflite`.
        format: `tflite`, `onnx` or `ort`.
        precision: One of `edgekit.quantize.PRECISIONS`, or `auto`.
        data: Its bytes.
        inputs, outputs: One binding per tensor, in the artifact's order.
        notes: What a reader of the report must know (fallbacks taken, operators left in float …).
    """

    file: str
    format: str
    precision: str
    data: bytes
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    notes: tuple[str, ...] = ()


def format_shape(shape: Iterable[int | str]) -> str:
    """`(1, 3, 224, 224)` as `1x3x224x224`; a scalar as `scalar`."""
    return "x".join(str(d) for d in shape) or "scalar"


def _dimension(part: str, text: str) -> int | str:
    if part.isdigit() and int(part) > 0:
        return int(part)
    if part.isidentifier():
        return part
    raise InputError(f"{part!r} is not a dimension", where=text, fix="a dimension is a positive number or a name such as batch")
