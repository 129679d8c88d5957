"""What bench_quant.py knows of each quantized model, and the file that holds it: one line of JSON for each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from zoo_results import ROOT

RESULTS = ROOT / "docs" / "int8.jsonl"
LITERT, ORT = "LiteRT", "ONNX Runtime"
FORMATS = {LITERT: "tflite", ORT: "onnx"}

ACCURACY_LOST = 0.005
UNCHANGED = 0.97
IN_INT8 = 0.90
Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Measured:
    """One artifact of one model. Figures are None where there is nothing to measure.

    Args:
        model, tool, runtime, precision: What it is; `edgekit` in `fp32` is what the others are compared with.
        code: edgekit's commit, or the version of the other tool.
        samples: Test samples.
        failure: Why there is no artifact.
        accuracy, source_accuracy: Share of right answers.
        unchanged: Share of samples that the source answers alike.
        sqnr: Squared size of the source's results over that of the difference, in dB.
        rank: Spearman's correlation of the similarities of all pairs of sentences with the source's.
        error: Root mean square of the difference to the source's results.
        between: The same between the artifacts of the two runtimes.
        bytes: Of the file.
        latency: Milliseconds of CPU time of one inference on one thread.
        operators, integer_operators: Operators that compute, and those of them that compute in INT8.
        float_operators: The others by name.
    """

    model: str
    tool: str
    runtime: str
    precision: str
    code: str
    samples: int
    failure: str = ""
    accuracy: float | None = None
    source_accuracy: float | None = None
    unchanged: float | None = None
    sqnr: float | None = None
    rank: float | None = None
    error: float | None = None
    between: float | None = None
    bytes: int | None = None
    latency: float | None = None
    operators: int | None = None
    integer_operators: int | None = None
    float_operators: str = ""

    @property
    def file(self) -> str:
        """Its name in the cache."""
        return f"{self.tool}-{self.precision}.{FORMATS[self.runtime]}"

    @property
    def key(self) -> Key:
        return self.model, self.tool, self.runtime, self.precision

    def missed(self) -> list[str]:
        """The goals of INT8 that it misses, in words."""
        found = []
        if self.accuracy is not None and self.source_accuracy is not None:
            lost = self.source_accuracy - self.accuracy
            found += [f"loses {100 * lost:.2f} points"] if round(lost, 9) > ACCURACY_LOST else []
        if self.unchanged is not None and round(self.unchanged, 9) < UNCHANGED:
            found.append(f"{self.unchanged:.1%} unchanged")
        if self.operators and self.integer_operators is not None and self.integer_operators < IN_INT8 * self.operators:
            found.append(f"{self.integer_operators} of {self.operators} operators in INT8")
        return found


def load(path: Path = RESULTS) -> dict[Key, Measured]:
    """All results, in the order of the file."""
    known = {field.name for field in fields(Measured)}
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [Measured(**{key: value for key, value in json.loads(line).items() if key in known}) for line in lines]
    return {row.key: row for row in rows}


def to_compare(row: Measured, known: Mapping[Key, Measured]) -> Measured | None:
    """edgekit's float32 artifact for the same runtime."""
    return known.get((row.model, "edgekit", row.runtime, "fp32"))


def save(rows: Iterable[Measured], path: Path = RESULTS) -> None:
    """Put rows into the file in place of those of the same key."""
    known = load(path) | {row.key: row for row in rows}
    partial = path.with_suffix(".part")
    partial.write_text("".join(json.dumps(_written(row)) + "\n" for row in known.values()))
    partial.replace(path)


def _written(row: Measured) -> dict[str, object]:
    """Without what is empty, and with numbers as precise as they are."""
    values = {key: value for key, value in asdict(row).items() if value not in (None, "")}
    return {key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in values.items()}
