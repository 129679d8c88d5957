"""Runs an artifact on this machine, with the source's names and layout on both sides."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.contract import Binding, Feeds, Results
from edgekit.errors import ArtifactError
from edgekit.sources.quiet import silent
from edgekit.telemetry import load_onnxruntime

FORMATS = ("tflite", "onnx", "ort")


class Runner:
    """One loaded artifact.

    Args:
        artifact: Its bytes, or the path of its file.
        format: `tflite` (LiteRT, with its default XNNPACK delegate), `onnx` or `ort` (ONNX Runtime, CPU).
        inputs, outputs: How its tensors relate to the source's. A TFLite tensor is found by its name in the signature, or else
            by its own name.
        threads: Of the runtime.

    Raises:
        ArtifactError: The artifact does not load, or lacks a tensor that a binding names.
    """

    def __init__(
        self,
        artifact: bytes | str | os.PathLike[str],
        format: str,
        inputs: Sequence[Binding],
        outputs: Sequence[Binding],
        *,
        threads: int = 1,
    ) -> None:
        self.where = "an artifact in memory" if isinstance(artifact, bytes) else Path(artifact).name
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        load = _Tflite if format == "tflite" else _Ort
        try:
            with silent():  # LiteRT announces its delegate on stderr, from C++
                self._model: _Tflite | _Ort = load(artifact, format, threads)
        except Exception as error:  # onnxruntime raises classes of its C++ module that share no base but Exception
            raise ArtifactError(f"the {format} artifact does not load: {_first_line(error)}", where=self.where) from error
        _check_names("input", [b.artifact for b in inputs], self._model.inputs, self.where)
        _check_names("output", [b.artifact for b in outputs], self._model.outputs, self.where)

    def run(self, feeds: Feeds) -> Results:
        """One inference: the source's inputs to the source's outputs.

        Raises:
            ArtifactError: The runtime refuses the shapes or fails while it runs.
        """
        return self.bound(feeds)()

    def bound(self, feeds: Feeds) -> Callable[[], Results]:
        """A call that repeats one inference on `feeds`. Inputs are converted here, once, so that the call can be timed."""
        arrays = {b.artifact: b.to_artifact(feeds[b.source]) for b in self._inputs}
        try:
            invoke = self._model.bound(arrays, [b.artifact for b in self._outputs])
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"the artifact does not take these inputs: {_first_line(error)}", where=self.where) from error

        def call() -> Results:
            try:
                results = invoke()
            except Exception as error:
                raise ArtifactError(f"the artifact fails while it runs: {_first_line(error)}", where=self.where) from error
            return {b.source: b.to_source(results[b.artifact]) for b in self._outputs}

        return call


class _Tflite:
    def __init__(self, artifact: bytes | str | os.PathLike[str], format: str, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        where: dict[str, Any] = (
            {"model_content": artifact} if isinstance(artifact, bytes) else {"model_path": os.fspath(artifact)}
        )
        self._interpreter = Interpreter(num_threads=threads, **where)
        self._interpreter.allocate_tensors()
        self.inputs, self.outputs = self._tensors("input"), self._tensors("output")

    def bound(self, arrays: Mapping[str, np.ndarray], outputs: Sequence[str]) -> Callable[[], Results]:
        interpreter = self._interpreter
        shapes = {d["index"]: tuple(d["shape"]) for d in interpreter.get_input_details()}
        resized = {self.inputs[name]: a for name, a in arrays.items() if shapes[self.inputs[name]] != a.shape}
        for index, array in resized.items():
            interpreter.resize_tensor_input(index, array.shape, strict=True)
        if resized:
            interpreter.allocate_tensors()
        for name, array in arrays.items():
            interpreter.set_tensor(self.inputs[name], array)

        def invoke() -> Results:
            interpreter.invoke()
            return {name: read_tensor(interpreter, self.outputs[name]) for name in outputs}

        return invoke

    def _tensors(self, side: str) -> dict[str, int]:
        """Tensor index by name. The signature's names come first: a quantizer renames tensors, never a signature."""
        details = getattr(self._interpreter, f"get_{side}_details")()
        indices = {detail["name"]: detail["index"] for detail in details}
        if self._interpreter.get_signature_list():
            signature = getattr(self._interpreter.get_signature_runner(), f"get_{side}_details")()
            indices |= {name: detail["index"] for name, detail in signature.items()}
        return indices


def read_tensor(interpreter: Any, index: int) -> np.ndarray:
    """An output of a LiteRT interpreter that has run, also one whose size was found while it ran and is 0.

    Of such a tensor the interpreter says "Invalid tensor size": it has no memory to show.
    """
    try:
        return interpreter.get_tensor(index)
    except ValueError:
        detail = next(d for d in interpreter.get_output_details() if d["index"] == index)
        if detail["shape"].all():
            raise
        return np.zeros(detail["shape"], detail["dtype"])


class _Ort:
    def __init__(self, artifact: bytes | str | os.PathLike[str], format: str, threads: int) -> None:
        self._session = open_session(artifact, threads=threads, ort_format=format == "ort")
        self.inputs = {tensor.name: i for i, tensor in enumerate(self._session.get_inputs())}
        self.outputs = {tensor.name: i for i, tensor in enumerate(self._session.get_outputs())}

    def bound(self, arrays: Mapping[str, np.ndarray], outputs: Sequence[str]) -> Callable[[], Results]:
        def invoke() -> Results:
            return dict(zip(outputs, self._session.run(list(outputs), dict(arrays)), strict=True))

        return invoke


def open_session(model: bytes | str | os.PathLike[str], *, threads: int = 1, ort_format: bool = False) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU that keeps quiet and does not phone home."""
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if ort_format:
        options.add_session_config_entry("session.load_model_format", "ORT")
    content = model if isinstance(model, bytes) else os.fspath(model)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _check_names(side: str, wanted: Sequence[str], present: Mapping[str, int], where: str) -> None:
    missing = [name for name in wanted if name not in present]
    if missing:
        raise ArtifactError(
            f"the artifact has no {side} named {missing[0]!r}",
            where=where,
            fix=f"its {side}s are " + ", ".join(map(repr, present)),
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
