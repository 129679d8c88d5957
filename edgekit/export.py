"""The pipeline: a source model becomes a verified package."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.contract import Artifact, Feeds, Results, TensorSpec
from edgekit.errors import ArtifactError, InputError, QuantizeError, TargetError
from edgekit.hub.quantized import is_quantized
from edgekit.inspect import inspect
from edgekit.make import Maker
from edgekit.ort.probe import PROBES
from edgekit.package import RECIPE, Draft, Package, PackagedArtifact, SourceRecord, drafted, golden_count
from edgekit.plan import Plan, make_plan
from edgekit.preprocess import Preprocess
from edgekit.quantize import Calibration, Conditioned, Recipe, condition, load_data, load_recipe
from edgekit.quantize.data import evenly_spaced
from edgekit.quantize.doubts import doubts
from edgekit.quantize.precision import AUTO
from edgekit.quantize.search import Found
from edgekit.runtimes import Runner
from edgekit.searching import Question, find_recipe, split
from edgekit.sources import Source, open_source
from edgekit.targets import Target, load_target
from edgekit.verify.compare import compare, measure_latency
from edgekit.verify.samples import Samples, random_samples, real_samples
from edgekit.verify.verdict import Verification, judge

if TYPE_CHECKING:
    import onnx_ir

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps of it are done, and how many there are (0: unknown)."""


