"""Runs the source and its artifacts on the same inputs, and times the artifacts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from edgekit.contract import Feeds, Results
from edgekit.runtimes import Runner
from edgekit.verify.metrics import Comparison, Metrics


def compare(
    reference: Callable[[int, Feeds], Results],
    runners: Mapping[str, Runner],
    feeds: Iterable[Feeds],
    outputs: Sequence[str],
    labels: np.ndarray | None = None,
) -> dict[str, tuple[Metrics, ...]]:
    """The metrics of each artifact, one per output, in the order of `outputs`.

    Run by run, so that neither the data nor the results need to fit in memory.

    Args:
        reference: The source's results, called once per run with its number and feeds.
        runners: The artifacts by file name.
        feeds: Inputs in the source's layout.
        outputs: The source's outputs.
        labels: One class per sample.
    """
    comparisons = {file: {name: Comparison(name) for name in outputs} for file in runners}
    for run, inputs in enumerate(feeds):
        expected = reference(run, inputs)
        for file, runner in runners.items():
            actual = runner.run(inputs)
            for name, comparison in comparisons[file].items():
                comparison.add(expected[name], actual[name])
    return {file: tuple(c.metrics(labels) for c in by_output.values()) for file, by_output in comparisons.items()}


def measure_latency(
    runners: Mapping[str, Runner], feeds: Feeds, *, rounds: int = 30, seconds: float = 6.0
) -> dict[str, dict[str, float | int]]:
    """Wall time of one inference per artifact, in milliseconds.

    The artifacts take turns, so that a slow moment of the machine falls on all of them, and the median is taken.

    Args:
        runners: The artifacts by file name.
        feeds: One run's inputs.
        rounds: Turns per artifact, after one to warm up.
        seconds: Stop after this time, but not before three turns.
    """
    calls = {file: runner.bound(feeds) for file, runner in runners.items()}
    times: dict[str, list[float]] = {file: [] for file in calls}
    for call in calls.values():
        call()
    start = time.perf_counter()
    for turn in range(rounds):
        if turn >= 3 and time.perf_counter() - start > seconds:
            break
        for file, call in calls.items():
            begin = time.perf_counter()
            call()
            times[file].append((time.perf_counter() - begin) * 1e3)
    return {
        file: {"median_ms": round(statistics.median(t), 4), "min_ms": round(min(t), 4), "runs": len(t)}
        for file, t in times.items()
    }
