"""How far an artifact's results are from its source's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgekit.errors import ArtifactError
from edgekit.verify.gates import number


@dataclass(frozen=True)
class Worst:
    """Where the largest absolute error is: the run (from 0), the index in the output, and both numbers there."""

    run: int
    index: tuple[int, ...]
    source: float
    artifact: float


@dataclass(frozen=True)
class Metrics:
    """One output of one artifact against the source, over all runs together.

    Pooling (instead of the worst or the mean run) makes every number independent of how samples are batched, and keeps one
    silent sample from turning rounding noise into a large relative error.

    Args:
        output: The source's name of it.
        elements: How many numbers were compared: those that are finite in the source.
        skipped: How many were not, because the source itself is NaN or infinite there.
        broken: How many of the compared ones are NaN or infinite in the artifact.
        max_abs_error: max |a - b|, a being the source.
        max_relative_error: max |a - b| / max |a|.
        cosine: a·b / (|a| |b|); 1 where both are zero everywhere, 0 where only one is.
        sqnr_db: 10 log10(Σ a² / Σ (a - b)²), infinite where they are equal.
        kind: `scores` (a float output [batch, 2 or more]: one row of class scores per sample), `class` (an integer output
            [batch] or [batch, 1]: the class itself), or `numbers`. A single sigmoid output counts as numbers: where it switches
            is not in the model.
        top1_agreement: Share of samples whose (largest) class is the same; None where the output holds numbers.
        source_accuracy, accuracy: Share of samples whose largest class is the label; None without labels.
        worst: Where max_abs_error is; None where nothing differs.
    """

    output: str
    kind: str
    elements: int
    skipped: int
    broken: int
    max_abs_error: float
    max_relative_error: float
    cosine: float
    sqnr_db: float
    top1_agreement: float | None
    source_accuracy: float | None
    accuracy: float | None
    worst: Worst | None

    @property
    def accuracy_drop(self) -> float | None:
        """Source accuracy minus artifact accuracy, as a share: 0.01 is one percentage point. Negative where it gained."""
        if self.source_accuracy is None or self.accuracy is None:
            return None
        return self.source_accuracy - self.accuracy

    def value(self, metric: str) -> float | None:
        """The number of one of `gates.METRICS`; None where it does not apply."""
        return getattr(self, metric)

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {key: number(value) if isinstance(value, float) else value for key, value in _plain(self).items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Metrics:
        """Read `to_json`'s dict."""
        values: dict[str, Any] = {
            k: float(v) if v in ("inf", "-inf", "nan") else v for k, v in document.items() if k not in ("worst", "accuracy_drop")
        }
        worst = document["worst"]
        place = worst and Worst(worst["run"], tuple(worst["index"]), float(worst["source"]), float(worst["artifact"]))
        return cls(**values, worst=place)


class Comparison:
    """Compares one output run by run, holding sums only: the set may be larger than memory.

    Args:
        output: The source's name of it.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._runs = self._elements = self._skipped = self._broken = 0
        self._max_error = self._max_source = 0.0
        self._dot = self._source_square = self._artifact_square = self._error_square = 0.0
        self._worst: Worst | None = None
        self._votes: list[tuple[np.ndarray, np.ndarray]] = []
        self._kind = "numbers"

    def add(self, source: np.ndarray, artifact: np.ndarray) -> None:
        """Take in one run's results.

        Raises:
            ArtifactError: The artifact's result has another shape than the source's.
        """
        if source.shape != artifact.shape:
            raise ArtifactError(
                f"the output {self._output!r} has the shape {artifact.shape}, the source gives {source.shape}",
                fix="the artifact does not compute the source's function: report this with the model",
            )
        self._vote(source, artifact)
        a, b = source.astype(np.float64), artifact.astype(np.float64)
        finite = np.isfinite(a)
        broken = finite & ~np.isfinite(b)
        self._elements += int(finite.sum())
        self._skipped += int(finite.size - finite.sum())
        self._broken += int(broken.sum())
        error = np.abs(np.subtract(a, b, out=np.zeros_like(a), where=finite & ~broken))
        if error.size and (error.max() > self._max_error or (broken.any() and not _is_broken(self._worst))):
            place = np.unravel_index(int(np.argmax(broken) if broken.any() else np.argmax(error)), error.shape)
            self._worst = Worst(self._runs, tuple(int(i) for i in place), float(a[place]), float(b[place]))
        a, b = np.where(finite, a, 0.0), np.where(finite & ~broken, b, 0.0)
        self._max_error = max(self._max_error, float(error.max(initial=0.0)))
        self._max_source = max(self._max_source, float(np.abs(a).max(initial=0.0)))
        self._dot += float(np.vdot(a, b))
        self._source_square += float(np.vdot(a, a))
        self._artifact_square += float(np.vdot(b, b))
        self._error_square += float(np.vdot(error, error))
        self._runs += 1

    def metrics(self, labels: np.ndarray | None = None) -> Metrics:
        """The metrics of all runs so far.

        Args:
            labels: One class per sample in the order of the runs, or None.
        """
        source_votes, votes_here = (np.concatenate(v) for v in zip(*self._votes, strict=True)) if self._votes else (None, None)
        max_error = math.inf if self._broken else self._max_error
        return Metrics(
            output=self._output,
            kind=self._kind,
            elements=self._elements,
            skipped=self._skipped,
            broken=self._broken,
            max_abs_error=max_error,
            max_relative_error=_ratio(max_error, self._max_source),
            cosine=math.nan if self._broken else self._cosine(),
            sqnr_db=-math.inf if self._broken else self._sqnr(),
            top1_agreement=_share(source_votes, votes_here),
            source_accuracy=_share(source_votes, labels),
            accuracy=_share(votes_here, labels),
            worst=self._worst,
        )

    def _vote(self, source: np.ndarray, artifact: np.ndarray) -> None:
        if np.issubdtype(source.dtype, np.floating) and source.ndim == 2 and source.shape[1] >= 2:
            self._kind = "scores"
            self._votes.append((source.argmax(axis=1), artifact.argmax(axis=1)))
        elif np.issubdtype(source.dtype, np.integer) and source.ndim in (1, 2) and source[0:1].size == 1:
            self._kind = "class"
            self._votes.append((source.reshape(-1), artifact.reshape(-1)))

    def _cosine(self) -> float:
        if self._source_square == 0.0 or self._artifact_square == 0.0:
            return 1.0 if self._source_square == self._artifact_square else 0.0
        # Rounding may carry it past 1 by a few units in the last place.
        return min(1.0, self._dot / math.sqrt(self._source_square) / math.sqrt(self._artifact_square))

    def _sqnr(self) -> float:
        if self._error_square == 0.0:
            return math.inf
        return 10.0 * math.log10(self._source_square / self._error_square) if self._source_square else -math.inf


def _plain(metrics: Metrics) -> dict[str, Any]:
    document = asdict(metrics)
    document["accuracy_drop"] = metrics.accuracy_drop
    worst = metrics.worst
    if worst:
        document["worst"] = {
            "run": worst.run,
            "index": list(worst.index),
            "source": number(worst.source),
            "artifact": number(worst.artifact),
        }
    return document


def _is_broken(worst: Worst | None) -> bool:
    return worst is not None and not math.isfinite(worst.artifact)


def _ratio(error: float, scale: float) -> float:
    if scale == 0.0:
        return 0.0 if error == 0.0 else math.inf
    return error / scale


def _share(a: np.ndarray | None, b: np.ndarray | None) -> float | None:
    return None if a is None or b is None else float(np.mean(a == b))
