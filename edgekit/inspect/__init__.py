"""What is in a model file, read without running any code from it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from edgekit.errors import EdgekitError, SourceError
from edgekit.inspect.inspection import Inspection, WeightCount

__all__ = ["Inspection", "WeightCount", "inspect"]


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Inputs, outputs, operators, weights and precision of a model.

    Args:
        path: A `.onnx`, `.tflite`, `.ort`, `.keras`, `.h5`, `.pt2` or `.pt` file, or a SavedModel folder.

    Nothing in the file is executed: a Lambda layer or a pickle is named, not loaded. Neither TensorFlow nor torch is imported.

    Raises:
        SourceError: The file does not exist, is of no known format, or is damaged.
        MissingExtra: A Keras file is asked for and h5py is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise SourceError(f"there is no file {path}", fix="check the path")
    read = _reader(path)
    try:
        return read(path)
    except EdgekitError:
        raise
    except Exception as error:  # a damaged file makes the parsers raise anything: IndexError, struct.error, DecodeError …
        detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(f"the file is damaged or not a {path.suffix} file: {detail}", where=str(path)) from error


def _reader(path: Path) -> Callable[[Path], Inspection]:
    from edgekit.inspect import keras_file, onnx_file, ort_file, saved_model, tflite_file, torch_file

    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return saved_model.read
        raise SourceError(f"{path} is a folder without saved_model.pb or edgekit.json", fix="give a model file or a package")
    readers: dict[str, Callable[[Path], Inspection]] = {
        ".onnx": onnx_file.read,
        ".tflite": tflite_file.read,
        ".ort": ort_file.read,
        ".keras": keras_file.read_keras,
        ".h5": keras_file.read_h5,
        ".hdf5": keras_file.read_h5,
        ".pt2": torch_file.read_exported,
        ".pt": torch_file.read_archive,
        ".pth": torch_file.read_archive,
        ".jit": torch_file.read_archive,
    }
    if path.suffix.lower() not in readers:
        raise SourceError(f"{path.suffix or path.name!r} is no format that edgekit knows", fix="it reads " + ", ".join(readers))
    zipped = path.suffix.lower() in (".keras", ".pt2", ".pt", ".pth", ".jit")
    if zipped and not zipfile.is_zipfile(path):
        raise SourceError(
            f"{path.name} is not a zip archive, so it is damaged or of an old format", where=str(path), fix="save the model again"
        )
    return readers[path.suffix.lower()]
