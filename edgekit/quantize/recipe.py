"""How to quantize, as data: what `export` decides unless it is told, and writes down so that it can be edited and passed back."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from edgekit.errors import InputError

RANGES = ("auto", "minmax", "moving-average", "percentile", "mse", "entropy")
WHEN = ("auto", "always", "never")
LAYER_PRECISIONS = ("int8", "int16x8", "float")
INT8 = "int8"
FLOAT = "float"

_ABOUT = {
    "samples": "Calibrate on at most this many samples, evenly spaced over the calibration set.",
    "ranges": "How the range of an activation is found: " + ", ".join(RANGES) + ".",
    "equalize": "Scale the channels of activations towards one range: auto (where it helps on samples held back), always, never.",
    "absorb_biases": "Move what a channel never falls below into the next layer's bias.",
    "round_weights": "Round weights by what they are multiplied with, not each to the nearest step.",
    "correct_biases": "Make up for the mean error of each layer in its bias.",
    "reduce_range": "7-bit weights, for x86 processors without VNNI whose int8 kernels saturate. Never needed on ARM.",
    "layers": "What is not int8: the name of the value that a node makes = int8, int16x8 or float. A * stands for anything; "
    "a later line goes over an earlier one.",
}


@dataclass(frozen=True)
class Recipe:
    """Choices of int8 quantization; the defaults are what edgekit measures its models with.

    Args:
        samples: Calibrate on at most this many feeds, evenly spaced over the calibration set.
        ranges: How the range of an activation is found, see `edgekit.quantize.ranges`. `auto` takes for each value the way of
            least squared error on samples held back, and the extremes for all where that does not help the outputs.
        equalize: Whether channels are scaled across layers. `auto` does so where it helps on samples held back.
        absorb_biases: Whether a channel's least value moves from one bias into the next.
        round_weights: Whether weights are rounded by the covariance of what they are multiplied with.
        correct_biases: Whether biases make up for the mean error of rounding.
        reduce_range: 7-bit weights (ONNX Runtime).
        layers: Precision by name, or pattern with `*`, of the value that a node of the hub graph makes.
    """

    samples: int = 256
    ranges: str = "auto"
    equalize: str = "auto"
    absorb_biases: bool = True
    round_weights: bool = True
    correct_biases: bool = True
    reduce_range: bool = False
    layers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError(f"calibration needs at least one sample, not {self.samples}", fix="set samples to 128 or more")
        for name, choices in (("ranges", RANGES), ("equalize", WHEN)):
            given = getattr(self, name)
            if given not in choices:
                raise InputError(f"{given!r} is no value of {name} in a recipe", fix="use one of " + ", ".join(choices))
        for name, precision in self.layers.items():
            if precision not in LAYER_PRECISIONS:
                fix = "use one of " + ", ".join(LAYER_PRECISIONS)
                raise InputError(f"{precision!r} is no precision of a layer", where=f"recipe, layer {name}", fix=fix)

    def precision_of(self, name: str) -> str:
        """In what the node that makes the value of this name computes: one of `LAYER_PRECISIONS`."""
        found = INT8
        for pattern, precision in self._patterns:
            if pattern.fullmatch(name):
                found = precision
        return found

    def keeps(self, name: str) -> bool:
        """Whether the node that makes the value of this name stays in float."""
        return self.precision_of(name) == FLOAT

    def with_layers(self, layers: Mapping[str, str]) -> Recipe:
        """The recipe with other precisions of layers."""
        return replace(self, layers=dict(layers))

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], str]]:
        return [
            (re.compile(".*".join(re.escape(part) for part in name.split("*")), re.DOTALL), precision)
            for name, precision in self.layers.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the order of the fields."""
        return asdict(self)

    def to_toml(self) -> str:
        """A file that `from_toml` reads, with a sentence on each choice."""
        lines = ["# How edgekit quantized; edit it and pass it back with --recipe.", ""]
        for name, value in self.to_json().items():
            lines.append(f"# {_ABOUT[name]}")
            if isinstance(value, Mapping):
                lines += [f"[{name}]", *(f"{_toml(key)} = {_toml(precision)}" for key, precision in value.items())]
            else:
                lines += [f"{name} = {_toml(value)}", ""]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str, where: str = "recipe") -> Recipe:
        """Read what `to_toml` wrote. What is left out has its default.

        Raises:
            InputError: It is not TOML, or says something that a recipe does not have.
        """
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"the recipe is not TOML: {error}", where=where, fix="correct that line") from None
        known = {f.name: f for f in fields(cls)}
        for name, value in document.items():
            if name not in known:
                raise InputError(f"a recipe has no {name!r}", where=where, fix="it has " + ", ".join(known))
            want = type(getattr(cls(), name))
            if type(value) is not want:
                raise InputError(f"{name} is {value!r}, and should be of the type {want.__name__}", where=where, fix=_ABOUT[name])
        try:
            return cls(**document)
        except InputError as error:
            raise InputError(error.what, where=error.where or where, fix=error.fix) from None


def load_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe file.

    Raises:
        InputError: The file cannot be read, or is no recipe.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the recipe cannot be read: {error}", where=os.fspath(path), fix="give a file that export wrote"
        ) from None
    return Recipe.from_toml(text, os.fspath(path))


def _toml(value: Any) -> str:
    """JSON's strings, numbers and booleans are TOML's."""
    return json.dumps(value)
