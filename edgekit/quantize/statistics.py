"""What the values of a graph are like on real inputs, channel by channel."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
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
    for name, array in (item for values in runs(model, feeds) for item in values.items()):
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


def runs(model: onnx.ModelProto, feeds: Iterable[Feeds], only: Container[str] | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Every float32 input, output and value between them (or `only` those between), by name, run by run."""
    session = open_probe(model, only)
    names = [value.name for value in session.get_outputs()]
    for feed in feeds:
        values = {**feed, **dict(zip(names, session.run(None, dict(feed)), strict=True))}
        yield {name: array for name, array in values.items() if array.dtype == np.float32}
