"""docs/zoo.md, from the results of scripts/zoo.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from zoo_worker import OUTCOMES, Result

TITLES = {
    "onnx": "ONNX files from packages",
    "transformers": "transformers",
    "torchvision": "torchvision",
    "timm": "timm",
    "keras": "keras.applications",
}
FINE = ("exact", "ill-conditioned")


def page(results: Sequence[Result], total: int) -> str:
    """The page, for the results in the order of the zoo; `total` is how many networks the zoo has."""
    lines = [
        "# The zoo",
        "",
        "Written by `scripts/zoo.py --write`; do not edit. Every network is built by its own library, with random weights drawn",
        "so that each parameter shows in the output, or comes from a package. It is exported to ONNX, compiled, run by LiteRT on",
        "one thread, compared with what its own framework computes on the same seeded input. *Error* is max |a - b| / max |a|",
        "of the worst output, a being the framework's; *exact* is at most 1e-4. *Ill-conditioned* is one of which",
        "onnxruntime, on the exported graph, is as far from the framework as the artifact (within a factor of 4);",
        "*no source*, one that the framework does not run or export.",
        "",
        "*Operators* and *TRANSPOSE* are those of the FP32 file, *nodes* those of the exported graph; *size* is the file's,",
        "and in percent of the graph's constants; *hub* and *compile* are CPU seconds.",
        "",
        f"{len(results)} of {total} networks have been run.",
        "",
        f"| | {' | '.join(OUTCOMES)} |",
        f"| --- |{' --- |' * len(OUTCOMES)}",
    ]
    for collection, title in TITLES.items():
        counts = Counter(r.outcome for r in results if _collection(r) == collection)
        if counts:
            lines.append(f"| {title} | " + " | ".join(str(counts[outcome] or "") for outcome in OUTCOMES) + " |")
    failures = [r for r in results if r.outcome not in FINE]
    if failures:
        lines += ["", "## What does not work yet", "", "| Network | Outcome | Reason |", "| --- | --- | --- |"]
        lines += [f"| {r.name} | {r.outcome} | {_cell(r.reason)} |" for r in failures]
    for collection, title in TITLES.items():
        rows = [_row(r) for r in results if _collection(r) == collection and r.operators]
        if rows:
            lines += ["", f"## {title}", ""]
            lines.append("| Network | Error | onnxruntime | Nodes | Operators | TRANSPOSE | Size | Hub | Compile |")
            lines += ["| --- | --- | --- | --- | --- | --- | --- | --- | --- |", *rows]
    return "\n".join(lines) + "\n"


def _collection(result: Result) -> str:
    return result.name.partition("/")[0]


def _row(result: Result) -> str:
    assert result.operators is not None
    assert result.bytes is not None
    cells = (
        result.name.partition("/")[2],
        _number(result.error) + ("" if result.outcome in FINE else f" ({result.outcome})"),
        _number(result.ort_error),
        str(result.nodes),
        str(sum(result.operators.values())),
        str(result.operators.get("TRANSPOSE", 0) or ""),
        f"{result.bytes / 1e6:.2f} MB" + (f", {result.bytes / result.weight_bytes:.1%}" if result.weight_bytes else ""),
        f"{result.hub_s:.2f}",
        f"{result.compile_s:.2f}",
    )
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
