"""The hub graph made ready for int8: once, for both runtimes.

    equalize channels → absorb biases → calibrate → layer by layer: round the weights, correct the bias

All of it is textbook post-training quantization (Nagel et al. 2021, "A White Paper on Neural Network Quantization") and needs no
training. Equalization and narrower ranges help some networks and harm others (docs/precisions.md has the figures): they are taken
only where they help on samples that they have not seen. What each step gained there is part of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

from edgekit.quantize.data import Calibration, evenly_spaced
from edgekit.quantize.ranges import ranges_of
from edgekit.quantize.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir as ir

    from edgekit.contract import Feeds
    from edgekit.quantize.observe import Observed

# Weights and biases see this many samples less those held back, ranges all that the recipe takes. A few of them are enough to
# compare ways by, and to tell what channels are like.
SAMPLES = 128
COMPARED_ON = 12
MEASURED_ON = 36
# Choices are made on the last quarter of the samples; with fewer than this there is nothing to choose by.
LEAST_TO_CHOOSE = 8
# What the choice must win on the samples held back, against the plainest way.
WORTHWHILE = 0.95

NO_EQUALIZATION = ""
EQUALIZATION = "channels equalized across layers"
EQUALIZATION_ACROSS_CLIPS = "channels equalized across layers and bounded activations"

Ranges = Mapping[str, tuple[float, float]]
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Gain:
    """One step of conditioning, and how far int8 is from float behind it, simulated on samples held back: SQNR in dB."""

    step: str
    sqnr_db: float


@dataclass(frozen=True)
class Conditioned:
    """A graph for int8 alone.

    Args:
        hub: The graph to build from.
        exact: The same graph before its weights and biases were rounded.
        rounded: Rounds `exact` anew, but for the layers that make these values; remembers the last.
        ranges: Smallest and largest value to represent, by value name: of every value that has a range.
        notes: What was done, for the report.
        gains: What each step brought; empty where there were too few samples to tell.
    """

    hub: ir.Model
    exact: ir.Model
    rounded: Callable[[frozenset[str]], ir.Model]
    ranges: Ranges = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    gains: tuple[Gain, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What the manifest says of it."""
        gains = [{"step": gain.step, "sqnr_db": gain.sqnr_db} for gain in self.gains]
        return {"done": list(self.notes), "gains": gains, "values": len(self.ranges)}

    def graph(self, recipe: Recipe) -> ir.Model:
        """The graph to build from with what this recipe keeps out of int8."""
        from edgekit.quantize.layers import kept_values

        kept = frozenset(kept_values(self.hub, recipe))
        return self.rounded(kept) if kept else self.hub


def condition(hub: ir.Model, calibration: Calibration, recipe: Recipe | None = None, tell: Tell | None = None) -> Conditioned:
    """Make the graph lose less to int8, and find the range of every value in it.

    Args:
        hub: The graph that `edgekit.hub.prepare` gives. It is not changed.
        calibration: Real inputs.
        recipe: What to do; by default all of it.
        tell: Told what is being done, how many samples are done, and how many there are.

    Returns:
        The graph for `edgekit.ort.build` and `edgekit.litert.compile_hub`, and the ranges for the former and `quantize_litert`.
        The weights of a graph without convolutions stay as they are.
    """
    recipe = recipe or Recipe()
    tell = tell or _silent
    if not any(node.op_type == "Conv" for node in hub.graph):
        observed = _observed(hub, calibration, recipe, tell)
        return Conditioned(hub, hub, lambda kept: hub, ranges_of(observed, _methods(recipe, [])[0]))
    few = calibration.subset(min(recipe.samples, SAMPLES))
    # Not every fourth: neighbours are often alike (crops of one picture, frames of one film).
    parts = len(few) * 3 // 4 if len(few) >= LEAST_TO_CHOOSE else len(few)
    seen, trials = few[:parts], _Trials.of(hub, _some(few[parts:], COMPARED_ON))
    tell("choosing how to quantize", 0, 0)
    measured = _best_way(hub, seen, trials, recipe)
    observed = _observed(measured.model, calibration, recipe, tell)
    tell("rounding weights", 0, 0)
    finals = {}
    for method in _methods(recipe, trials.feeds):
        ranges = ranges_of(observed, method)
        for learned, corrected in product(_tried(recipe.round_weights, trials), _tried(recipe.correct_biases, trials)):
            model = measured.rounded(ranges, learned=learned, corrected=corrected)
            finals[method, learned, corrected] = _Final(model, ranges, trials.error(model, ranges) if trials.feeds else 0.0)
    (method, learned, corrected), best = min(finals.items(), key=lambda item: item[1].error)

    @lru_cache(maxsize=1)  # each runtime asks for it
    def rounded(kept: frozenset[str]) -> ir.Model:
        return measured.rounded(best.ranges, learned=learned, corrected=corrected, kept=kept)

    gains: tuple[Gain, ...] = ()
    if trials.feeds:
        gains = _gains(hub, measured, best.ranges, trials)
        errors = {"rounding": finals.get((method, True, False)), "bias correction": finals.get((method, learned, True))}
        gains += tuple(Gain(step, _decibel(final.error)) for step, final in errors.items() if final is not None)
    done = _told(measured, method, learned, corrected)
    return Conditioned(best.model, measured.model, rounded, best.ranges, (done,) if done else (), gains)


