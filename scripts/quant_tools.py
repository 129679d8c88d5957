"""One trained model in INT8 by edgekit and by others, from the same float graph and the same calibration samples.

All artifacts take and give float32, so that what a caller does is the same. Each is written to the cache with its results on the
test samples.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from peer_models import peer_python
from quant_results import FORMATS, LITERT, ORT
from quant_subjects import Subject
from real_models.recipes import Export
from real_models.registry import cache_folder
from zoo_results import edgekit_code

from edgekit.contract import Binding, TensorSpec
from edgekit.export import export
from edgekit.package import Package, load_package
from edgekit.preprocess import Preprocess
from edgekit.quantize import Calibration, load_data
from edgekit.runtimes import Runner
from edgekit.sources import open_source

CALIBRATION_SAMPLES = 256
AUTO_MAY_CHANGE = 3.0
"""Percent of the answers."""
ONNX2TF = "onnx2tf-tensorflow"
"""The environment of onnx2tf that can write SavedModels."""


class Unable(Exception):
    """A tool does not take the model; says why."""


@dataclass(frozen=True)
class Artifact:
    """A file, and how its tensors relate to the source's."""

    path: Path
    format: str
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]

    def runner(self) -> Runner:
        return Runner(self.path, self.format, self.inputs, self.outputs)

    def kept(self, path: Path) -> Artifact:
        """A copy of it there, with the bindings beside it for `known`."""
        if path != self.path:
            shutil.copyfile(self.path, path)
        sides = {"inputs": [asdict(b) for b in self.inputs], "outputs": [asdict(b) for b in self.outputs]}
        path.with_name(path.name + ".json").write_text(json.dumps({"format": self.format, **sides}))
        return replace(self, path=path)

    @classmethod
    def known(cls, path: Path) -> Artifact | None:
        """What an earlier run kept there."""
        told = path.with_name(path.name + ".json")
        if not path.exists() or not told.exists():
            return None
        values = json.loads(told.read_text())
        return cls(path, values["format"], _bindings(values["inputs"]), _bindings(values["outputs"]))


def _bindings(told: Sequence[Mapping[str, Any]]) -> tuple[Binding, ...]:
    return tuple(
        Binding(**{**b, "shape": tuple(b["shape"]), "permutation": b["permutation"] and tuple(b["permutation"])}) for b in told
    )


@dataclass(frozen=True)
class Work:
    """A model made ready: its data, what its source answers, and its float32 artifacts by edgekit.

    Args:
        folder: Of the model, in the cache.
        exported: The source's ONNX graph as its exporter wrote it.
        reference: The source's results, one row per test sample.
        labels: One class per test sample, or None.
    """

    subject: Subject
    export: Export
    folder: Path
    inputs: tuple[TensorSpec, ...]
    output: str
    test: Calibration
    calibration: Calibration
    reference: np.ndarray
    labels: np.ndarray | None
    exported: Path
    float_artifacts: Mapping[str, Artifact]

    def calibration_feeds(self) -> Sequence[Mapping[str, np.ndarray]]:
        return self.calibration.subset(CALIBRATION_SAMPLES)


def folder_of(name: str) -> Path:
    """Where everything that is kept of a model is."""
    return cache_folder() / "quantized" / name


