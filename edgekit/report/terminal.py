"""Tables for a terminal, and the same as plain text in a pipe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from edgekit.doctor import Diagnosis
    from edgekit.inspect import Inspection
    from edgekit.package import Package
    from edgekit.targets import Target
    from edgekit.verify.verdict import ArtifactVerdict, Verification

_COLORS = {"pass": "green", "fail": "bold red", "unverified": "yellow"}
_PIPE_WIDTH = 140


def show(console: Console, content: RenderableType) -> None:
    """Print, at a fixed width where there is no terminal: tables in a log must not wrap at 80 columns."""
    if console.is_terminal:
        console.print(content)
        return
    console.width = _PIPE_WIDTH
    with console.capture() as captured:
        console.print(content)
    for line in captured.get().splitlines():
        console.file.write(line.rstrip() + "\n")


def package_table(package: Package, verification: Verification | None = None) -> RenderableType:
    """One row per artifact, the evidence below it, and what is wrong with each artifact that did not pass.

    Args:
        package: What was exported or loaded.
        verification: A newer one than the package's own; the latency, which belongs to the export, is left out then.
    """
    shown = verification or package.verification
    labeled = shown.evidence.labeled
    table = _table("artifact", "size", "rel. error", "cosine", "top-1")
    if labeled:
        table.add_column("accuracy", justify="right")
    if verification is None:
        table.add_column("latency here", justify="right")
    table.add_column("verdict")
    latency: Mapping[str, Any] = package.measured.get("latency", {})
    by_file = {verdict.file: verdict for verdict in shown.artifacts}
    for artifact in package.artifacts:
        verdict = by_file[artifact.file]
        cells: list[RenderableType] = [
            Text(artifact.file),
            _size(artifact.bytes),
            _error(verdict),
            _cosine(verdict),
            _share(verdict.worst("top1_agreement")),
        ]
        if labeled:
            cells.append(_accuracy(verdict))
        if verification is None:
            cells.append(_time(latency[artifact.file]["median_ms"]) if artifact.file in latency else "")
        table.add_row(*cells, _verdict(verdict.verdict, shown))
    made = _quantization(package) if verification is None else []
    return Group(table, *_evidence(shown), *_reasons(shown.artifacts), *made, *(_note(note) for note in package.notes))


def _quantization(package: Package) -> list[RenderableType]:
    """What each step for int8 brought, and what the search for `auto` tried."""
    found: list[RenderableType] = []
    made = package.quantization or {}
    if made.get("gains"):
        steps = ", ".join(f"{gain['step']} {gain['sqnr_db']:.1f}" for gain in made["gains"])
        found.append(_note(f"int8, simulated on samples held back, dB: {steps}"))
    search = made.get("search") or {}
    if len(search.get("curve", ())) > 1:
        table = _table("in float", "lost", *search["curve"][0]["bytes"])
        for point in search["curve"]:
            sizes = (_size(count) for count in point["bytes"].values())
            table.add_row(f"{point['float']} nodes", f"{point['drop']:.3g} %", *sizes)
        table.caption = f"trials for auto; lost: {search['measure']}"
        found.append(table)
    return found


def inspection_table(inspection: Inspection) -> RenderableType:
    """What is in a model file."""
    facts = Table.grid(padding=(0, 2))
    facts.add_row("file", f"{escape(inspection.file)}  ({inspection.format}, {_size(inspection.bytes)})")
    for side, specs in (("input", inspection.inputs), ("output", inspection.outputs)):
        for spec in specs:
            facts.add_row(side, escape(f"{spec.name}  {spec}"))
    facts.add_row("precision", inspection.precision)
    facts.add_row("parameters", f"{inspection.parameters:,}")
    for dtype, count in inspection.weights.items():
        facts.add_row("weights", f"{dtype}: {count.elements:,} in {count.tensors} tensors, {_size(count.bytes)}")
    for note in inspection.notes:
        facts.add_row("note", escape(note))
    table = _table("operator", "count")
    for name, times in inspection.operators.items():
        table.add_row(escape(name), str(times))
    table.caption = f"{sum(inspection.operators.values())} operators"
    return Group(facts, table) if inspection.operators else facts


def contents_table(package: Package) -> RenderableType:
    """What is in a package, before its verdicts."""
    facts = Table.grid(padding=(0, 2))
    facts.add_row(
        "package", escape(f"{package.name}, made for {package.target} from {package.source.kind} {package.source.name}")
    )
    for side, specs in (("input", package.inputs), ("output", package.outputs)):
        for spec in specs:
            facts.add_row(side, escape(f"{spec.name}  {spec}"))
    for artifact in package.artifacts:
        operators = f"{sum(artifact.operators.values())} operators of {len(artifact.operators)} kinds"
        facts.add_row(artifact.file, f"{operators}" + "".join(f"; {escape(note)}" for note in artifact.notes))
    return Group(facts, package_table(package))


def targets_table(targets: Sequence[Target]) -> RenderableType:
    """One row per target."""
    table = _table("target", "formats", "precisions", "delegates", "what it is", left=True)
    for target in targets:
        delegates = dict.fromkeys(d for artifact in target.artifacts for d in artifact.delegates)
        table.add_row(target.name, ", ".join(target.formats), ", ".join(target.precisions), ", ".join(delegates), target.summary)
    return table


def doctor_table(diagnosis: Diagnosis) -> RenderableType:
    """What is installed and what the machine can do."""
    table = _table("part", "package", "needs", "installed", "state", left=True)
    for part in diagnosis.parts:
        color = {"ok": "green", "missing": "yellow"}.get(part.state, "red")
        color = "red" if part.extra is None and part.state != "ok" else color
        state = Text(part.state, style=color)
        table.add_row(part.extra or "core", part.name, part.needs or "any", part.installed or "", state)
    facts = Table.grid(padding=(0, 2))
    for key, value in diagnosis.machine.items():
        facts.add_row(key, escape(", ".join(value) if isinstance(value, list | tuple) else str(value)))
    return Group(table, facts, *(_note(advice) for advice in diagnosis.advice))


def _table(first: str, *others: str, left: bool = False) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=not left)
    for name in others:
        table.add_column(name, justify="left" if left else "right")
    return table


def _verdict(verdict: str, verification: Verification) -> Text:
    text = verdict
    if verdict == "unverified":
        text = "unverified (random inputs)" if not verification.evidence.real else "unverified (no gate applies)"
    return Text(text, style=_COLORS[verdict])


def _evidence(verification: Verification) -> Iterable[Text]:
    evidence = verification.evidence
    if evidence.real:
        samples = f"{evidence.samples} real sample{'s' if evidence.samples != 1 else ''}"
        labels = " with labels" if evidence.labeled else ""
        yield Text(f"compared with the source on {samples}{labels}: {evidence.origin}")
    else:
        yield Text(
            f"compared on {evidence.runs} RANDOM inputs: they show that it runs and certify nothing. Give real ones with --data.",
            style="bold yellow",
        )


def _reasons(verdicts: Iterable[ArtifactVerdict]) -> Iterable[Text]:
    for verdict in verdicts:
        if verdict.verdict == "fail":
            for reason in verdict.reasons:
                yield Text(f"{verdict.file}: {reason}", style="red")


def _note(note: str) -> Text:
    return Text(note, style="dim")


def _size(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count} B"


def _time(milliseconds: float) -> str:
    """Three digits or so."""
    digits = 3 if milliseconds < 1 else 2 if milliseconds < 10 else 1 if milliseconds < 100 else 0
    return f"{milliseconds:.{digits}f} ms"


def _error(verdict: ArtifactVerdict) -> str:
    value = verdict.worst("max_relative_error")
    return "" if value is None else f"{value:.1e}" if math.isfinite(value) else "not finite"


def _cosine(verdict: ArtifactVerdict) -> str:
    value = verdict.worst("cosine")
    return "" if value is None else f"{value:.6f}" if math.isfinite(value) else "not finite"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _accuracy(verdict: ArtifactVerdict) -> str:
    labeled = verdict.classifier
    return "" if labeled is None else f"{_share(labeled.source_accuracy)} → {_share(labeled.accuracy)}"
