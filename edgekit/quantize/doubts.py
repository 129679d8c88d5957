"""What looks wrong with calibration data: said in the report, because an int8 model made from them works and is bad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.contract import TensorSpec
from edgekit.preprocess import Preprocess
from edgekit.quantize.data import Calibration

FEWEST = 32
# Samples that are looked at.
_LOOKED_AT = 64
# How far a picture may lie outside of what its preprocessing can give, as a part of that.
_MARGIN = 0.02
# How many times wider or narrower the values of two sets of the same kind may be.
_RATIO = 3.0


def doubts(
    calibration: Calibration,
    inputs: Sequence[TensorSpec],
    preprocess: Preprocess | None = None,
    compared: Calibration | None = None,
) -> tuple[str, ...]:
    """Sentences on what looks wrong; none where nothing does.

    Args:
        calibration: What int8 is calibrated on.
        inputs: The model's inputs.
        preprocess: How pictures become inputs: arrays that come as they are should look like its results.
        compared: Other data of the same kind, such as those that artifacts are compared on.
    """
    found = []
    samples = len(calibration.indices) or len(calibration.feeds)
    if samples < FEWEST:
        found.append(f"{samples} samples are few to calibrate on: ranges of rarer inputs are cut off; give 100 or more")
    for spec in inputs:
        if np.dtype(spec.dtype).kind != "f":
            continue
        axis = _channel_axis(spec, preprocess)
        mine = _Looks.of(calibration, spec.name, axis)
        if mine.high == mine.low:
            found.append(f"all values of {spec.name!r} in the calibration data are {mine.low:g}: nothing can be learnt from them")
            continue
        if mine.alike:
            found.append(f"all {samples} samples of {spec.name!r} in the calibration data are the same")
        if preprocess is not None and axis is not None:
            found += _against_promise(spec.name, mine, preprocess)
        if compared is not None and compared.sha256 != calibration.sha256:
            found += _against_others(spec.name, mine, _Looks.of(compared, spec.name, axis))
    return tuple(found)


@dataclass(frozen=True)
class _Looks:
    """Of one input over some samples: extremes, mean and deviation; the means and extremes of its channels."""

    low: float
    high: float
    deviation: float
    means: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    alike: bool

    @classmethod
    def of(cls, data: Calibration, name: str, axis: int | None) -> _Looks:
        arrays = [np.asarray(feed[name], np.float64) for feed in data.subset(_LOOKED_AT)]
        columns = [np.moveaxis(a, axis, 0).reshape(a.shape[axis], -1) if axis is not None else a.reshape(1, -1) for a in arrays]
        together = np.concatenate(columns, 1)
        alike = len(arrays) > 1 and all(a.shape == arrays[0].shape and (a == arrays[0]).all() for a in arrays[1:])
        ends = together.min(1), together.max(1)
        low, high = float(ends[0].min()), float(ends[1].max())
        return cls(low, high, float(together.std()), together.mean(1), *ends, alike)


def _channel_axis(spec: TensorSpec, preprocess: Preprocess | None) -> int | None:
    """The axis that holds an input's colours."""
    if preprocess is not None and len(spec.shape) == 4:
        return 1 if preprocess.layout == "nchw" else 3
    for axis in (3, 1):
        if len(spec.shape) == 4 and spec.shape[axis] in (1, 3):
            return axis
    return None


def _against_promise(name: str, looks: _Looks, preprocess: Preprocess) -> list[str]:
    """Whether the values are what pixels from 0 to 255 become."""
    channels = len(looks.means)
    if channels != preprocess.channels:
        return []
    mean, std = (np.resize(np.asarray(v), channels) for v in (preprocess.mean, preprocess.std))
    ends = np.sort([(255 * preprocess.scale * i - mean) / std for i in (0, 1)], axis=0)
    if _lies_within(looks, *ends):
        width = (looks.high - looks.low) / (ends[1].max() - ends[0].min())
        if width < 0.1:
            return [
                f"the calibration data of {name!r} fill {width:.1%} of what --preprocess gives for pixels from 0 to 255: "
                "are they scaled twice?"
            ]
        return []
    if channels == 3 and _lies_within(looks, *ends[:, ::-1]):
        return [f"the colours of the calibration data of {name!r} look reversed: they fit --preprocess as BGR for RGB"]
    promised = f"{ends[0].min():.3g} to {ends[1].max():.3g}"
    return [f"the calibration data of {name!r} lie from {looks.low:.3g} to {looks.high:.3g}, --preprocess gives {promised}"]


def _lies_within(looks: _Looks, low: np.ndarray, high: np.ndarray) -> bool:
    margin = _MARGIN * (high - low)
    return bool((looks.lows >= low - margin).all() and (looks.highs <= high + margin).all())


def _against_others(name: str, mine: _Looks, theirs: _Looks) -> list[str]:
    """Whether two sets of the same kind look alike."""
    found = []
    ratio = mine.deviation / max(theirs.deviation, 1e-30)
    shift = float(np.abs(mine.means.mean() - theirs.means.mean())) / max(theirs.deviation, 1e-30)
    if not 1 / _RATIO < ratio < _RATIO or shift > 1:
        found.append(
            f"the calibration data of {name!r} lie from {mine.low:.3g} to {mine.high:.3g}, those compared on from "
            f"{theirs.low:.3g} to {theirs.high:.3g}: are both prepared alike?"
        )
    elif len(mine.means) == 3:
        straight, reversed_ = (float(np.abs(mine.means - m).sum()) for m in (theirs.means, theirs.means[::-1]))
        if straight > 0.3 * theirs.deviation and reversed_ < 0.25 * straight:
            found.append(f"the colours of the calibration data of {name!r} look reversed beside those compared on")
    return found
