"""ONNX files, opset 7 and newer, with or without external data.

The reference is onnxruntime on the CPU with its graph optimizations off: each operator as the file has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.contract import Feeds, Results, TensorSpec
from edgekit.errors import SourceError
from edgekit.sources.digest import digest_files, digest_path
from edgekit.sources.quantized_file import is_quantized_file as is_quantized_file
from edgekit.sources.shapes import Declared, resolve_inputs
from edgekit.sources.source import Source, describe_outputs, first_line
from edgekit.telemetry import load_onnxruntime

if TYPE_CHECKING:
    import onnx_ir

    from edgekit.onnx_file import OnnxFile

OLDEST_OPSET = 7


def open_onnx(spec: str, path: Path, *, inputs: Sequence[TensorSpec], dynamic: Sequence[str]) -> Source:
    """Open an ONNX file.

    Raises:
        SourceError: The file is damaged, invalid, older than opset 7, has inputs that are no tensors, external data that
            is missing, or operators that onnxruntime has not.
    """
    file = _load(path, spec)
    _check(path, spec)
    declared = [_declare(value, spec) for value in _fed(file.model)]
    session = _session(path, spec)
    names = [output.name for output in session.get_outputs()]

    def reference(feeds: Feeds) -> Results:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    def convert() -> onnx_ir.Model:
        return _fix_shapes(_load(path, spec).model, fixed)

    fixed = resolve_inputs(declared, inputs, dynamic, spec)
    outputs = describe_outputs(reference, fixed, spec)
    sha256 = digest_files(path.parent, [path, *file.external]) if file.external else digest_path(path)
    return Source("onnx", spec, sha256, fixed, outputs, reference, convert)


def _load(path: Path, spec: str) -> OnnxFile:
    from edgekit.onnx_file import read_onnx

    file = read_onnx(path)
    opset = file.model.opset_imports.get("", OLDEST_OPSET)
    if not file.model.opset_imports:
        raise SourceError("the file is no ONNX model: it names no opset", where=spec, fix="copy or export it again")
    if opset < OLDEST_OPSET:
        raise SourceError(
            f"the model uses opset {opset}, older than {OLDEST_OPSET}",
            where=spec,
            fix="convert it with onnx.version_converter.convert_version, or export it again",
        )
    return file


def _check(path: Path, spec: str) -> None:
    import onnx

    try:
        onnx.checker.check_model(str(path))
    except Exception as error:  # ValidationError, or ValueError and RuntimeError from the C++ side
        raise SourceError(f"the model is invalid: {first_line(error)}", where=spec, fix="export it again") from error


def _fed(model: onnx_ir.Model) -> list[onnx_ir.Value]:
    """The inputs that a caller feeds. Before IR version 4 the weights were listed among the inputs as well."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def _declare(value: onnx_ir.Value, spec: str) -> Declared:
    import onnx_ir

    name = value.name or ""
    if not isinstance(value.type, onnx_ir.TensorType) or value.dtype is None or value.dtype == onnx_ir.DataType.STRING:
        raise SourceError(
            f"the input {name!r} is {value.type}, not a tensor of numbers", where=spec, fix="cut the model after that input"
        )
    if value.shape is None:
        return Declared(name, None, str(value.dtype.numpy()))
    return Declared(name, tuple(_size(d) for d in value.shape), str(value.dtype.numpy()))


def _size(dim: int | onnx_ir.SymbolicDim) -> int | str | None:
    """A size, the name of one, or None: exporters also write an open dimension as -1 and as ?, which names nothing."""
    size = dim if isinstance(dim, int) else dim.value
    return None if size in ("", "?", "-1") or (isinstance(size, int) and size < 0) else size


def _session(path: Path, spec: str):  # type: ignore[no-untyped-def]  # onnxruntime has no types
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base
        raise SourceError(
            f"onnxruntime does not load the model: {first_line(error)}",
            where=spec,
            fix="an operator or opset newer than the installed onnxruntime needs a newer one",
        ) from error


def _fix_shapes(model: onnx_ir.Model, inputs: Sequence[TensorSpec]) -> onnx_ir.Model:
    """Write the sizes of `inputs` wherever the graph names the dimension, and take weights out of the inputs."""
    import onnx_ir

    sizes: dict[str, int | str] = {}
    fed = _fed(model)
    for value, spec in zip(fed, inputs, strict=True):
        if value.shape is not None:
            names = [_size(dim) for dim in value.shape]
            sizes |= {have: want for have, want in zip(names, spec.shape, strict=True) if isinstance(have, str)}
    for node in model.graph:
        for output in node.outputs:
            if output.shape is not None:
                known = [_size(dim) for dim in output.shape]
                output.shape = onnx_ir.Shape([sizes.get(size, size) if isinstance(size, str) else size for size in known])
    model.graph.inputs[:] = fed
    return model
