"""Gates: the limits that an artifact must keep to be called the same model as its source."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekit.errors import InputError

# Which way each metric is good. docs/verify.md defines them.
METRICS = {
    "max_abs_error": "<=",
    "max_relative_error": "<=",
    "cosine": ">=",
    "sqnr_db": ">=",
    "top1_agreement": ">=",
    "accuracy": ">=",
    "accuracy_drop": "<=",
}

# Shares of samples: on the few golden vectors of a package one sample is worth more than the whole threshold.
SHARES = ("top1_agreement", "accuracy", "accuracy_drop")


@dataclass(frozen=True)
class Gate:
    """`metric <= threshold` or `metric >= threshold`; the direction is the metric's own."""

    metric: str
    threshold: float

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise InputError(f"{self.metric!r} is not a metric", where="gates", fix="use one of " + ", ".join(METRICS))
        if not math.isfinite(self.threshold):
            raise InputError(f"the gate {self.metric} needs a finite threshold, not {self.threshold}", where="gates")

    @property
    def operator(self) -> str:
        """`<=` or `>=`."""
        return METRICS[self.metric]

    def keeps(self, value: float) -> bool:
        """Whether `value` is within the gate; NaN never is."""
        return value <= self.threshold if self.operator == "<=" else value >= self.threshold

    def __str__(self) -> str:
        return f"{self.metric} {self.operator} {self.threshold:g}"


@dataclass(frozen=True)
class Override:
    """One `--gate`: for one precision or for all (None), a new threshold, or None to take the gate away."""

    metric: str
    precision: str | None
    threshold: float | None

    @classmethod
    def parse(cls, text: str) -> Override:
        """Read `int8.top1_agreement>=0.98`, `cosine>=0.999` (every precision) or `int8.top1_agreement=off`.

        Raises:
            InputError: The text does not have that form, or the metric goes the other way.
        """
        found = re.fullmatch(r"(?:(?P<precision>[^.<>=]+)\.)?(?P<metric>\w+)\s*(?P<op><=|>=|=)\s*(?P<value>\S+)", text.strip())
        if not found:
            raise InputError(f"cannot read the gate {text!r}", where="--gate", fix="write it as int8.top1_agreement>=0.98")
        metric, op, value = found["metric"], found["op"], found["value"]
        if metric not in METRICS:
            raise InputError(f"{metric!r} is not a metric", where=f"--gate {text}", fix="use one of " + ", ".join(METRICS))
        precision = _precision(found["precision"])
        if op == "=":
            if value != "off":
                fix = f"write {metric}{METRICS[metric]}{value}, or {metric}=off to take the gate away"
                raise InputError(f"a gate is a limit, not {text!r}", where="--gate", fix=fix)
            return cls(metric, precision, None)
        if op != METRICS[metric]:
            raise InputError(f"{metric} is good when {METRICS[metric]} its threshold", where=f"--gate {text}")
        try:
            threshold = float(value)
        except ValueError:
            raise InputError(f"{value!r} is not a number", where=f"--gate {text}") from None
        return cls(metric, precision, Gate(metric, threshold).threshold)


@dataclass(frozen=True)
class Judgement:
    """What one gate says of one output of one artifact.

    `outcome` is `pass`, `fail` or `not applicable`; the last has a `reason`, and a `value` where there is one to show.
    """

    gate: Gate
    output: str
    outcome: str
    value: float | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        head = {"metric": self.gate.metric, "operator": self.gate.operator, "threshold": self.gate.threshold}
        return {**head, "output": self.output, "outcome": self.outcome, "value": number(self.value), "reason": self.reason}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Judgement:
        """Read `to_json`'s dict."""
        gate = Gate(document["metric"], float(document["threshold"]))
        value = document["value"]
        return cls(gate, document["output"], document["outcome"], None if value is None else float(value), document["reason"])


@dataclass(frozen=True)
class Gates:
    """The gates of every precision, `{"int8": (Gate, …)}`."""

    by_precision: Mapping[str, tuple[Gate, ...]] = field(default_factory=dict)

    def of(self, precision: str) -> tuple[Gate, ...]:
        """The gates of `precision`, in the order of METRICS."""
        return self.by_precision.get(precision, ())

    def overridden(self, overrides: Iterable[Override], precisions: Sequence[str]) -> Gates:
        """These gates with each override applied in turn; one without a precision goes to all of `precisions`.

        Raises:
            InputError: An override names a precision that is not among `precisions`.
        """
        tables = {p: {gate.metric: gate for gate in self.of(p)} for p in {*self.by_precision, *precisions}}
        for override in overrides:
            if override.precision is not None and override.precision not in precisions:
                fix = "the precisions here are " + ", ".join(precisions)
                raise InputError(f"there is no {override.precision} artifact to put a gate on", where="--gate", fix=fix)
            for precision in precisions if override.precision is None else (override.precision,):
                if override.threshold is None:
                    tables[precision].pop(override.metric, None)
                else:
                    tables[precision][override.metric] = Gate(override.metric, override.threshold)
        order = list(METRICS)
        return Gates({p: tuple(sorted(t.values(), key=lambda g: order.index(g.metric))) for p, t in sorted(tables.items())})

    def to_json(self) -> dict[str, dict[str, float]]:
        """`{"int8": {"cosine": 0.95}}`: what target.toml holds as well."""
        return {p: {gate.metric: gate.threshold for gate in gates} for p, gates in self.by_precision.items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Mapping[str, float]]) -> Gates:
        """Read `to_json`'s dict.

        Raises:
            InputError: A metric is unknown or a threshold is not finite.
        """
        return cls({p: tuple(Gate(metric, float(value)) for metric, value in table.items()) for p, table in document.items()})


def number(value: float | None) -> float | str | None:
    """A number as JSON can hold it: infinities and NaN, which JSON lacks, become the strings `inf`, `-inf`, `nan`."""
    return value if value is None or math.isfinite(value) else str(float(value))


def _precision(text: str | None) -> str | None:
    if text is None:
        return None
    from edgekit.quantize.precision import parse_precision

    return parse_precision(text)