def prepare(subject: Subject, samples: int, *, again: bool = False, export_again: bool = False) -> Work:
    """Fetch the model, run its source on the test samples, export it in float32; what an earlier run left is used otherwise."""
    given = subject.prepare(samples)
    folder = folder_of(subject.name)
    folder.mkdir(parents=True, exist_ok=True)
    exported, results = folder / "exported.onnx", folder / f"source-{samples}.npy"
    image = Preprocess.parse(given.preprocess) if given.preprocess else None
    if again or not results.exists() or not exported.exists():
        import onnx_ir

        source = open_source(given.source, inputs=[TensorSpec.parse(spec) for spec in given.inputs], trust=True)
        onnx_ir.save(source.to_onnx(), exported)
        (output,) = (spec.name for spec in source.outputs)
        feeds = load_data(given.data, source.inputs, image, limit=samples).feeds
        np.save(results, np.concatenate([source.run(feed)[output] for feed in feeds]))
    package = _package(given, folder / "fp32", "fp32", again=again or export_again)
    test = load_data(given.data, package.inputs, image, limit=samples)
    return Work(
        subject,
        given,
        folder,
        package.inputs,
        package.outputs[0].name,
        test,
        load_data(str(given.calibration), package.inputs, image, limit=CALIBRATION_SAMPLES),
        np.load(results),
        None if given.labels is None else np.load(given.labels)[list(test.indices)],
        exported,
        _of_package(package, "fp32"),
    )


def _package(given: Export, folder: Path, precision: str, *, again: bool) -> Package:
    """`edgekit export`, as a user would call it; few samples are compared, because all of them are compared here.

    The precision `auto` is searched on a part of the calibration samples, never on the test samples.
    """
    if folder.exists() and not again:
        return load_package(folder)
    asked: dict[str, Any] = {"max_drop": AUTO_MAY_CHANGE} if precision == "auto" else {"data": given.data, "samples": 4}
    return export(
        given.source,
        "android",
        output=folder,
        precisions=[precision],
        formats=list(FORMATS.values()),
        calibration=given.calibration,
        preprocess=given.preprocess,
        inputs=given.inputs,
        gates=given.gates,
        trust_source=True,
        force=True,
        **asked,
    )


def _of_package(package: Package, precision: str) -> dict[str, Artifact]:
    found = {a.format: a for a in package.artifacts if a.precision == precision}
    return {
        runtime: Artifact(package.path / found[format].file, format, found[format].inputs, found[format].outputs)
        for runtime, format in FORMATS.items()
        if format in found
    }


def by_edgekit(work: Work, precision: str) -> dict[str, Artifact]:
    """By runtime: what `edgekit export --precision …` makes."""
    return _of_package(_package(work.export, work.folder / precision, precision, again=True), precision)


def by_ai_edge_quantizer(work: Work) -> Artifact:
    """Its static recipe and its own calibration, on edgekit's float32 file."""
    source = work.float_artifacts[LITERT]
    tool, signature = quantizer_of(source)
    feeds = [{b.artifact: b.to_artifact(feed[b.source]) for b in source.inputs} for feed in work.calibration_feeds()]
    seen = tool.calibrate({signature: feeds}, num_threads=1)
    path = work.folder / "ai-edge-quantizer.tflite"
    path.write_bytes(bytes(tool.quantize(seen, enable_progress_bar=False, enable_progress_report=False).quantized_model))
    return Artifact(path, "tflite", source.inputs, source.outputs)


