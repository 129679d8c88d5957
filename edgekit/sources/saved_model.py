"""TensorFlow SavedModel folders, of TensorFlow 1 and 2, with or without Keras.

They load through the reader of their signatures (the part that both versions share), not of their objects: a folder whose
optimizer or custom classes this TensorFlow cannot rebuild still has its `serving_default` function and its variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.contract import Feeds, Results, TensorSpec
from edgekit.errors import SourceError
from edgekit.sources.digest import digest_path
from edgekit.sources.quiet import silent
from edgekit.sources.shapes import Declared, resolve_inputs
from edgekit.sources.source import Source, describe_outputs, distinct_names, first_line
from edgekit.sources.tensorflow_graph import convert_function, import_tensorflow

if TYPE_CHECKING:
    import onnx_ir

SIGNATURE = "serving_default"


def open_saved_model(spec: str, path: Path, *, inputs: Sequence[TensorSpec], dynamic: Sequence[str]) -> Source:
    """Open a SavedModel folder at its `serving_default` signature, or at its only one.

    Raises:
        SourceError: The folder is no SavedModel, is damaged, or has no signature to serve.
    """
    if not (path / "saved_model.pb").is_file():
        raise SourceError(
            "the folder is no SavedModel: it has no saved_model.pb", where=spec, fix="give the folder that model.export() wrote"
        )
    tensorflow = import_tensorflow()
    function = _signature(tensorflow, path, spec)
    keys = sorted(function.structured_input_signature[1])
    declared_tensors = function.structured_input_signature[1]
    names = distinct_names(keys)
    declared = [_declare(name, declared_tensors[key], spec) for name, key in zip(names, keys, strict=True)]
    fixed = resolve_inputs(declared, inputs, dynamic, spec)
    output_keys = sorted(function.structured_outputs)
    output_names = distinct_names(output_keys, names)

    def call(*tensors: Any) -> list[Any]:
        results = function(**dict(zip(keys, tensors, strict=True)))
        return [results[key] for key in output_keys]

    def reference(feeds: Feeds) -> Results:
        with tensorflow.device("/CPU:0"):
            results = call(*(tensorflow.convert_to_tensor(feeds[name]) for name in names))
        return dict(zip(output_names, (np.asarray(result) for result in results), strict=True))

    def convert() -> onnx_ir.Model:
        return convert_function(call, fixed, outputs, spec)

    outputs = describe_outputs(reference, fixed, spec)
    return Source("keras", spec, digest_path(path), fixed, outputs, reference, convert)


def _signature(tensorflow: Any, path: Path, spec: str) -> Any:
    from tensorflow.python.saved_model import load_v1_in_v2, loader_impl

    with silent(), tensorflow.device("/CPU:0"):
        try:
            graphs = loader_impl.parse_saved_model(str(path)).meta_graphs
            tags = next((set(g.meta_info_def.tags) for g in graphs if "serve" in g.meta_info_def.tags), None)
            tags = tags or set(graphs[0].meta_info_def.tags)
            loaded = load_v1_in_v2.load(str(path), tags, False)
        except Exception as error:  # TensorFlow raises OSError, its own errors, protobuf's …
            raise SourceError(
                f"TensorFlow cannot read the SavedModel: {first_line(error)}",
                where=spec,
                fix="copy the folder again, with variables/",
            ) from error
    signatures = {key: value for key, value in loaded.signatures.items() if not key.startswith("__")}
    if SIGNATURE not in signatures and len(signatures) != 1:
        have = ", ".join(sorted(signatures)) or "none"
        raise SourceError(
            f"the SavedModel has no signature {SIGNATURE!r} (it has: {have})", where=spec, fix="save it with that signature"
        )
    function = signatures.get(SIGNATURE) or next(iter(signatures.values()))
    # The function lives as long as the variables of the object that it came from.
    function.edgekit_owner = loaded
    return function


def _declare(name: str, tensor: Any, spec: str) -> Declared:
    if tensor.dtype.name in ("string", "resource", "variant"):
        raise SourceError(
            f"the input {name!r} takes {tensor.dtype.name}", where=spec, fix="export a signature that takes tensors of numbers"
        )
    shape = tuple(tensor.shape) if tensor.shape.rank is not None else None
    return Declared(name, shape, tensor.dtype.name)
