"""docs/int8.md, from the results of bench_quant.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from quant_results import LITERT, ORT, ROOT, Key, Measured, to_compare
from quant_subjects import SUBJECTS, Subject

PAGE = ROOT / "docs" / "int8.md"
INTRODUCTION = """\
# INT8 on real models

Written by `scripts/bench_quant.py --write`; do not edit. Trained models from package registries, quantized by `edgekit export`
and by three other tools: ai-edge-quantizer (its static recipe and its own calibration, on edgekit's float32 TFLite file),
TensorFlow's TFLiteConverter (INT8 operators alone; on the Keras model, or on the SavedModel that onnx2tf makes of the exported
graph), and onnxruntime's `quantize_static` (QDQ, a scale per output channel, after its own preprocessing of the exported
graph). All of them calibrate on the same samples, all artifacts take and give float32, and all answer the same test samples in
one run.

*Unchanged* is how many test samples are answered as by the source: the same class; for sentences the same nearest other
sentence; for notes a pitch less than half a semitone away. *Rank* is Spearman's correlation, with the source's, of the
similarities of all pairs of sentences. *SQNR* is the squared size of the source's results over that of the difference. *Size*
and *latency* are parts of those of edgekit's float32 file for the same runtime; latency is CPU time on one thread, all files of
a model taking turns. *In INT8* is the share of operators that compute on 8-bit integers, of those that compute at all (of ONNX
files, as onnxruntime runs them). *Apart* is the distance between edgekit's two artifacts, for LiteRT and for ONNX Runtime, over
the lesser of their distances from the source: below 1 they are closer to each other than to it.

Goals of `int8`: within 0.5 points of the source's accuracy, at least 97 % unchanged, at least 90 % of operators in INT8."""
HEADER = """\
| Model | Tool | Runtime | Precision | Accuracy | Unchanged | SQNR | Size | Latency | In INT8 | Apart | Goals |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def show(known: Mapping[Key, Measured], costs: Mapping[str, str], *, write: bool) -> None:
    """Print the page; with `write`, also write it."""
    document = "\n".join(_document(known, costs)) + "\n"
    print(document)
    if write:
        PAGE.write_text(document)


def line(row: Measured) -> str:
    """A row in words, while it is measured."""
    if row.failure:
        return f"{row.tool} {row.precision} {row.runtime}: {row.failure}"
    accuracy = "" if row.accuracy is None else f", accuracy {row.accuracy:.2%} of {row.source_accuracy:.2%}"
    apart = "" if row.between is None or not row.error else f", apart {row.between / row.error:.2f}"
    share = f"{row.integer_operators}/{row.operators} in INT8"
    return f"{row.tool} {row.precision} {row.runtime}: {row.unchanged:.2%} unchanged, {row.sqnr:.1f} dB, {share}{accuracy}{apart}"


def _document(known: Mapping[Key, Measured], costs: Mapping[str, str]) -> Iterator[str]:
    yield INTRODUCTION
    yield ""
    yield HEADER
    for one in SUBJECTS:
        yield from (_row(row, known) for row in _rows(one, known))
    yield ""
    yield from _samples(known)
    yield from _failures(known)
    if costs:
        yield from ("## What calibration costs", "", *(f"{said}\n" for said in costs.values()))
    codes = sorted({row.code for row in known.values() if row.tool == "edgekit" and row.precision != "fp32"})
    yield "edgekit's rows are of commit " + ", ".join(codes) + "."


def _rows(one: Subject, known: Mapping[Key, Measured]) -> list[Measured]:
    """Of one model: INT8 of LiteRT by each tool, then of ONNX Runtime, then edgekit's other precisions."""
    rows = [row for row in known.values() if row.model == one.name and not row.failure and row.precision != "fp32"]
    return sorted(
        rows, key=lambda row: (row.precision != "int8", row.runtime == ORT, row.precision, row.tool != "edgekit", row.tool)
    )


def _row(row: Measured, known: Mapping[Key, Measured]) -> str:
    exact = to_compare(row, known)
    cells = (
        row.model,
        row.tool,
        row.runtime,
        row.precision,
        _accuracy(row),
        _percent(row.unchanged),
        f"{row.sqnr:.1f} dB",
        "" if exact is None or not row.bytes or not exact.bytes else f"{row.bytes / exact.bytes:.2f}",
        "" if exact is None or not row.latency or not exact.latency else f"{row.latency / exact.latency:.2f}",
        f"{row.integer_operators} of {row.operators}",
        _apart(row, known),
        ("; ".join(row.missed()) or "met") if row.precision == "int8" else "",
    )
    return "| " + " | ".join(cells) + " |"


def _accuracy(row: Measured) -> str:
    if row.rank is not None:
        return f"rank {row.rank:.4f}"
    return "" if row.accuracy is None else f"{row.accuracy:.2%} ({100 * (row.accuracy - (row.source_accuracy or 0)):+.2f})"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _apart(row: Measured, known: Mapping[Key, Measured]) -> str:
    twins = [known.get((row.model, row.tool, runtime, row.precision)) for runtime in (LITERT, ORT)]
    errors = [twin.error for twin in twins if twin is not None and twin.error is not None]
    return "" if row.between is None or len(errors) < 2 else f"{row.between / min(errors):.2f}"


def _samples(known: Mapping[Key, Measured]) -> Iterator[str]:
    yield "| Model | Test samples | Source's accuracy | Test data; calibration data | float32, LiteRT | float32, ONNX Runtime |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for one in SUBJECTS:
        exact = [known.get((one.name, "edgekit", runtime, "fp32")) for runtime in (LITERT, ORT)]
        if exact[0] is not None:
            accuracy = exact[0].source_accuracy
            times = [f"{row.latency:.2f} ms, {row.sqnr:.0f} dB" if row and row.latency else "" for row in exact]
            yield f"| {one.name} | {exact[0].samples:,} | {_percent(accuracy)} | {one.what} | {times[0]} | {times[1]} |"
    yield ""


def _failures(known: Mapping[Key, Measured]) -> Iterator[str]:
    failed = [row for row in known.values() if row.failure]
    if failed:
        yield from ("No artifact:", "")
        yield from (f"- {row.model}, {row.tool}, {row.precision} for {row.runtime}: {row.failure}" for row in failed)
        yield ""
