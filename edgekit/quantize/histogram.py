"""How often a value is how large: a histogram that grows with what it sees, so that one pass over the data is enough."""

from __future__ import annotations

import math

import numpy as np

BINS = 2048


class Histogram:
    """Counts in bins of equal width, a power of two. Bins are merged in pairs when what comes does not fit into `BINS` of them.

    At least half of the bins lie between the extremes seen; zero is the edge of a bin. Samples are counted in two parts: `seen`,
    and `held`, every fourth, on which what was concluded from the others can be judged.
    """

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self.width = 0.0
        self._first = 0
        self._counts = np.zeros((2, BINS), np.float32)

    @property
    def seen(self) -> np.ndarray:
        """The counts of three samples of four, float32."""
        return self._counts[0]

    @property
    def held(self) -> np.ndarray:
        """The counts of every fourth sample, float32."""
        return self._counts[1]

    @property
    def centres(self) -> np.ndarray:
        """The middle of each bin, float64."""
        return (self._first + np.arange(BINS) + 0.5) * self.width

    def add(self, elements: np.ndarray, low: float, high: float, weight: float, *, held: bool) -> None:
        """Count a sample's elements by `weight`. `low` and `high` are the sample's extremes, which `elements` need not hold."""
        self._fit(low, high)
        if self.width:
            places = np.floor(elements * np.float32(1 / self.width)).astype(np.int64) - self._first
            self._counts[int(held)] += np.bincount(places.clip(0, BINS - 1), minlength=BINS) * np.float32(weight)

    def _fit(self, low: float, high: float) -> None:
        """Make room from `low` to `high` and to zero."""
        if self.low <= low and high <= self.high:
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        width = max(self.width, 2.0 ** (math.frexp((self.high - self.low) / BINS)[1] - 1), 2.0**-100)
        while math.floor(self.high / width) - math.floor(self.low / width) >= BINS:
            width *= 2
        first = math.floor(self.low / width)
        if self.width:
            places = (self._first + np.arange(BINS)) // round(width / self.width) - first
            for counts in self._counts:
                counts[:] = np.bincount(places.clip(0, BINS - 1), counts, BINS)
        self.width, self._first = width, first

    def to_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """What `of_arrays` takes: four numbers, and the counts."""
        return np.array([self.low, self.high, self.width, self._first]), self._counts

    @classmethod
    def of_arrays(cls, numbers: np.ndarray, counts: np.ndarray) -> Histogram:
        """The histogram that gave these."""
        result = cls()
        result.low, result.high, result.width = (float(number) for number in numbers[:3])
        result._first, result._counts = int(numbers[3]), counts
        return result