def export(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str] = "android",
    *,
    output: str | os.PathLike[str] | None = None,
    precisions: Sequence[str] | None = None,
    formats: Sequence[str] | None = None,
    calibration: str | None = None,
    data: str | None = None,
    labels: str | None = None,
    preprocess: str | Preprocess | None = None,
    classes: str | None = None,
    inputs: Sequence[str | TensorSpec] = (),
    dynamic: Sequence[str] = (),
    gates: Sequence[str] = (),
    samples: int | None = None,
    recipe: str | Recipe | None = None,
    max_drop: float | None = None,
    search_minutes: float = 10.0,
    trust_source: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Package:
    """Turn a model into artifacts for a target, compare each with the model, and write them as a package.

    A gate that fails does not raise: the package is written with its verdict, see `Package.verdict`.

    Args:
        source: A Keras, PyTorch or ONNX model, as docs/sources.md lists them.
        target: The name of a target, or a folder with a target.toml.
        output: The package's folder; by default `SOURCE-TARGET` in the working directory.
        precisions: What to make, in any spelling; by default what the target lists (int8 only where there is calibration data,
            or where the model is quantized already).
        formats: Of the target's formats, those to make.
        calibration: Real inputs for int8: a folder of pictures, `.npy`, `.npz` or `file.py:function`.
        data: Real inputs to compare on; by default the calibration data, without either random inputs, which certify nothing.
        labels: The class of each sample of `data`.
        preprocess: From a picture to an input: a preset, a file or `key=value` pairs.
        classes: A text file with one class name per line, for the manifest.
        inputs: `name=1x3x224x224:float32`, where the source leaves shapes open or does not name them.
        dynamic: Dimensions that stay open.
        gates: `int8.top1_agreement>=0.98`, over the target's gates.
        samples: Compare on at most this many samples.
        recipe: How to quantize int8: a file that an export wrote, or a `Recipe`.
        max_drop: What the precision `auto` may lose, in percent (`edgekit.quantize.search.Budget`).
        search_minutes: How long the search for that may take.
        trust_source: Allow code that the source carries to run.
        force: Replace a package also where somebody added files to its folder.
        progress: Told what is being done.

    Returns:
        The package, as `load_package` would give it.

    Raises:
        EdgekitError: Its subclasses name what is wrong. Nothing has been written then.
    """
    begin, tell = time.perf_counter(), progress or _silent
    plan = make_plan(str(source), load_target(target), precisions, formats, calibration, gates, max_drop)
    choices = recipe if isinstance(recipe, Recipe) else Recipe() if recipe is None else load_recipe(recipe)
    image = Preprocess.parse(preprocess) if isinstance(preprocess, str) else preprocess
    if labels is not None and data is None and calibration is None:
        raise InputError("labels need the data that they belong to", where="--labels", fix="give --data")
    class_names = _class_names(classes)
    name = f"{_stem(str(source))}-{plan.target.name}"
    folder = Path(output if output is not None else name)

    with drafted(folder, force=force) as draft:
        tell("loading the source", 0, 0)
        specs = [spec if isinstance(spec, TensorSpec) else TensorSpec.parse(spec) for spec in inputs]
        model = open_source(str(source), inputs=specs, dynamic=dynamic, trust=trust_source)
        calibrated = None if calibration is None else load_data(calibration, model.inputs, image)
        if plan.budget is not None and calibrated is not None and data is None:
            calibrated, held = split(calibrated)
            chosen = real_samples(held, model.inputs, labels=labels, preprocess=image)
        else:
            given = data if data is not None else calibration if samples else calibrated
            chosen = _samples(given, model, labels, image, samples)

        tell("building the graph", 0, 0)
        hub, notes = _hub(model)
        ready, found = None, None
        if plan.quantizes and calibrated is not None and not is_quantized(hub):
            tell("preparing for int8", 0, 0)
            ready = condition(hub, calibrated, choices, tell)
            notes = (*notes, *doubts(calibrated, model.inputs, image, chosen.data))
        probes = [chosen.feeds[i] for i in evenly_spaced(len(chosen.feeds), PROBES)]
        maker = Maker(hub, calibrated, ready, choices, probes)
        if plan.budget is not None:
            found = _searched(plan, model, maker, chosen, search_minutes, tell)
            plan, maker = plan.held_to(found), replace(maker, searched=found.recipe)
        artifacts, companions, runners = [], [], {}
        for step, build in enumerate(plan.builds):
            tell(f"making {build}", step, len(plan.builds))
            for artifact in maker.artifacts(build):
                if not artifact.inputs:
                    companions.append(draft.add(artifact.file, artifact.data))
                    continue
                packaged, runner = _load(draft, artifact, plan.target)
                artifacts.append(packaged)
                runners[artifact.file] = runner
        if ready is not None:
            companions.append(draft.add(RECIPE, (maker.searched or choices).to_toml().encode()))

        verification, vectors = _verify(model, artifacts, runners, chosen, plan, tell)
        golden = draft.add_golden(vectors)
        tell("timing", 0, 0)
        latency = measure_latency(runners, vectors[0][0])

        package = Package(
            path=folder,
            name=name,
            target=plan.target.name,
            threads=plan.target.threads,
            delegates={a.format: a.delegates for a in plan.target.artifacts},
            source=SourceRecord(model.kind, os.path.basename(str(source).rstrip("/")), model.sha256),
            inputs=model.inputs,
            outputs=model.outputs,
            preprocess=image,
            classes=class_names,
            artifacts=tuple(artifacts),
            companions=tuple(companions),
            golden=golden,
            verification=verification,
            quantization=None if ready is None else {**ready.to_json(), "search": found and found.to_json()},
            notes=(*plan.notes, *notes, *_caveats(data, ready, found)),
            versions=_versions(model.kind),
            measured={**_machine(), "latency": latency, **_curve(found), "export_seconds": round(time.perf_counter() - begin, 2)},
        )
        draft.finish(package)
    return package


def _hub(model: Source) -> tuple[onnx_ir.Model, tuple[str, ...]]:
    """The hub graph, and what the conversion says about itself."""
    from edgekit.hub import prepare

    raw = model.to_onnx()
    notes = raw.metadata_props.get("edgekit.notes", "")
    return prepare(raw, shapes={spec.name: spec.shape for spec in model.inputs}), tuple(notes.splitlines())


def _load(draft: Draft, artifact: Artifact, target: Target) -> tuple[PackagedArtifact, Runner]:
    """Write an artifact and load it as a device would; refuse what the target has no room or kernel for."""
    written = draft.add(artifact.file, artifact.data)
    path = draft.path(artifact.file)
    operators = inspect(path).operators
    problems = target.problems(artifact.file, artifact.format, written.bytes, operators)
    if problems:
        raise TargetError(problems[0], where=str(target.folder / "target.toml"), fix="choose other precisions or formats")
    packaged = PackagedArtifact.of(artifact, written, operators)
    return packaged, Runner(path, artifact.format, artifact.inputs, artifact.outputs)


