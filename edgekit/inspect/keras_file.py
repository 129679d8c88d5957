"""Reads Keras files: the architecture is JSON, the weights HDF5. Keras itself is not needed."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.contract import TensorSpec
from edgekit.errors import MissingExtra, SourceError
from edgekit.inspect.inspection import Inspection, count_operators, count_weights, name_precision


def read_keras(path: Path) -> Inspection:
    """Inspect a `.keras` archive."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        weights = list(_weights(io.BytesIO(archive.read("model.weights.h5"))))
        version = json.loads(archive.read("metadata.json")).get("keras_version", "unknown")
    return _inspection(path, "keras", config, weights, [f"written by Keras {version}"])


def read_h5(path: Path) -> Inspection:
    """Inspect a legacy `.h5` file."""
    with _h5(path) as file:
        if "model_config" not in file.attrs:
            raise SourceError(
                "the file holds weights without an architecture", where=str(path), fix="save the whole model: model.save"
            )
        text = file.attrs["model_config"]
        version = file.attrs.get("keras_version", "unknown")
    config = json.loads(text.decode() if isinstance(text, bytes) else text)
    weights = list(_weights(path))
    return _inspection(
        path, "h5", config, weights, [f"written by Keras {version.decode() if isinstance(version, bytes) else version}"]
    )


def _inspection(
    path: Path, format: str, config: dict[str, Any], weights: list[tuple[str, int, int]], notes: list[str]
) -> Inspection:
    layers = list(_layers(config))
    counted = count_weights(weights)
    if any(layer["class_name"] == "Lambda" for layer in layers):
        notes.append("it has a Lambda layer, which is code: exporting needs --trust-source")
    return Inspection(
        file=path.name,
        format=format,
        bytes=path.stat().st_size,
        inputs=_inputs(config),
        outputs=(),
        operators=count_operators(layer["class_name"] for layer in layers),
        weights=counted,
        precision=name_precision(counted),
        notes=(*notes, "a Keras file does not hold the shapes of its outputs"),
    )


def _layers(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every layer that is not a model, models inside models opened; wrapped layers (Bidirectional) count as their wrapper."""
    inner = config.get("config")
    layers = inner.get("layers") if isinstance(inner, dict) else inner if isinstance(inner, list) else None
    if layers is None:
        yield config
        return
    for layer in layers:
        yield from _layers(layer)


def _inputs(config: dict[str, Any]) -> tuple[TensorSpec, ...]:
    """The InputLayers of the outer model; a Sequential without one says its shape on its first layer."""
    inner = config["config"]
    layers = inner["layers"] if isinstance(inner, dict) else inner
    declared = [layer for layer in layers if layer["class_name"] == "InputLayer"] or layers[:1]
    specs = []
    for layer in declared:
        options = layer["config"]
        shape = options.get("batch_shape") or options.get("batch_input_shape") or layer.get("build_config", {}).get("input_shape")
        if shape:
            dtype = options.get("dtype")
            name = options.get("name", "input")
            specs.append(
                TensorSpec(name, tuple("?" if d is None else d for d in shape), dtype if isinstance(dtype, str) else "float32")
            )
    return tuple(specs)


def _weights(file: Any) -> Iterator[tuple[str, int, int]]:
    """The datasets of an HDF5 file, without those of the optimizer."""
    found: list[tuple[str, int, int]] = []

    def visit(name: str, item: Any) -> None:
        if hasattr(item, "shape") and not name.startswith(("optimizer", "_layer_checkpoint")):
            found.append((str(item.dtype), int(item.size), int(item.size) * item.dtype.itemsize))

    with _h5(file) as opened:
        opened.visititems(visit)
    yield from found


def _h5(file: Any) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("reading Keras files needs h5py", fix="pip install 'edgekit[keras]'") from error
    return h5py.File(file, "r")
