"""Ranges of activations of least rounding error."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_STEPS = np.linspace(0.3, 1.0, 36)


def least_error(
    histograms: Mapping[str, np.ndarray], extremes: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Of each value, the range whose 256 steps give the least mean squared error over its histogram, by name.

    A narrower range has finer steps and cuts off the outermost values. Both ends are tried in turn, from the extremes inwards.
    """
    return {name: _least_error(counts, *extremes[name]) for name, counts in histograms.items()}


def _least_error(counts: np.ndarray, low: float, high: float) -> tuple[float, float]:
    centres = low + (np.arange(len(counts)) + 0.5) * (high - low) / len(counts)
    used = counts > 0
    counts, centres = counts[used], centres[used]
    low, high = min(low, 0.0), max(high, 0.0)  # zero must be exact: it is what paddings hold

    def error(begin: float, end: float) -> float:
        step = max(end - begin, 1e-12) / 255
        beyond = np.maximum(np.maximum(begin - centres, centres - end), 0.0)
        return float((counts * np.where(beyond > 0, np.square(beyond), step**2 / 12)).sum())

    begin, end, best = low, high, error(low, high)
    for _ in range(2):
        for at_end in (True, False):
            for part in _STEPS:
                tried = (begin, high * part) if at_end else (low * part, end)
                found = error(*tried)
                if found < best:
                    best, (begin, end) = found, tried
    return float(begin), float(end)
