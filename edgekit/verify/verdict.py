"""From metrics and gates to a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.verify.gates import METRICS, SHARES, Gate, Gates, Judgement, number
from edgekit.verify.metrics import Metrics

PASS, FAIL, UNVERIFIED = "pass", "fail", "unverified"


@dataclass(frozen=True)
class Evidence:
    """What the source and its artifacts were run on.

    Args:
        kind: `images`, `npy`, `npz`, `function`, `golden` (a package's own vectors), or `random`.
        origin: File or folder name of it; the seed for random inputs.
        sha256: Of what was used.
        runs: How many times each model ran.
        samples: How many samples that were: runs times the batch.
        real: Whether these are data that somebody gave; random inputs show that a graph is alive and certify nothing.
        labeled: Whether labels came with them.
    """

    kind: str
    origin: str
    sha256: str
    runs: int
    samples: int
    real: bool
    labeled: bool

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return dict(vars(self))


@dataclass(frozen=True)
class ArtifactVerdict:
    """What verification found of one artifact.

    `verdict` is `pass`, `fail` or `unverified`; `reasons` are sentences that say why it is not a pass.
    """

    file: str
    precision: str
    verdict: str
    reasons: tuple[str, ...]
    outputs: tuple[Metrics, ...]
    judgements: tuple[Judgement, ...]

    @property
    def classifier(self) -> Metrics | None:
        """The output that the labels belong to: the one on which the source is right most often. None without labels."""
        labeled = [m for m in self.outputs if m.source_accuracy is not None]
        return max(labeled, key=lambda m: m.source_accuracy or 0.0, default=None)

    def worst(self, metric: str) -> float | None:
        """The worst value of `metric` over the outputs that it applies to."""
        values = [v for v in (m.value(metric) for m in self.outputs) if v is not None]
        if not values:
            return None
        if any(v != v for v in values):
            return float("nan")
        return min(values) if METRICS[metric] == ">=" else max(values)

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {
            "file": self.file,
            "precision": self.precision,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "outputs": [m.to_json() for m in self.outputs],
            "gates": [j.to_json() for j in self.judgements],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ArtifactVerdict:
        """Read `to_json`'s dict."""
        return cls(
            document["file"],
            document["precision"],
            document["verdict"],
            tuple(document["reasons"]),
            tuple(Metrics.from_json(m) for m in document["outputs"]),
            tuple(Judgement.from_json(j) for j in document["gates"]),
        )


@dataclass(frozen=True)
class Verification:
    """The evidence, the gates, and one verdict per artifact."""

    evidence: Evidence
    gates: Gates
    artifacts: tuple[ArtifactVerdict, ...]

    @property
    def verdict(self) -> str:
        """The worst of the artifacts': one failure fails the package."""
        verdicts = {artifact.verdict for artifact in self.artifacts}
        return next((v for v in (FAIL, UNVERIFIED, PASS) if v in verdicts), UNVERIFIED)

    @property
    def exit_code(self) -> int:
        """2 where a gate failed, otherwise 0."""
        return 2 if self.verdict == FAIL else 0

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {
            "verdict": self.verdict,
            "evidence": self.evidence.to_json(),
            "gates": self.gates.to_json(),
            "artifacts": [a.to_json() for a in self.artifacts],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Verification:
        """Read `to_json`'s dict."""
        return cls(
            Evidence(**document["evidence"]),
            Gates.from_json(document["gates"]),
            tuple(ArtifactVerdict.from_json(a) for a in document["artifacts"]),
        )


def judge(file: str, precision: str, outputs: Sequence[Metrics], gates: Sequence[Gate], evidence: Evidence) -> ArtifactVerdict:
    """The verdict on one artifact.

    1. A number that is NaN or infinite where the source's is finite fails, whatever the gates.
    2. So does a source that gives no finite number at all: nothing was compared.
    3. Each gate judges each output that it applies to; one failure fails.
    4. On random inputs, or where no gate applied, the best verdict is `unverified`.
    """
    judgements = tuple(_judged(gate, metrics, evidence) for gate in gates for metrics in outputs)
    failures = [_sentence(j) for j in judgements if j.outcome == FAIL]
    failures += [
        f"{m.output}: {m.broken} of {m.elements} numbers are NaN or infinite, the source's are not" for m in outputs if m.broken
    ]
    failures += [
        f"{m.output}: the source itself gives no finite number on these inputs" for m in outputs if m.skipped and not m.elements
    ]
    if failures:
        return ArtifactVerdict(file, precision, FAIL, tuple(failures), tuple(outputs), judgements)
    reasons = []
    if not evidence.real:
        reasons.append("random inputs: they show that the artifact runs, not that it is right on real data")
    if all(j.outcome != PASS for j in judgements):
        reasons.append("no gate applies")
    return ArtifactVerdict(file, precision, UNVERIFIED if reasons else PASS, tuple(reasons), tuple(outputs), judgements)


def _judged(gate: Gate, metrics: Metrics, evidence: Evidence) -> Judgement:
    value = metrics.value(gate.metric)
    reason = _why_not(gate, metrics, evidence)
    if reason:
        return Judgement(gate, metrics.output, "not applicable", value, reason)
    assert value is not None
    return Judgement(gate, metrics.output, PASS if gate.keeps(value) else FAIL, value)


def _why_not(gate: Gate, metrics: Metrics, evidence: Evidence) -> str | None:
    """Why `gate` does not apply to this output; None where it does."""
    if gate.metric in SHARES and metrics.kind == "numbers":
        return "not a classifier"
    if gate.metric in ("accuracy", "accuracy_drop") and not evidence.labeled:
        return "no labels"
    if gate.metric not in SHARES and metrics.kind == "class":
        return "the output is a class, distances between classes mean nothing"
    if gate.metric in SHARES and evidence.kind == "golden":
        return f"{evidence.samples} golden samples are too few for a share"
    return None if metrics.value(gate.metric) is not None else "not measured"


def _sentence(judgement: Judgement) -> str:
    return f"{judgement.output}: {judgement.gate.metric} is {number(judgement.value)}, the gate is {judgement.gate}"
