"""Exports every real model as a user would, and shows in one table whether it is still the same model.

    .venv/bin/python scripts/show_models.py                 # all; what this very edgekit has shown is not repeated
    .venv/bin/python scripts/show_models.py --only resnet56 --again --samples 10000
    .venv/bin/python scripts/show_models.py --write         # also writes docs/models.md

Each model is a process of its own, which calls `edgekit export` and another converter on the same network: TFLiteConverter for
Keras, litert-torch for PyTorch (its environment is made by `bench_convert.py --setup`), the author's own TFLite file for
basic-pitch. Exit code 1 when a model misses what docs/models.md promises.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import peer_models
import tflite_facts
from real_models.recipes import RECIPES, Export, Recipe, recipe
from real_models.registry import Unavailable, cache_folder

ROOT = Path(__file__).resolve().parent.parent
FP32_ERROR = 1e-4
FP16_COSINE = 0.9999
TIMEOUT = 1800
RECIPE_FILES = tuple((ROOT / "scripts" / "real_models").glob("*.py"))


@dataclass(frozen=True)
class Shown:
    """What came of one model. Lists run over the package's artifacts of a precision, errors over their outputs (the worst).

    `failure` is why there is no package, `skipped` why nothing was tried; then the rest is None or empty. `peer_failure` is why
    there is nothing to compare operators with.
    """

    name: str
    failure: str | None = None
    skipped: str | None = None
    verdict: str | None = None
    samples: int | None = None
    fp32_error: float | None = None
    fp16_cosine: float | None = None
    int8_agreement: float | None = None
    source_accuracy: float | None = None
    accuracy: dict[str, float] | None = None
    operators: dict[str, int] | None = None
    peer: str | None = None
    peer_operators: dict[str, int] | None = None
    peer_failure: str | None = None
    latency_ms: float | None = None
    peer_latency_ms: float | None = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ", ".join(recipe.name for recipe in RECIPES)
    parser.add_argument("--only", action="append", metavar="MODEL", help=f"one of {names}; may be repeated")
    parser.add_argument("--again", action="store_true", help="also export what was shown before")
    parser.add_argument("--samples", type=int, default=1000, help="test samples of CIFAR-10 and MNIST (at most 10000)")
    parser.add_argument("--write", action="store_true", help="write docs/models.md")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--litert-torch-python", type=Path, default=peer_models.litert_torch_python())
    parser.add_argument("--worker", type=Path, metavar="RESULT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = [recipe(name) for name in options.only] if options.only else list(RECIPES)
    if options.worker:
        options.worker.write_text(json.dumps(asdict(show(chosen[0], options.samples, options.litert_torch_python))))
        return 0
    shown = []
    for one in chosen:
        shown.append(_in_own_process(one, options))
        print(
            f"{one.name}: {'; '.join(shortcomings(shown[-1])) or shown[-1].skipped or 'as promised'}", file=sys.stderr, flush=True
        )
    document = "\n".join(_document(shown))
    print(document)
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in shown], indent=2) + "\n")
    if options.write:
        (ROOT / "docs" / "models.md").write_text(document + "\n")
    return 1 if any(shortcomings(one) for one in shown) else 0


def show(model: Recipe, samples: int, litert_torch_python: Path) -> Shown:
    """Export one model and compare it with its source and with the other converter."""
    try:
        export = model.prepare(samples)
    except Unavailable as error:
        return Shown(model.name, skipped=str(error))
    with tempfile.TemporaryDirectory(prefix="edgekit-models-") as scratch:
        package = Path(scratch, "package")
        done = subprocess.run(command(model, export, package), capture_output=True, text=True, cwd=ROOT)
        if not (package / "edgekit.json").exists():
            return Shown(model.name, failure=_last_words(done.stderr) or f"exit code {done.returncode}")
        manifest = json.loads((package / "edgekit.json").read_text())
        facts: dict[str, Any] = _from_manifest(manifest)
        ours = package / "model_fp32.tflite"
        facts["latency_ms"] = tflite_facts.latencies([ours])[0]
        theirs = Path(scratch, "peer.tflite")
        try:
            facts["peer"] = peer_models.convert(model, export, theirs, litert_torch_python)
            facts["peer_operators"] = dict(tflite_facts.operators(theirs))
            facts["latency_ms"], facts["peer_latency_ms"] = tflite_facts.latencies([ours, theirs])
        except peer_models.NoPeer as error:
            facts["peer_failure"] = str(error)
        return Shown(model.name, **facts)


def command(model: Recipe, export: Export, package: Path) -> list[str]:
    """The call of `edgekit export`, as a user would write it."""
    words = [sys.executable, "-m", "edgekit", "export", export.source, "--target", "android", "--json", "--output", str(package)]
    words += ["--precision", "fp32,fp16,int8" if model.classifier else "fp32,fp16", "--data", export.data]
    for spec in export.inputs:
        words += ["--input", spec]
    for gate in export.gates:
        words += ["--gate", gate]
    for option in ("preprocess", "calibration", "labels"):
        if getattr(export, option) is not None:
            words += [f"--{option}", getattr(export, option)]
    return words


def shortcomings(one: Shown) -> list[str]:
    """Where the model misses what docs/models.md promises; empty for one that was skipped."""
    if one.skipped:
        return []
    if one.failure:
        return [f"not exported: {one.failure}"]
    model = recipe(one.name)
    assert one.operators is not None
    found = []
    if one.fp32_error is None or not one.fp32_error <= FP32_ERROR:
        found.append(f"FP32 relative error {one.fp32_error:.1e} > {FP32_ERROR:.0e}")
    if one.fp16_cosine is None or not one.fp16_cosine >= FP16_COSINE:
        found.append(f"FP16 cosine {one.fp16_cosine:.6f} < {FP16_COSINE}")
    if one.verdict != "pass":
        found.append(f"verdict {one.verdict}")
    if model.plain_cnn and one.operators.get("TRANSPOSE"):
        found.append(f"{one.operators['TRANSPOSE']} TRANSPOSE")
    if one.peer_operators and sum(one.operators.values()) > sum(one.peer_operators.values()):
        more = {name: count - one.peer_operators.get(name, 0) for name, count in one.operators.items()}
        extra = ", ".join(f"{count} {name}" for name, count in sorted(more.items()) if count > 0)
        found.append(
            f"{sum(one.operators.values()) - sum(one.peer_operators.values())} operators more than {one.peer} (+{extra})"
        )
    return found


def _last_words(text: str) -> str:
    """What edgekit says of its error, on one line; the runtimes' own log lines before it are left out."""
    lines = text.strip().splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("edgekit:")]
    return " ".join(line.strip() for line in lines[starts[-1] if starts else -1 :])