def _tried(asked: bool, trials: _Trials) -> tuple[bool, ...]:
    """Whether a step is done: what is asked for is compared with leaving it out, where there is something to compare on."""
    return (True, False) if asked and trials.feeds else (asked,)


@dataclass(frozen=True)
class _Final:
    """A graph that could be the result, its ranges, and its error on the samples held back."""

    model: ir.Model
    ranges: Ranges
    error: float


def _some(feeds: Sequence[Feeds], count: int) -> Sequence[Feeds]:
    return [feeds[i] for i in evenly_spaced(len(feeds), count)]


def _methods(recipe: Recipe, held: Sequence[Feeds]) -> tuple[str, ...]:
    """The ways to find ranges that are compared; where there is nothing to compare on, `auto` is the extremes."""
    if recipe.ranges != "auto":
        return (recipe.ranges,)
    return ("minmax", "auto") if held else ("minmax",)


def _told(measured: _Measured, method: str, learned: bool, corrected: bool) -> str:
    """One sentence of what was done to the graph."""
    parts = [measured.way] if measured.way else []
    parts += [f"{measured.absorbed} channels' biases absorbed"] if measured.absorbed else []
    parts += [] if method == "minmax" else ["ranges of least error for each value" if method == "auto" else f"ranges by {method}"]
    parts += ["weights rounded by what they are multiplied with"] if learned else []
    parts += ["biases corrected for the rounding"] if corrected else []
    return "; ".join(parts)


def _observed(hub: ir.Model, calibration: Calibration, recipe: Recipe, tell: Tell) -> Mapping[str, Observed]:
    """What every value was like on all samples that the recipe takes."""
    from edgekit.ort.model import to_proto
    from edgekit.quantize.calibration_cache import observed

    def done(samples: int, total: int) -> None:
        tell("calibrating", samples, total)

    return observed(to_proto(hub), calibration, recipe.samples, done)


@dataclass(frozen=True)
class _Trials:
    """Samples held back, and what the float graph makes of them."""

    feeds: Sequence[Feeds]
    exact: np.ndarray

    @classmethod
    def of(cls, hub: ir.Model, feeds: Sequence[Feeds]) -> _Trials:
        from edgekit.ort.model import to_proto
        from edgekit.quantize.simulate import outputs

        return cls(feeds, outputs(to_proto(hub), feeds))

    def error(self, model: ir.Model, ranges: Ranges) -> float:
        """Squared error over squared size of what int8 would make of them."""
        from edgekit.ort.model import to_proto
        from edgekit.quantize.simulate import outputs, relative_error, with_rounding

        return relative_error(self.exact, outputs(with_rounding(to_proto(model), ranges), self.feeds))


