"""From what was seen of a value to the range that its integers stand for.

A narrower range has finer steps and cuts off the outermost values. Every way of drawing the line is a function here; which serves
a value best is decided by the squared error on samples that the ranges were not made from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgekit.quantize.histogram import Histogram
from edgekit.quantize.observe import Observed

Range = tuple[float, float]

AUTO = "auto"
LEVELS = 256
# The share of all elements that `percentile` leaves out at each end.
_OUTERMOST = 1e-5
_PARTS = np.linspace(0.3, 1.0, 36)


def ranges_of(observed: Mapping[str, Observed], method: str = AUTO) -> dict[str, Range]:
    """The range of each value by one of `METHODS`, or by the one of least error for each (`auto`). Zero is in every range."""
    return {name: _chosen(value) if method == AUTO else METHODS[method](value) for name, value in observed.items()}


def _chosen(value: Observed) -> Range:
    """Of what all methods say, the range of least squared error on the samples held back; the extremes where none were."""
    found = [method(value) for method in METHODS.values()]
    return min(found, key=lambda ends: squared_error(value.histogram, value.histogram.held, *ends))


def squared_error(histogram: Histogram, counts: np.ndarray, low: float, high: float) -> float:
    """Of rounding to the 256 steps from `low` to `high`, over all counts: those between are off by step² / 12 in the mean."""
    step = max(high - low, 1e-30) / (LEVELS - 1)
    beyond = np.maximum(np.maximum(low - histogram.centres, histogram.centres - high), 0.0)
    return float((counts * np.where(beyond > 0, np.square(beyond), step**2 / 12)).sum())


def extremes(value: Observed) -> Range:
    """All that was seen."""
    return value.extremes


def moving_average(value: Observed) -> Range:
    """Averages of the samples' extremes, the later ones weighing more."""
    return min(value.average_low, 0.0), max(value.average_high, 0.0)


def percentile(value: Observed) -> Range:
    """All but the outermost 0.001 % at each end."""
    histogram = value.histogram
    shares = np.cumsum(histogram.seen, dtype=np.float64)
    if not shares[-1]:
        return value.extremes
    begin = np.searchsorted(shares, _OUTERMOST * shares[-1])
    end = np.searchsorted(shares, (1 - _OUTERMOST) * shares[-1])
    half = histogram.width / 2
    low, high = histogram.centres[begin] - half, histogram.centres[min(end, len(shares) - 1)] + half
    return max(histogram.low, min(float(low), 0.0)), min(histogram.high, max(float(high), 0.0))


def least_error(value: Observed) -> Range:
    """The least squared error. Both ends are tried in turn, from the extremes inwards."""
    histogram = value.histogram
    return _narrowed(value.extremes, lambda low, high: squared_error(histogram, histogram.seen, low, high))


def entropy(value: Observed) -> Range:
    """The least information lost: Kullback-Leibler divergence of the rounded distribution from the seen one."""
    histogram = value.histogram
    return _narrowed(value.extremes, lambda low, high: _divergence(histogram, low, high), rounds=1)


METHODS: dict[str, Callable[[Observed], Range]] = {
    "minmax": extremes,
    "moving-average": moving_average,
    "percentile": percentile,
    "mse": least_error,
    "entropy": entropy,
}


def _narrowed(ends: Range, error: Callable[[float, float], float], rounds: int = 2) -> Range:
    low, high = ends
    begin, end, best = low, high, error(low, high)
    for _ in range(rounds):
        for at_end in (True, False):
            for part in _PARTS:
                tried = (begin, float(high * part)) if at_end else (float(low * part), end)
                found = error(*tried)
                if found < best:
                    best, (begin, end) = found, tried
    return begin, end


def _divergence(histogram: Histogram, low: float, high: float) -> float:
    """Of the counts, cut off at both ends, from themselves spread evenly over the 256 levels."""
    counts, centres = histogram.seen.astype(np.float64), histogram.centres
    inside = (centres >= low) & (centres <= high)
    if not counts[inside].any():
        return np.inf
    seen = counts[inside]
    seen[0] += counts[centres < low].sum()
    seen[-1] += counts[centres > high].sum()
    levels = ((centres[inside] - low) / max(high - low, 1e-30) * (LEVELS - 1)).round().astype(np.int64).clip(0, LEVELS - 1)
    inner = counts[inside]
    used = inner > 0
    sums = np.bincount(levels, inner, LEVELS)
    spread = np.where(used, (sums / np.maximum(np.bincount(levels, used, LEVELS), 1))[levels], 0.0)
    a, b = seen / seen.sum(), np.maximum(spread / spread.sum(), 1e-12)
    return float((a[a > 0] * np.log(a[a > 0] / b[a > 0])).sum())