def _from_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    verified = manifest["verification"]
    by_precision: dict[str, list[dict[str, Any]]] = {}
    accuracy: dict[str, float] = {}
    for artifact in verified["artifacts"]:
        by_precision.setdefault(artifact["precision"], []).extend(artifact["outputs"])
        for output in artifact["outputs"]:
            if output.get("accuracy") is not None:
                accuracy[artifact["file"]] = output["accuracy"]
    outputs = [output for artifact in verified["artifacts"] for output in artifact["outputs"]]
    sources = [output["source_accuracy"] for output in outputs if output.get("source_accuracy") is not None]
    agreements = [output["top1_agreement"] for output in by_precision.get("int8", []) if output["top1_agreement"] is not None]
    tflite = next(artifact for artifact in manifest["artifacts"] if artifact["file"] == "model_fp32.tflite")
    return {
        "verdict": verified["verdict"],
        "samples": verified["evidence"]["samples"],
        "fp32_error": max(output["max_relative_error"] for output in by_precision["fp32"]),
        "fp16_cosine": min(output["cosine"] for output in by_precision["fp16"]),
        "int8_agreement": min(agreements) if agreements else None,
        "source_accuracy": sources[0] if sources else None,
        "accuracy": accuracy,
        "operators": tflite["operators"],
    }


