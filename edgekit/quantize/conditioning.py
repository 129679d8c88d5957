"""The hub graph made ready for int8: once, for both runtimes.

    equalize channels → narrow the ranges → round weights → correct the biases

All four are textbook post-training quantization (Nagel et al. 2021, "A White Paper on Neural Network Quantization") and need no
training. The first two help some networks and harm others (docs/precisions.md has the figures): they are taken only where they
help on calibration samples that they have not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgekit.quantize.data import Calibration
from edgekit.quantize.recipe import Recipe

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from edgekit.contract import Feeds
    from edgekit.quantize.statistics import Channels

# Statistics of this many samples are as good as of all.
SAMPLES = 48
# With fewer there is nothing to choose by: a quarter of them is held back for it.
LEAST_TO_CHOOSE = 8
# What the choice must win on the samples held back, against the plainest way.
WORTHWHILE = 0.95

NO_EQUALIZATION = ""
EQUALIZATION = "channels equalized across layers"
EQUALIZATION_ACROSS_CLIPS = "channels equalized across layers and bounded activations"


@dataclass(frozen=True)
class Conditioned:
    """A graph for int8 alone.

    Args:
        hub: The graph to build from.
        ranges: Smallest and largest value to represent, by value name; empty where the extremes are the best ranges.
        notes: What was done, for the report.
    """

    hub: ir.Model
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def condition(hub: ir.Model, calibration: Calibration, recipe: Recipe | None = None) -> Conditioned:
    """Make the graph lose less to int8.

    Args:
        hub: The graph that `edgekit.hub.prepare` gives. It is not changed.
        calibration: Real inputs.
        recipe: Its `samples` and its `ranges` (other than `minmax`, those stay the recipe's).

    Returns:
        The graph for `edgekit.ort.build` and `edgekit.litert.compile_hub`, and the ranges for the former and `quantize_litert`.
        A graph without convolutions comes back as it is.
    """
    recipe = recipe or Recipe()
    feeds = calibration.subset(min(recipe.samples, SAMPLES))
    if not any(node.op_type == "Conv" for node in hub.graph):
        return Conditioned(hub)
    equalization, narrow = _best_way(hub, feeds, recipe)
    measured = _measured(hub, feeds, equalization)
    ranges = measured.ranges(narrow)
    result = measured.rounded(ranges, learned=True)
    notes = ["weights rounded by what they are multiplied with; biases corrected for it"]
    notes += [equalization] if equalization else []
    notes += ["ranges of least squared error instead of the extremes"] if narrow else []
    return Conditioned(result, ranges if narrow else {}, ("; ".join(notes),))


def _best_way(hub: ir.Model, feeds: Sequence[Feeds], recipe: Recipe) -> tuple[str, bool]:
    """How to equalize, and whether to narrow ranges: what is closest to float on samples held back."""
    from edgekit.ort.model import to_proto
    from edgekit.quantize.simulate import outputs, relative_error, with_rounding

    if len(feeds) < LEAST_TO_CHOOSE:
        return NO_EQUALIZATION, False
    parts = len(feeds) * 3 // 4
    seen, held_back = feeds[:parts], feeds[parts:]
    exact = outputs(to_proto(hub), held_back)
    errors: dict[tuple[str, bool], float] = {}
    for equalization in _equalizations(hub):
        measured = _measured(hub, seen, equalization)
        for narrow in (False, True) if recipe.ranges == "minmax" else (False,):
            ranges = measured.ranges(narrow)
            rounded = to_proto(measured.rounded(ranges, learned=False))
            errors[equalization, narrow] = relative_error(exact, outputs(with_rounding(rounded, ranges), held_back))
    best = min(errors, key=lambda way: errors[way])
    plainest = (NO_EQUALIZATION, False)
    return best if errors[best] < WORTHWHILE * errors[plainest] else plainest


def _equalizations(hub: ir.Model) -> tuple[str, ...]:
    clips = any(node.op_type == "Clip" for node in hub.graph)
    return (NO_EQUALIZATION, EQUALIZATION, EQUALIZATION_ACROSS_CLIPS) if clips else (NO_EQUALIZATION, EQUALIZATION)


@dataclass(frozen=True)
class _Measured:
    """A graph, equalized or not, and what its values are like on the feeds."""

    model: ir.Model
    proto: onnx.ModelProto
    feeds: Sequence[Feeds]
    statistics: Mapping[str, Channels]

    def ranges(self, narrow: bool) -> dict[str, tuple[float, float]]:
        """The extremes of each value, or the ranges of least squared error."""
        from edgekit.quantize.ranges import least_error
        from edgekit.quantize.statistics import extremes, histograms

        ends = extremes(self.statistics)
        return ends | least_error(histograms(self.proto, self.feeds, ends), ends) if narrow else ends

    def rounded(self, ranges: Mapping[str, tuple[float, float]], *, learned: bool) -> ir.Model:
        """A copy with all weights on their steps, and biases that make up for the mean error of each layer.

        That is the rounded weights times the mean of the rounded input, less the same without rounding. Layers without a bias
        of their own keep that error. Paddings are taken to hold the mean as well.
        """
        from edgekit.quantize.rounding import covariances, round_by_covariance
        from edgekit.quantize.statistics import rounded_means
        from edgekit.quantize.weights import layer, rounded

        result = self.model.clone()
        layers = [found for node in result.graph if (found := layer(node)) is not None]
        means = rounded_means(self.proto, self.feeds, ranges, {found.takes for found in layers})
        seen = covariances(self.proto, self.feeds, layers) if learned else {}
        for found in layers:
            covariance = seen.get(found.makes)
            kernel = rounded(found.kernel) if covariance is None else round_by_covariance(found, covariance)
            if found.bias is not None and found.takes in means:
                exact = found.kernel * found.per_input(self.statistics[found.takes].mean)
                found.store_bias(found.bias - (kernel * found.per_input(means[found.takes]) - exact).sum((1, 2)))
            found.store(kernel)
        return result


def _measured(hub: ir.Model, feeds: Sequence[Feeds], equalization: str) -> _Measured:
    from edgekit.ort.model import to_proto
    from edgekit.quantize.equalize import equalize
    from edgekit.quantize.statistics import channels

    model = hub.clone()
    statistics = channels(to_proto(model), feeds)
    across_clips = equalization == EQUALIZATION_ACROSS_CLIPS
    if equalization and equalize(model, statistics, across_clips=across_clips):
        statistics = channels(to_proto(model), feeds)
    return _Measured(model, to_proto(model), feeds, statistics)
