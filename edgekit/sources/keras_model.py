"""Keras models: `.keras` archives, legacy `.h5` files, and models that a factory returns.

The reference is the model called eagerly on the CPU, `training=False`, in float32 also where it was trained in mixed precision.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.contract import Feeds, Results, TensorSpec
from edgekit.errors import MissingExtra, SourceError, UntrustedSource
from edgekit.sources.digest import digest_path
from edgekit.sources.quiet import silent
from edgekit.sources.shapes import Declared, resolve_inputs
from edgekit.sources.source import Source, describe_outputs, distinct_names, first_line
from edgekit.sources.tensorflow_graph import convert_function, import_tensorflow
from edgekit.sources.tensorflow_weights import is_large

if TYPE_CHECKING:
    import onnx_ir


def open_keras(spec: str, path: Path, *, inputs: Sequence[TensorSpec], dynamic: Sequence[str], trust: bool) -> Source:
    """Open a `.keras`, `.h5` or `.hdf5` file.

    Raises:
        UntrustedSource: It holds a Lambda layer or a class that Keras has not, and `trust` is False.
        SourceError: It is damaged, holds weights alone, or Keras cannot rebuild it.
    """
    config = _read_config(path, spec)
    if not trust:
        _refuse_code(config, spec)
    keras = import_keras()
    with silent():
        model = _load(keras, path, config, spec, trust)
    return keras_source(model, spec, digest_path(path), inputs=inputs, dynamic=dynamic)


def keras_source(model: Any, spec: str, sha256: str, *, inputs: Sequence[TensorSpec] = (), dynamic: Sequence[str] = ()) -> Source:
    """A Keras model in memory as a source; it must have symbolic inputs (Functional and built Sequential models have)."""
    tensorflow, keras = import_tensorflow(), import_keras()
    if not getattr(model, "inputs", None):
        raise SourceError(
            "the Keras model has no defined inputs",
            where=spec,
            fix="build it with keras.Input, or save it with model.export(folder) and give edgekit that SavedModel",
        )
    _use_float32(model)
    names = distinct_names([tensor.name for tensor in model.inputs])
    declared = [_declare(name, tensor, spec) for name, tensor in zip(names, model.inputs, strict=True)]
    fixed = resolve_inputs(declared, inputs, dynamic, spec)
    structure = getattr(model, "_functional", None) or model  # a Sequential model keeps its own in there
    output_names = _output_names(keras, structure, names)

    def call(*tensors: Any) -> list[Any]:
        fed = keras.tree.pack_sequence_as(structure._inputs_struct, list(tensors))
        return list(keras.tree.flatten(model(fed, training=False)))

    def reference(feeds: Feeds) -> Results:
        with tensorflow.device("/CPU:0"):
            results = call(*(tensorflow.convert_to_tensor(feeds[name]) for name in names))
        return dict(zip(output_names, (np.asarray(result) for result in results), strict=True))

    def convert() -> onnx_ir.Model:
        from edgekit.sources.keras_recurrent import recurrent_operators

        large = [variable for variable in model.variables if is_large(variable)]

        def call_with(*tensors: Any) -> list[Any]:
            with keras.StatelessScope(state_mapping=list(zip(large, tensors[len(fixed) :], strict=True))):
                return call(*tensors[: len(fixed)])

        with recurrent_operators(model, spec) as handlers:
            return convert_function(
                call_with, fixed, outputs, spec, handlers, [keras.ops.convert_to_numpy(variable) for variable in large]
            )

    outputs = describe_outputs(reference, fixed, spec)
    return Source("keras", spec, sha256, fixed, outputs, reference, convert)


def import_keras() -> Any:
    """`keras` on TensorFlow.

    Raises:
        MissingExtra: Keras or TensorFlow is not installed.
        SourceError: Keras runs on another backend already.
    """
    import_tensorflow()
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    with silent():
        try:
            import keras
        except ImportError as error:
            raise MissingExtra(
                "Keras is needed to read this model", where=first_line(error), fix="pip install 'edgekit[keras]'"
            ) from None
    if keras.backend.backend() != "tensorflow":
        raise SourceError(
            f"Keras runs on {keras.backend.backend()} in this process; edgekit reads Keras models on TensorFlow",
            fix="set KERAS_BACKEND=tensorflow before importing keras",
        )
    return keras


def _read_config(path: Path, spec: str) -> dict[str, Any]:
    """The architecture as the file has it, read without Keras and before anything of it is built."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            try:
                return json.loads(archive.read("config.json"))
            except (KeyError, ValueError, zipfile.BadZipFile) as error:
                raise SourceError(
                    f"the archive holds no Keras model: {first_line(error)}", where=spec, fix="save it again with model.save()"
                ) from None
    try:
        import h5py
    except ImportError:
        raise MissingExtra("h5py is needed to read this file", where=spec, fix="pip install 'edgekit[keras]'") from None
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
    except OSError as error:
        raise SourceError(
            f"the file is no Keras model: {first_line(error)}",
            where=spec,
            fix="copy it again, or save it again with model.save()",
        ) from None
    if text is None:
        raise SourceError(
            "the file holds weights without an architecture",
            where=spec,
            fix="save the whole model with model.save(), or give file.py:factory that builds it and loads these weights",
        )
    return json.loads(text)