def _verify(
    model: Source,
    artifacts: Sequence[PackagedArtifact],
    runners: dict[str, Runner],
    samples: Samples,
    plan: Plan,
    tell: Progress,
) -> tuple[Verification, list[tuple[Feeds, Results]]]:
    """Compare every artifact with the source on every run; a few runs, evenly spaced, become the golden vectors."""
    vectors: list[tuple[Feeds, Results]] = []
    runs = samples.evidence.runs
    golden: set[int] = set()

    def reference(run: int, feeds: Feeds) -> Results:
        tell("comparing with the source", run, runs)
        results = model.run(feeds)
        if run == 0:
            golden.update(evenly_spaced(runs, golden_count(feeds, results, runs)))
        if run in golden:
            vectors.append((feeds, results))
        return results

    outputs = [spec.name for spec in model.outputs]
    metrics = compare(reference, runners, samples.feeds, outputs, samples.labels)
    if not vectors:
        raise ArtifactError("there was nothing to compare on", fix="give at least one sample with --data")
    gates = plan.target.gates.overridden(plan.overrides, plan.precisions)
    verdicts = [judge(a.file, a.precision, metrics[a.file], gates.of(a.precision), samples.evidence) for a in artifacts]
    kept = replace(gates, by_precision={p: gates.of(p) for p in plan.precisions})
    return Verification(samples.evidence, kept, tuple(verdicts)), vectors


def _samples(
    given: str | Calibration | None, model: Source, labels: str | None, image: Preprocess | None, limit: int | None
) -> Samples:
    """What the artifacts are compared on."""
    if given is None:
        return random_samples(model.inputs)
    return real_samples(given, model.inputs, labels=labels, preprocess=image, limit=limit)


def _searched(plan: Plan, model: Source, maker: Maker, samples: Samples, minutes: float, tell: Progress) -> Found:
    """The recipe of the precision `auto`.

    Raises:
        QuantizeError: The model is quantized already.
    """
    if maker.ready is None or maker.calibration is None or plan.budget is None:
        fix = "export it as int8, which keeps its integers"
        raise QuantizeError("the model is quantized already: there is nothing to search", where="--precision auto", fix=fix)
    builds = [build for build in plan.builds if build.precision == AUTO]
    # The .ort is the .onnx in another form: one of both is tried.
    tried = [replace(build, formats=build.formats[:1]) for build in builds]
    question = Question(
        source=model,
        conditioned=maker.ready,
        calibration=maker.calibration.sha256,
        recipe=maker.recipe,
        samples=samples,
        budget=plan.budget,
        kinds=tuple(f"{build.runtime} {build.input_layout}" for build in tried),
        minutes=minutes,
    )

    def build(recipe: Recipe) -> Iterator[Artifact]:
        for each in tried:
            yield from maker.artifacts(each, recipe)

    return find_recipe(question, build, tell)


def _curve(found: Found | None) -> dict[str, Any]:
    return {} if found is None else {"search_latency": found.latencies()}


def _caveats(data: str | None, ready: Conditioned | None, found: Found | None) -> tuple[str, ...]:
    if found is not None:
        return (found.sentence(),)
    if data is None and ready is not None:
        return ("int8 was compared on the samples that it was calibrated on: give others with --data for an honest number",)
    return ()


def _class_names(path: str | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        return tuple(line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the class names cannot be read: {error}", where=path, fix="give a text file, one name per line"
        ) from error


def _versions(kind: str) -> dict[str, str]:
    """Of everything that had a part in the artifacts' bytes or in the comparison."""
    names = ["edgekit", "ai-edge-litert", "ai-edge-quantizer", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript"]
    names += {"keras": ["tensorflow", "keras", "tf2onnx"], "torch": ["torch"], "onnx": []}[kind]
    return {"python": platform.python_version()} | {name: version for name in names if (version := _version(name))}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.system(), "arch": platform.machine(), "cpus": os.cpu_count()},
        "threads": 1,
    }


def _stem(source: str) -> str:
    """`models/net.keras` gives `net`, `nets/resnet.py:resnet56` gives `resnet56`."""
    last = re.split(r"[/\\:]", source.rstrip("/\\"))[-1]
    return re.sub(r"[^\w.-]", "_", Path(last).stem) or "model"


def _silent(stage: str, done: int, total: int) -> None:
    """Progress for nobody."""