def quantizer_of(source: Artifact) -> tuple[Any, str]:
    """An ai-edge-quantizer of a float32 file with its static recipe but for inputs and outputs; and the file's signature."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe

    tool = quantizer.Quantizer(str(source.path), recipe.static_wi8_ai8())
    for side in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        tool.update_quantization_recipe(".*", side, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE)
    (signature,) = Interpreter(str(source.path)).get_signature_list()
    return tool, signature


def by_onnxruntime(work: Work) -> Artifact:
    """Its preprocessing, then its static quantization: QDQ, one scale per output channel, smallest and largest value."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds: Iterator[dict[str, np.ndarray]] = (dict(feed) for feed in work.calibration_feeds())

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    path = work.folder / "onnxruntime.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch, "prepared.onnx")
        try:
            quant_pre_process(work.exported, prepared)
        except Exception:  # its inference of symbolic shapes fails on some graphs, with whatever it meets; it may be left out
            quant_pre_process(work.exported, prepared, skip_symbolic_shape=True)
        quantize_static(prepared, path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
    bindings = work.float_artifacts[ORT]
    return Artifact(path, "onnx", bindings.inputs, bindings.outputs)


def by_tensorflow(work: Work) -> Artifact:
    """TFLiteConverter in INT8 alone, on the Keras model or on the SavedModel that onnx2tf makes of the exported graph."""
    import tensorflow

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "saved_model")
        moved = _keras_saved_model(work, folder) if work.subject.framework == "keras" else _onnx2tf(work, folder)
        signature = tensorflow.saved_model.load(str(folder)).signatures["serving_default"]
        (taken,) = signature.structured_input_signature[1] if len(work.inputs) == 1 else (None,)
        if taken is None:
            raise Unable("more than one input")
        (given,) = signature.structured_outputs
        order = (0, *range(2, len(work.inputs[0].shape)), 1) if moved else None
        shape = tuple(int(d) for d in signature.structured_input_signature[1][taken].shape)
        inputs = (Binding(work.inputs[0].name, taken, shape, "float32", order),)
        converter = tensorflow.lite.TFLiteConverter.from_saved_model(str(folder))
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tensorflow.lite.OpsSet.TFLITE_BUILTINS_INT8]
        feeds = work.calibration_feeds()
        converter.representative_dataset = lambda: ({taken: inputs[0].to_artifact(feed[inputs[0].source])} for feed in feeds)
        path = work.folder / "tensorflow.tflite"
        path.write_bytes(converter.convert())
    return Artifact(path, "tflite", inputs, (Binding(work.output, given, (), "float32"),))


def _keras_saved_model(work: Work, folder: Path) -> bool:
    """Write the Keras model with a batch of one; its axes are the source's."""
    import keras
    import tensorflow

    model = keras.models.load_model(work.export.source, compile=False)
    specs = [tensorflow.TensorSpec((1, *tensor.shape[1:]), tensor.dtype, tensor.name) for tensor in model.inputs]
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", lambda *tensors: model(list(tensors) if len(tensors) > 1 else tensors[0]), specs)
    archive.write_out(str(folder), verbose=False)
    return False


def _onnx2tf(work: Work, folder: Path) -> bool:
    """Let onnx2tf write a SavedModel; says whether it has moved the channels to the end."""
    python = peer_python(ONNX2TF)
    if not python.exists():
        raise Unable("onnx2tf is not installed (--setup)")
    call = [python, "-m", "onnx2tf", "-i", work.exported, "-o", folder, "-n", "-tb", "tf_converter", "-osd"]
    done = subprocess.run([str(word) for word in call], capture_output=True, text=True)
    if done.returncode or not (folder / "saved_model.pb").exists():
        lines = [line.strip() for line in done.stderr.splitlines() if re.match(r"\w*(Error|ERROR)\b", line.strip())]
        raise Unable(f"onnx2tf: {(lines or ['no SavedModel'])[-1]}")
    return len(work.inputs[0].shape) > 2


@dataclass(frozen=True)
class Tool:
    """Something that quantizes, and `code()`: which state of it."""

    name: str
    code: Callable[[], str]
    make: Callable[[Work, str], dict[str, Artifact]]
    runtimes: tuple[str, ...]


def _peer(runtime: str, make: Callable[[Work], Artifact]) -> Callable[[Work, str], dict[str, Artifact]]:
    return lambda work, precision: {runtime: make(work)}


EDGEKIT = Tool("edgekit", edgekit_code, by_edgekit, (LITERT, ORT))
PEERS = (
    Tool(
        "ai-edge-quantizer",
        lambda: importlib.metadata.version("ai-edge-quantizer"),
        _peer(LITERT, by_ai_edge_quantizer),
        (LITERT,),
    ),
    Tool("TFLiteConverter", lambda: importlib.metadata.version("tensorflow"), _peer(LITERT, by_tensorflow), (LITERT,)),
    Tool("onnxruntime", lambda: importlib.metadata.version("onnxruntime"), _peer(ORT, by_onnxruntime), (ORT,)),
)
