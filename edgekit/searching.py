"""The precision search on a source: trials are real artifacts, compared with the source on samples of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.contract import Artifact, Feeds, Results
from edgekit.errors import InputError
from edgekit.quantize.data import Calibration, Reread, evenly_spaced
from edgekit.quantize.search import ACCURACY, CHANGED, NOISE, Budget, Found, Journal, Trial, search
from edgekit.runtimes import Runner
from edgekit.verify.compare import compare, measure_latency
from edgekit.verify.metrics import Metrics

if TYPE_CHECKING:
    from edgekit.quantize import Conditioned, Recipe
    from edgekit.sources import Source
    from edgekit.verify.samples import Samples

# Samples that rank the nodes.
RANKED_ON = 12
# Without data of its own, the search takes every fourth of the calibration samples. Fewer than this tell nothing.
LEAST_HELD = 16

# What changes the result of a trial although its recipe and data are the same.
_VERSION = 1


@dataclass(frozen=True)
class Question:
    """What a search is asked.

    Args:
        source: The model that trials are compared with.
        conditioned: The graph, ready for int8.
        calibration: What it was calibrated on, as a digest.
        recipe: Where to begin.
        samples: What the budget is kept on; never what int8 was calibrated on.
        budget: What may be lost.
        kinds: The runtimes and formats to build for, as text: a search for others is another search.
        minutes: How long it may take.
    """

    source: Source
    conditioned: Conditioned
    calibration: str
    recipe: Recipe
    samples: Samples
    budget: Budget
    kinds: tuple[str, ...]
    minutes: float


def split(calibration: Calibration) -> tuple[Calibration, Calibration]:
    """Data to calibrate on, and every fourth sample to judge by.

    Raises:
        InputError: There are too few.
    """
    from dataclasses import replace

    count = len(calibration.feeds)
    held = range(3, count, 4)
    if len(held) < LEAST_HELD:
        raise InputError(
            f"{count} samples are too few to calibrate on some and to judge a budget on others",
            where="--precision auto",
            fix=f"give {4 * LEAST_HELD} or more with --calibration, or others with --data",
        )

    def part(chosen: Sequence[int], name: str) -> Calibration:
        indices = tuple(calibration.indices[i] for i in chosen) if len(calibration.indices) == count else ()
        files = tuple(calibration.files[i] for i in chosen) if len(calibration.files) == count else ()
        digest = hashlib.sha256(f"{calibration.sha256} {name}".encode()).hexdigest()
        return replace(
            calibration,
            feeds=Reread(lambda i: calibration.feeds[chosen[i]], len(chosen)),
            sha256=digest,
            indices=indices,
            files=files,
        )

    return part([i for i in range(count) if i % 4 != 3], "calibrated"), part(held, "held back")


def find_recipe(
    question: Question, build: Callable[[Recipe], Iterable[Artifact]], tell: Callable[[str, int, int], None]
) -> Found:
    """Search, and say what was found.

    Args:
        question: What is asked.
        build: Makes the artifacts of a recipe.
        tell: Told what is being done.
    """
    from edgekit.quantize.calibration_cache import folder
    from edgekit.quantize.sensitivity import sensitivities

    source, samples = question.source, question.samples
    outputs = [spec.name for spec in source.outputs]
    expected: dict[int, Results] = {}

    def reference(run: int, feeds: Feeds) -> Results:
        if run not in expected:
            expected[run] = source.run(feeds)
        return expected[run]

    def attempt(recipe: Recipe) -> Trial:
        artifacts = [artifact for artifact in build(recipe) if artifact.inputs]
        runners = {a.file: Runner(a.data, a.format, a.inputs, a.outputs) for a in artifacts}
        metrics = compare(reference, runners, samples.feeds, outputs, samples.labels)
        drop, deviation = max(_lost(m, samples.evidence.samples) for each in metrics.values() for m in each if m.kind == kind)
        latency = measure_latency(runners, samples.feeds[0], seconds=2.0)
        times = {file: float(found["median_ms"]) for file, found in latency.items()}
        return Trial(dict(recipe.layers), drop, deviation, {a.file: len(a.data) for a in artifacts}, times)

    def rank():  # type: ignore[no-untyped-def]
        chosen = [samples.feeds[i] for i in evenly_spaced(len(samples.feeds), RANKED_ON)]
        return sensitivities(question.conditioned, chosen, lambda done, total: tell("ranking nodes", done, total))

    first = reference(0, samples.feeds[0])
    kind = _kind(first, outputs)
    measure = NOISE if kind == "numbers" else ACCURACY if samples.labels is not None else CHANGED
    asked = {
        "version": _VERSION,
        "source": source.sha256,
        "calibration": question.calibration,
        "recipe": question.recipe.to_json() | {"layers": {}},
        "data": samples.evidence.sha256,
        "labels": None if samples.labels is None else hashlib.sha256(np.ascontiguousarray(samples.labels).data).hexdigest(),
        "kinds": question.kinds,
    }
    journal = Journal(asked, folder().parent / "searches")
    return search(
        question.recipe,
        rank,
        attempt,
        question.budget,
        measure,
        journal=journal,
        seconds=question.minutes * 60,
        tell=tell,
    )


def _kind(results: Results, outputs: Sequence[str]) -> str:
    """What the outputs are, the most telling of them: scores or classes where there are any, else numbers."""
    from edgekit.verify.metrics import Comparison

    kinds = []
    for name in outputs:
        comparison = Comparison(name)
        comparison.add(results[name], results[name])
        kinds.append(comparison.metrics().kind)
    return next((kind for kind in ("scores", "class") if kind in kinds), "numbers")


def _lost(metrics: Metrics, samples: int) -> tuple[float, float | None]:
    """What an output lost, in percent, and its standard error.

    With b answers that became wrong and c that became right, the drop is (b - c) / n, with a variance of about (b + c) / n².
    """
    count = max(samples, 1)
    if metrics.top1_agreement is None:
        return (100.0 if not np.isfinite(metrics.sqnr_db) and metrics.sqnr_db < 0 else 100 * 10 ** (-metrics.sqnr_db / 10)), None
    changed = 1 - metrics.top1_agreement
    deviation = round(100 * (changed / count) ** 0.5, 4)
    drop = metrics.accuracy_drop if metrics.accuracy_drop is not None else changed
    return round(100 * drop, 6), deviation
