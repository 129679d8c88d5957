"""Models as their authors left them: load one, run it as the reference, turn it into an ONNX graph.

    source = open_source("classifier.keras")
    source.inputs                                      # (TensorSpec("image", (1, 96, 96, 3), "float32"),)
    source.run({"image": array})                       # what every artifact is compared with
    source.to_onnx()                                   # an onnx_ir.Model whose inputs and outputs carry the same names

One module per kind of source. Each imports its framework inside the functions that need it, so that an ONNX file opens
without TensorFlow or PyTorch, and a missing framework is said in terms of the extra that installs it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from edgekit.contract import TensorSpec
from edgekit.errors import SourceError
from edgekit.sources.source import Source

__all__ = ["Source", "open_source"]

KERAS_FILES = (".keras", ".h5", ".hdf5")
TORCH_FILES = (".pt2", ".pt", ".pth", ".jit", ".ts", ".torchscript", ".bin", ".ckpt", ".safetensors")
ACCEPTED = ".onnx, .keras, .h5, a SavedModel folder, .pt2, a TorchScript .pt, path/to/file.py:factory or package.module:factory"


def open_source(spec: str, *, inputs: Sequence[TensorSpec] = (), dynamic: Sequence[str] = (), trust: bool = False) -> Source:
    """Open a model.

    Args:
        spec: A file or folder (see `ACCEPTED`), `file.py:factory`, `package.module:factory`, or `model.jit:submodule` for
            one part of a TorchScript archive.
        inputs: Shapes and dtypes for inputs that the model leaves open, or other sizes for its dynamic dimensions.
        dynamic: Dimensions to keep open: `batch` (the first of every input), the name of a symbolic dimension of an ONNX
            model, or `input:axis=name`.
        trust: Run code that the file itself carries (Lambda layers, custom objects, pickled modules).

    Raises:
        SourceError: The file is missing, damaged, or of no known kind.
        UntrustedSource: Loading it would run code from the file, and `trust` is False.
        InputError: A shape is open and not given, or one that is given does not fit.
        MissingExtra: The framework that the model needs is not installed.
    """
    path = Path(spec)
    if path.exists():
        return _open_path(spec, path, inputs, dynamic, trust)
    stem, colon, attribute = spec.rpartition(":")
    if colon and re.fullmatch(r"[A-Za-z_][\w.]*", attribute):
        if stem.endswith(".py") or (re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", stem) and not Path(stem).exists()):
            from edgekit.sources.factory import open_factory

            return open_factory(spec, stem, attribute, inputs=inputs, dynamic=dynamic)
        if Path(stem).suffix.lower() in TORCH_FILES:
            from edgekit.sources.torch_files import open_torch_file

            return open_torch_file(spec, Path(stem), attribute, inputs=inputs, dynamic=dynamic, trust=trust)
    raise SourceError("there is no such model", where=spec, fix=f"give one of: {ACCEPTED}")


def _open_path(spec: str, path: Path, inputs: Sequence[TensorSpec], dynamic: Sequence[str], trust: bool) -> Source:
    suffix = path.suffix.lower()
    if path.is_dir():
        from edgekit.sources.saved_model import open_saved_model

        return open_saved_model(spec, path, inputs=inputs, dynamic=dynamic, trust=trust)
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise SourceError(f"the model cannot be read: {error.strerror}", where=spec, fix="check its permissions") from None
    if empty:
        raise SourceError("the model file is empty", where=spec, fix="copy or export it again")
    if suffix == ".onnx":
        from edgekit.sources.onnx_file import open_onnx

        return open_onnx(spec, path, inputs=inputs, dynamic=dynamic)
    if suffix in KERAS_FILES:
        from edgekit.sources.keras_model import open_keras

        return open_keras(spec, path, inputs=inputs, dynamic=dynamic, trust=trust)
    if suffix in TORCH_FILES:
        from edgekit.sources.torch_files import open_torch_file

        return open_torch_file(spec, path, None, inputs=inputs, dynamic=dynamic, trust=trust)
    if suffix == ".py":
        raise SourceError(
            "a Python file needs the name of the function that builds the model", where=spec, fix=f"write it as {spec}:factory"
        )
    raise SourceError(
        f"{suffix or 'a file without suffix'} is no model that can be read", where=spec, fix=f"give one of: {ACCEPTED}"
    )
