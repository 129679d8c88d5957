"""How to quantize, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekit.errors import InputError

RANGES = ("minmax", "percentile", "entropy")


@dataclass(frozen=True)
class Recipe:
    """Choices of int8 quantization; the defaults are what edgekit measures its models with.

    Args:
        samples: Calibrate on at most this many feeds, evenly spaced over the calibration set.
        ranges: How the range of an activation is found (ONNX Runtime artifacts): `minmax` takes all values seen,
            `percentile` leaves out the outermost 0.001 %, `entropy` takes the range of least KL divergence.
        keep_float: Regular expressions; nodes (ONNX Runtime) or output tensors (LiteRT) whose name matches one stay in float.
        reduce_range: 7-bit weights, for x86 processors without VNNI whose int8 kernels saturate. Never needed on ARM.
    """

    samples: int = 256
    ranges: str = "minmax"
    keep_float: tuple[str, ...] = ()
    reduce_range: bool = False

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError(f"calibration needs at least one sample, not {self.samples}", fix="set samples to 128 or more")
        if self.ranges not in RANGES:
            raise InputError(f"{self.ranges!r} is not a way to find ranges", fix="use one of " + ", ".join(RANGES))
        for pattern in self.keep_float:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(f"{pattern!r} is not a regular expression: {error}", fix="correct keep_float") from None

    def keeps(self, name: str) -> bool:
        """Whether the node or tensor of this name stays in float."""
        return any(re.search(pattern, name) for pattern in self.keep_float)
