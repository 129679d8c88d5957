"""What the values of a graph are like on real inputs, channel by channel."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.ort.probe import open_probe

if TYPE_CHECKING:
    import onnx

    from edgekit.contract import Feeds


@dataclass(frozen=True)
class Channels:
    """Of one value of at least two dimensions, over all samples: smallest, largest, mean and variance per channel (axis 1)."""

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def channels(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> dict[str, Channels]:
    """The statistics of every float32 value with channels, by name."""
    found: dict[str, list[np.ndarray]] = {}
    for name, array in _items(runs(model, feeds)):
        if array.ndim < 2:
            continue
        axes = (0, *range(2, array.ndim))
        mean, square = (part.mean(axes).astype(np.float64) for part in (array, np.square(array)))
        low, high = array.min(axes), array.max(axes)
        if name not in found:
            found[name] = [low, high, mean, square]
            continue
        have = found[name]
        found[name] = [np.minimum(have[0], low), np.maximum(have[1], high), have[2] + mean, have[3] + square]
    count = len(feeds)
    return {
        name: Channels(low, high, mean / count, np.maximum(square / count - (mean / count) ** 2, 0))
        for name, (low, high, mean, square) in found.items()
    }


def rounded_means(
    model: onnx.ModelProto, feeds: Sequence[Feeds], ranges: Mapping[str, tuple[float, float]], only: Container[str]
) -> dict[str, np.ndarray]:
    """The mean of each channel after rounding to the 256 steps of the value's range, by name.

    That is not the mean of the channel: a range cuts off, and a channel of few steps is rounded mostly down or mostly up.
    """
    found: dict[str, np.ndarray] = {}
    for name, array in _items(runs(model, feeds, only)):
        if array.ndim < 2 or name not in ranges or name not in only:
            continue
        low, high = min(ranges[name][0], 0.0), max(ranges[name][1], 0.0)
        step = np.float32(max(high - low, 1e-12) / 255)
        zero = np.round(-low / step)
        levels = np.clip(np.round(array / step) + zero, 0, 255) - zero
        mean = levels.mean((0, *range(2, array.ndim))).astype(np.float64) * step
        found[name] = found.get(name, 0) + mean / len(feeds)
    return found


def runs(model: onnx.ModelProto, feeds: Iterable[Feeds], only: Container[str] | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Every float32 input, output and value between them (or `only` those between), by name, run by run."""
    session = open_probe(model, only)
    names = [value.name for value in session.get_outputs()]
    for feed in feeds:
        values = {**feed, **dict(zip(names, session.run(None, dict(feed)), strict=True))}
        yield {name: array for name, array in values.items() if array.dtype == np.float32}


def _items(found: Iterable[Mapping[str, np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    return (item for values in found for item in values.items())