def _refuse_code(config: dict[str, Any], spec: str) -> None:
    for node in walk(config):
        kind, name = node.get("class_name"), (node.get("config") or {}).get("name", "")
        if kind in ("Lambda", "__lambda__"):
            raise UntrustedSource(
                "the model has a Lambda layer: Python code that runs when it is loaded",
                where=f"{spec}, layer {name or kind}",
                fix="if you know who made the file, pass --trust-source; better, replace the layer by Keras operations",
            )
        if _is_custom(node):
            raise UntrustedSource(
                f"the model uses the class {kind}, which is not part of Keras",
                where=f"{spec}, layer {name or kind} (module {node.get('module')})",
                fix="give file.py:factory that imports the class and returns the loaded model, or pass --trust-source",
            )


def _is_custom(node: dict[str, Any]) -> bool:
    """Whether a serialized object is of a class outside of Keras. Configs of Keras 2 name no modules."""
    module = node.get("module")
    if isinstance(module, str):
        return module.split(".")[0] != "keras"
    return "registered_name" in node and node["registered_name"] not in (None, node["class_name"])


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Every serialized object (`{"class_name": …}`) of a Keras config, from the outside in."""
    if isinstance(node, dict):
        if isinstance(node.get("class_name"), str):
            yield node
        for child in node.values():
            yield from walk(child)
    elif isinstance(node, list):
        for child in node:
            yield from walk(child)


def _load(keras: Any, path: Path, config: dict[str, Any], spec: str, trust: bool) -> Any:
    from edgekit.sources.keras_legacy import load_legacy

    try:
        if zipfile.is_zipfile(path):
            return keras.saving.load_model(path, compile=False, safe_mode=not trust)
        return load_legacy(keras, path, config, spec, trust)
    except SourceError:
        raise
    except Exception as error:  # Keras raises TypeError, ValueError, KeyError, OSError … for a model that it cannot rebuild
        raise SourceError(
            f"Keras {keras.__version__} cannot rebuild the model: {first_line(error)}",
            where=spec,
            fix="save it again with a current Keras, or as a SavedModel with model.export(folder), or give file.py:factory",
        ) from error


def _use_float32(model: Any) -> None:
    for layer in model._flatten_layers():
        policy = layer.dtype_policy
        if policy.compute_dtype != policy.variable_dtype and policy.variable_dtype == "float32":
            layer.dtype_policy = "float32"


def _declare(name: str, tensor: Any, spec: str) -> Declared:
    dtype = str(tensor.dtype)
    if dtype == "string":
        raise SourceError(
            f"the input {name!r} takes text", where=spec, fix="cut the text layers off: a device model takes the token ids"
        )
    return Declared(name, tuple(tensor.shape), "float32" if dtype in ("float16", "bfloat16") else dtype)


def _output_names(keras: Any, model: Any, inputs: Sequence[str]) -> list[str]:
    """Keys where the model returns a dict, else the names of the layers that give the outputs."""
    if isinstance(model._outputs_struct, dict):
        paths = [path for path, _ in keras.tree.flatten_with_path(model._outputs_struct)]
        return distinct_names(["_".join(map(str, path)) for path in paths], inputs)
    return distinct_names(list(model.output_names), inputs)