def _in_own_process(model: Recipe, options: argparse.Namespace) -> Shown:
    result = cache_folder() / "shown" / _edition() / f"{model.name}.json"
    if result.exists() and not options.again:
        values = json.loads(result.read_text())
        if values.keys() == {field.name for field in fields(Shown)} and not values["skipped"]:
            return Shown(**values)
    result.parent.mkdir(parents=True, exist_ok=True)
    partial = result.with_suffix(".partial")
    words = [sys.executable, __file__, "--only", model.name, "--samples", str(options.samples), "--worker", str(partial)]
    words += ["--litert-torch-python", str(options.litert_torch_python)]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    try:
        done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return Shown(model.name, failure=f"no result within {TIMEOUT} s")
    if done.returncode:
        return Shown(model.name, failure=(done.stderr.strip().splitlines() or ["no message"])[-1])
    partial.replace(result)
    return Shown(**json.loads(result.read_text()))


def _edition() -> str:
    """A digest of edgekit's code, its targets and the recipes: what was shown of other code says nothing about this."""
    digest = hashlib.sha256()
    for file in sorted([*(ROOT / "edgekit").rglob("*.py"), *(ROOT / "targets").rglob("*.toml"), *RECIPE_FILES]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _document(shown: Iterable[Shown]) -> list[str]:
    shown = list(shown)
    lines = [
        "# Real models",
        "",
        "Written by `scripts/show_models.py --write`; do not edit. Every model comes from a package registry (last column) and",
        "is exported by `edgekit export --target android`, compared with its source on real data: photographs, CIFAR-10, MNIST,",
        "faces, speech, English sentences. Promised are a relative error of at most 1e-4 in FP32, a cosine of at least 0.9999 in",
        "FP16, no TRANSPOSE in a plain CNN, and no more operators than the other converter makes.",
        "",
        "*Error* and *cosine* are the worst over TFLite and ONNX Runtime artifacts and their outputs; *accuracy* is that of the",
        "source, then of the worst artifact in FP32, FP16 and INT8; *agreement* is how often INT8 picks the class of the source.",
        "*Operators* and *transposes* are those of the FP32 TFLite, beside the other converter's. *Latency* is CPU time of one",
        "inference on one thread, in ms, taking turns.",
        "",
        "| Model | Verdict | Samples | FP32 error | FP16 cosine | Accuracy: source → FP32, FP16, INT8 | INT8 agreement |"
        " Operators | Transposes | Latency | Other converter | From |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_row(one) for one in shown),
    ]
    found = [f"- {one.name}: {'; '.join(shortcomings(one))}" for one in shown if shortcomings(one)]
    return lines + (["", "Short of that:", "", *found] if found else ["", "Nothing is short of that."])


def _row(one: Shown) -> str:
    model = recipe(one.name)
    if one.skipped or one.failure:
        state = f"skipped: {one.skipped}" if one.skipped else "not exported"
        return f"| {one.name} | {state} | | | | | | | | | | {model.origin} |"
    assert one.operators is not None
    theirs = one.peer_operators
    accuracy = _accuracies(one)
    cells = (
        one.name,
        str(one.verdict),
        str(one.samples),
        f"{one.fp32_error:.1e}",
        f"{one.fp16_cosine:.6f}",
        accuracy,
        "" if one.int8_agreement is None else f"{one.int8_agreement:.1%}",
        f"{sum(one.operators.values())}" + (f" / {sum(theirs.values())}" if theirs else ""),
        f"{one.operators.get('TRANSPOSE', 0)}" + (f" / {theirs.get('TRANSPOSE', 0)}" if theirs else ""),
        f"{one.latency_ms:.2f}" + (f" / {one.peer_latency_ms:.2f}" if theirs else ""),
        one.peer or f"none: {one.peer_failure}",
        model.origin,
    )
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"


def _accuracies(one: Shown) -> str:
    if one.source_accuracy is None or not one.accuracy:
        return ""
    worst = {
        precision: min(value for file, value in one.accuracy.items() if file.startswith(f"model_{precision}."))
        for precision in ("fp32", "fp16", "int8")
        if any(file.startswith(f"model_{precision}.") for file in one.accuracy)
    }
    return f"{one.source_accuracy:.2%} → " + ", ".join(f"{value:.2%}" for value in worst.values())


if __name__ == "__main__":
    sys.exit(main())