def _best_way(hub: ir.Model, seen: Sequence[Feeds], trials: _Trials, recipe: Recipe) -> _Measured:
    """The graph equalized as it is closest to float on the samples held back, whichever way ranges are found."""
    ways = [_measured(hub, seen, way, recipe.absorb_biases) for way in _equalizations(hub, recipe)]
    if not trials.feeds or len(ways) == 1:
        return ways[0]

    def error(measured: _Measured) -> float:
        found = (ranges_of(measured.observed, method) for method in _methods(recipe, trials.feeds))
        return min(trials.error(measured.rounded(r, learned=False, corrected=recipe.correct_biases), r) for r in found)

    errors = [error(measured) for measured in ways]
    best = min(range(len(ways)), key=errors.__getitem__)
    return ways[best] if errors[best] < WORTHWHILE * errors[0] else ways[0]


def _equalizations(hub: ir.Model, recipe: Recipe) -> tuple[str, ...]:
    """What may be done, the plainest first."""
    some = (EQUALIZATION, EQUALIZATION_ACROSS_CLIPS) if any(n.op_type == "Clip" for n in hub.graph) else (EQUALIZATION,)
    return {"auto": (NO_EQUALIZATION, *some), "always": some, "never": (NO_EQUALIZATION,)}[recipe.equalize]


def _gains(hub: ir.Model, measured: _Measured, ranges: Ranges, trials: _Trials) -> tuple[Gain, ...]:
    """One step after the other, from plain int8 to weights at their nearest steps in the ranges chosen."""
    plain = _measured(hub, measured.feeds, NO_EQUALIZATION, False) if measured.way or measured.absorbed else measured

    def gain(step: str, of: _Measured, within: Ranges) -> Gain:
        return Gain(step, _decibel(trials.error(of.rounded(within, learned=False, corrected=False), within)))

    found = [gain("plain", plain, ranges_of(plain.observed, "minmax"))]
    if measured.way:
        equalized = _measured(hub, measured.feeds, measured.way, False) if measured.absorbed else measured
        found.append(gain("equalization", equalized, ranges_of(equalized.observed, "minmax")))
    if measured.absorbed:
        found.append(gain("bias absorption", measured, ranges_of(measured.observed, "minmax")))
    return (*found, gain("ranges", measured, ranges))


def _decibel(error: float) -> float:
    return round(-10 * math.log10(max(error, 1e-30)), 2)


@dataclass
class _Measured:
    """A graph, equalized or not, and what its values are like on the feeds."""

    model: ir.Model
    proto: onnx.ModelProto
    feeds: Sequence[Feeds]
    few: Sequence[Feeds]
    way: str
    absorbed: int

    @cached_property
    def observed(self) -> Mapping[str, Observed]:
        """What its values are like on these feeds."""
        from edgekit.quantize.observe import observe

        return observe(self.proto, self.few)

    @cached_property
    def walked(self) -> Sequence[Feeds]:
        """As many of the feeds as can be walked with."""
        from edgekit.quantize.walk import affordable

        return affordable(self.proto, self.feeds)

    def rounded(self, ranges: Ranges, *, learned: bool, corrected: bool, kept: Container[str] = ()) -> ir.Model:
        """A copy with all weights on their steps, and biases that make up for it."""
        from edgekit.quantize.walk import round_layers

        return round_layers(
            self.model, ranges, self.walked if learned else self.few, learned=learned, corrected=corrected, kept=kept
        )


def _measured(hub: ir.Model, feeds: Sequence[Feeds], way: str, absorb: bool) -> _Measured:
    from edgekit.ort.model import to_proto
    from edgekit.quantize.absorb import absorb_biases
    from edgekit.quantize.equalize import equalize
    from edgekit.quantize.statistics import channels

    model, few = hub.clone(), _some(feeds, MEASURED_ON)
    statistics = channels(to_proto(model), few)
    if way and equalize(model, statistics, across_clips=way == EQUALIZATION_ACROSS_CLIPS):
        statistics = channels(to_proto(model), few)
    absorbed = absorb_biases(model, statistics) if absorb else 0
    return _Measured(model, to_proto(model), feeds, few, way, absorbed)


def _silent(stage: str, done: int, total: int) -> None:
    """Progress for nobody."""
