"""The precision search: as much int8 as an accuracy budget allows.

    rank nodes by what each loses alone → keep the first k in float, k doubling until the budget is met → halve the gap
    → give back, one by one, those that turn out not to be needed

Every trial is a real quantization: the artifacts of all runtimes are built and run on the samples of the budget, and the worst of
them counts. What was tried is written to a file as it goes; a search that was stopped goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgekit.errors import InputError
from edgekit.quantize.recipe import FLOAT, Recipe
from edgekit.quantize.sensitivity import Sensitivity

ACCURACY = "accuracy"
CHANGED = "changed answers"
NOISE = "noise"

# The gate that says the same of an artifact as the budget does.
_GATES = {ACCURACY: "accuracy_drop", CHANGED: "top1_agreement", NOISE: "sqnr_db"}


@dataclass(frozen=True)
class Budget:
    """What may be lost, in percent: points of accuracy where there are labels, else changed answers of a classifier, else the
    squared error over the squared size of the outputs (0.5 % is an SQNR of 23 dB)."""

    percent: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.percent) and 0 <= self.percent <= 100):
            raise InputError(
                f"a budget of {self.percent:g} % is none", where="--max-drop", fix="give percent, such as 0.5: from 0 to 100"
            )

    def gate(self, measure: str) -> tuple[str, float]:
        """The metric and the threshold that hold an artifact to the budget."""
        share = self.percent / 100
        thresholds = {ACCURACY: share, CHANGED: 1 - share, NOISE: -10 * math.log10(share) if share else 300.0}
        return _GATES[measure], round(thresholds[measure], 6)


@dataclass(frozen=True)
class Trial:
    """One recipe, built and measured.

    Args:
        layers: What was kept out of int8.
        drop: What was lost, in percent, of the artifact that lost most.
        deviation: The standard error of `drop` that comes from the number of samples; None where it is not a share of samples.
        bytes: Of each artifact, by file.
        latency_ms: Of each artifact on this machine, by file.
    """

    layers: Mapping[str, str]
    drop: float
    deviation: float | None = None
    bytes: Mapping[str, int] = field(default_factory=dict)
    latency_ms: Mapping[str, float] = field(default_factory=dict)

    def meets(self, budget: Budget) -> bool:
        return self.drop <= budget.percent + 1e-9


@dataclass(frozen=True)
class Found:
    """The end of a search.

    Args:
        recipe: The one to use: within the budget with the fewest nodes in float, or the one that lost least.
        met: Whether it is within the budget.
        measure: What was measured: `accuracy`, `changed answers` or `noise`.
        budget: In percent.
        trials: All that was tried, in order.
        ranking: The nodes by sensitivity.
        stopped: Why the search ended before it was done, if it did.
    """

    recipe: Recipe
    met: bool
    measure: str
    budget: float
    trials: tuple[Trial, ...]
    ranking: tuple[Sensitivity, ...]
    stopped: str | None = None

    @property
    def best(self) -> Trial:
        """The trial of the recipe."""
        return next(trial for trial in reversed(self.trials) if trial.layers == self.recipe.layers)

    def sentence(self) -> str:
        """The result in words."""
        lost = (
            f"{self.best.drop:.2g} % {self.measure}" if self.measure != ACCURACY else f"{self.best.drop:.2g} points of accuracy"
        )
        lost += f" ± {self.best.deviation:.2g}" if self.best.deviation else ""
        kept = f"{len(self.best.layers)} of {len(self.ranking) or 'all'} nodes in float" if self.best.layers else "all in int8"
        verdict = "within" if self.met else "NOT within, and the best of what was tried for,"
        stopped = f"; the search was stopped {self.stopped}" if self.stopped else ""
        return f"auto: {kept} lose {lost}, {verdict} the budget of {self.budget:g}{stopped}"

    def to_json(self) -> dict[str, Any]:
        """What the manifest says of the search, without what was measured on this machine."""
        curve = [{"float": len(trial.layers), "drop": trial.drop, "bytes": dict(trial.bytes)} for trial in self._curve()]
        return {
            "measure": self.measure,
            "budget_percent": self.budget,
            "met": self.met,
            "drop_percent": self.best.drop,
            "deviation_percent": self.best.deviation,
            "stopped": self.stopped,
            "nodes": len(self.ranking),
            "in_float": sorted(self.recipe.layers),
            "curve": curve,
            "sensitivities": {each.name: float(f"{each.error:.3g}") for each in self.ranking},
        }

    def latencies(self) -> list[dict[str, Any]]:
        """Latency along the curve, on this machine."""
        return [{"float": len(trial.layers), "latency_ms": dict(trial.latency_ms)} for trial in self._curve()]

    def _curve(self) -> list[Trial]:
        return sorted(self.trials, key=lambda trial: (len(trial.layers), trial.drop))


def search(
    recipe: Recipe,
    rank: Callable[[], Sequence[Sensitivity]],
    attempt: Callable[[Recipe], Trial],
    budget: Budget,
    measure: str,
    *,
    journal: Journal,
    seconds: float = 600.0,
    tell: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Found:
    """Find the recipe that keeps the fewest nodes in float and meets the budget.

    Args:
        recipe: Where to begin; what its layers say stays so.
        rank: Gives the nodes, the most sensitive first. Asked only if plain int8 does not meet the budget.
        attempt: Builds and measures a recipe.
        budget: What may be lost.
        measure: What `Trial.drop` is measured in.
        journal: Remembers trials between runs.
        seconds: No trial begins after this time, except the first.
        tell: Told what is being done.

    Returns:
        The best that was found; `met` says whether that is within the budget.
    """
    begin = time.monotonic()
    trials: list[Trial] = []
    stopped: str | None = None

    def within_time() -> bool:
        nonlocal stopped
        if time.monotonic() - begin > seconds:
            stopped = f"after {seconds / 60:g} minutes"
        return stopped is None

    def tried(kept: Sequence[str]) -> Trial:
        tell(f"searching: {len(kept)} nodes in float", len(trials), 0)
        layers = {**recipe.layers, **dict.fromkeys(kept, FLOAT)}
        known = next((trial for trial in trials if trial.layers == layers), None) or journal.find(layers)
        trial = known or attempt(recipe.with_layers(layers))
        if known is None:
            journal.add(trial)
        if trial not in trials:
            trials.append(trial)
        return trial

    ranking: Sequence[Sensitivity] = ()
    kept: list[str] = []
    if not tried([]).meets(budget):
        ranking = list(rank())
        names = [each.name for each in ranking if each.name not in recipe.layers]
        kept = _fewest(names, lambda count: tried(names[:count]).meets(budget), within_time)
        kept = _without_needless(kept, lambda names: tried(names).meets(budget), within_time)
    good = [trial for trial in trials if trial.meets(budget)]
    best = min(good, key=lambda t: (len(t.layers), t.drop)) if good else min(trials, key=lambda t: (t.drop, len(t.layers)))
    return Found(recipe.with_layers(best.layers), bool(good), measure, budget.percent, tuple(trials), tuple(ranking), stopped)


def _fewest(names: list[str], meets: Callable[[int], bool], within_time: Callable[[], bool]) -> list[str]:
    """The shortest beginning of `names` that meets the budget, as far as doubling and halving find it."""
    low, high = 0, 1
    while within_time() and not meets(min(high, len(names))):
        if high >= len(names):
            return names
        low, high = high, high * 2
    high = min(high, len(names))
    while high - low > 1 and within_time():
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return names[:high]


def _without_needless(kept: list[str], meets: Callable[[Sequence[str]], bool], within_time: Callable[[], bool]) -> list[str]:
    """What is left when every node that is not needed goes back to int8, halves first, then quarters, down to single ones.

    The last ones of the ranking are tried first.
    """
    size = len(kept) // 2
    while size >= 1:
        for end in range(len(kept), 0, -size):
            fewer = kept[: max(end - size, 0)] + kept[end:]
            if fewer and len(fewer) < len(kept) and within_time() and meets(fewer):
                kept = fewer
        size //= 2
    return kept


class Journal:
    """The trials of one search, a line of JSON each, in the cache: the same question finds them again.

    Args:
        question: Everything that a trial's result depends on, but the layers.
        folder: Where the file is; None to remember nothing.
    """

    def __init__(self, question: Mapping[str, Any], folder: Path | None) -> None:
        digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:32]
        self._path = None if folder is None else folder / f"{digest}.jsonl"
        self._trials: list[Trial] = []
        if self._path is not None and self._path.is_file():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                trial = _read(line)
                if trial is not None:
                    self._trials.append(trial)

    def find(self, layers: Mapping[str, str]) -> Trial | None:
        """What was measured of these layers before."""
        return next((trial for trial in self._trials if trial.layers == layers), None)

    def add(self, trial: Trial) -> None:
        """Remember a trial. A folder that cannot be written is done without."""
        self._trials.append(trial)
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(trial)) + "\n")
        except OSError:
            self._path = None


def _read(line: str) -> Trial | None:
    """A line of a journal; None for one that was cut off."""
    try:
        return Trial(**json.loads(line))
    except (ValueError, TypeError):
        return None
