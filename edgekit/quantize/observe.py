"""Calibration: what range each value of the hub graph takes on real inputs. Once, for both runtimes.

    samples, one by one → extremes, moving averages, histograms → a range for each value

One pass, and memory for one sample and one histogram per value, however many samples there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.ort.probe import INFINITE
from edgekit.quantize.histogram import Histogram

if TYPE_CHECKING:
    import onnx

    from edgekit.contract import Feeds

# Elements of each value that a pass over the data counts in all, and of each sample at most and at least.
COUNTED = 5_000_000
MOST, LEAST = 20_000, 500
# Samples that tell the ranges of values which only one runtime's graph has.
FEW = 64
# How much of a moving average the next sample replaces; ai-edge-quantizer's default.
_NEXT = 0.05


@dataclass
class Observed:
    """Of one value over all samples: what ranges are made of."""

    histogram: Histogram
    average_low: float = 0.0
    average_high: float = 0.0

    @property
    def extremes(self) -> tuple[float, float]:
        """The smallest and the largest value, zero among them."""
        return self.histogram.low, self.histogram.high

    def to_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """What `of_arrays` takes: six numbers, and the counts."""
        numbers, counts = self.histogram.to_arrays()
        return np.array([*numbers, self.average_low, self.average_high]), counts

    @classmethod
    def of_arrays(cls, numbers: np.ndarray, counts: np.ndarray) -> Observed:
        """What gave these."""
        return cls(Histogram.of_arrays(numbers, counts), float(numbers[4]), float(numbers[5]))


def observe(
    model: onnx.ModelProto,
    feeds: Sequence[Feeds],
    only: set[str] | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> dict[str, Observed]:
    """Watch every float32 value that an int8 runtime holds, or `only` those, on all samples.

    A value that a Relu or Clip takes at once is not held. Values that are infinite, not a number, or large enough to stand for
    infinity (1e9) on any sample have no range, and are not in the result.

    Each sample counts by one over the value's mean square in it, so that squared errors are relative to what they disturb.
    Counted alike, one picture of CIFAR-10 whose activations reach 230 would set the steps for a thousand that stay below 60.

    Args:
        model: The graph.
        feeds: Real inputs; read one by one.
        only: Names of values.
        tell: Told how many samples are done, and how many there are.
    """
    from edgekit.quantize.simulate import held_values
    from edgekit.quantize.statistics import runs

    wanted = held_values(model) if only is None else only
    each = int(np.clip(COUNTED // max(len(feeds), 1), LEAST, MOST))
    found: dict[str, Observed] = {}
    infinite: set[str] = set()
    for sample, values in enumerate(runs(model, feeds, wanted)):
        if tell:
            tell(sample, len(feeds))
        for name in values.keys() & wanted - infinite:
            array = values[name]
            low, high = float(array.min(initial=0.0)), float(array.max(initial=0.0))
            if not max(-low, high) < INFINITE:
                infinite.add(name)
                continue
            elements = array.reshape(-1)[:: array.size // each | 1]
            weight = 1 / max(float(np.square(elements).mean(dtype=np.float64)), 1e-30) if array.size else 0.0
            value = found.get(name)
            if value is None:
                value = found[name] = Observed(Histogram(), low, high)
            value.average_low += _NEXT * (low - value.average_low)
            value.average_high += _NEXT * (high - value.average_high)
            value.histogram.add(elements, low, high, weight, held=sample % 4 == 3)
    return {name: value for name, value in found.items() if name not in infinite}
