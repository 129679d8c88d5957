"""TensorFlow SavedModel folders, of TensorFlow 1 and 2, with or without Keras.

They are read as graphs with signatures and variables (the part that both versions share), not as objects: a folder whose
optimizer or custom classes this TensorFlow cannot rebuild still has its `serving_default` function. The variables become
constants once, and that one graph is the reference as well as what is converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.contract import Feeds, Results, TensorSpec
from edgekit.errors import SourceError, UntrustedSource
from edgekit.sources.digest import digest_path
from edgekit.sources.quiet import silent
from edgekit.sources.shapes import Declared, resolve_inputs
from edgekit.sources.source import Source, describe_outputs, distinct_names, first_line
from edgekit.sources.tensorflow_graph import convert_function, import_tensorflow, signature

if TYPE_CHECKING:
    import onnx_ir

SIGNATURE = "serving_default"

REACH_OUTSIDE = {"ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc"}
"""TensorFlow operators by which a graph reads and writes files or calls Python."""


def open_saved_model(spec: str, path: Path, *, inputs: Sequence[TensorSpec], dynamic: Sequence[str], trust: bool) -> Source:
    """Open a SavedModel folder at its `serving_default` signature, or at its only one.

    Raises:
        SourceError: The folder is no SavedModel, is damaged, or has no signature to serve.
        UntrustedSource: Its graph reads or writes files or calls Python, and `trust` is False.
    """
    if not (path / "saved_model.pb").is_file():
        raise SourceError(
            "the folder is no SavedModel: it has no saved_model.pb", where=spec, fix="give the folder that model.export() wrote"
        )
    tensorflow = import_tensorflow()
    frozen = _freeze(tensorflow, path, spec, trust)
    names = distinct_names(list(frozen.inputs))
    declared = [_declare(name, info, spec) for name, info in zip(names, frozen.inputs.values(), strict=True)]
    fixed = resolve_inputs(declared, inputs, dynamic, spec)
    output_names = distinct_names(list(frozen.outputs), names)

    def call(*tensors: Any) -> list[Any]:
        """To be traced: imports the graph into the one that is being built."""
        fed = {info.name: tensor for info, tensor in zip(frozen.inputs.values(), tensors, strict=True)}
        wanted = [info.name for info in frozen.outputs.values()]
        return tensorflow.graph_util.import_graph_def(frozen.graph, input_map=fed, return_elements=wanted, name="")

    with silent():
        from tensorflow.python.eager import context

        for definition in frozen.graph.library.function:  # an imported graph calls its functions by name
            context.context().add_function_def(definition)
        function = tensorflow.function(call, input_signature=signature(fixed), autograph=False)

    def reference(feeds: Feeds) -> Results:
        with tensorflow.device("/CPU:0"):
            results = function(*(tensorflow.convert_to_tensor(feeds[name]) for name in names))
        return dict(zip(output_names, (np.asarray(result) for result in results), strict=True))

    def convert() -> onnx_ir.Model:
        return convert_function(call, fixed, outputs, spec)

    outputs = describe_outputs(reference, fixed, spec)
    return Source("keras", spec, digest_path(path), fixed, outputs, reference, convert)


@dataclass(frozen=True)
class _Frozen:
    """A signature's graph without variables; inputs and outputs as `TensorInfo`s by key, in the order of the keys."""

    graph: Any
    inputs: dict[str, Any]
    outputs: dict[str, Any]


def _freeze(tensorflow: Any, path: Path, spec: str, trust: bool) -> _Frozen:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_from_session_graph
    from tensorflow.python.saved_model import loader_impl

    v1 = tensorflow.compat.v1
    with silent(), tensorflow.device("/CPU:0"), tensorflow.Graph().as_default(), v1.Session() as session:
        try:
            metas = loader_impl.parse_saved_model(str(path)).meta_graphs
            meta = next((m for m in metas if "serve" in m.meta_info_def.tags), metas[0])
            if not trust:
                _refuse_reaching_outside(meta.graph_def, spec)
            loaded = v1.saved_model.load(session, list(meta.meta_info_def.tags), str(path))
            chosen = _signature(loaded.signature_def, spec)
            inputs = {key: chosen.inputs[key] for key in sorted(chosen.inputs)}
            outputs = {key: chosen.outputs[key] for key in sorted(chosen.outputs)}
            nodes = [info.name.partition(":")[0] for info in outputs.values()]
            graph = convert_variables_to_constants_from_session_graph(session, session.graph_def, nodes)
        except SourceError:
            raise
        except Exception as error:  # TensorFlow raises OSError, its own errors, protobuf's …
            raise SourceError(
                f"TensorFlow cannot read the SavedModel: {first_line(error)}",
                where=spec,
                fix="copy the whole folder again, with variables/, or export the model again",
            ) from error
    return _Frozen(graph, inputs, outputs)


def _refuse_reaching_outside(graph: Any, spec: str) -> None:
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    for node in nodes:
        if node.op in REACH_OUTSIDE:
            raise UntrustedSource(
                f"the graph has a {node.op} operator, which acts outside of the model",
                where=f"{spec}, node {node.name}",
                fix="export the model without it, or pass --trust-source if you know who made it",
            )


def _signature(signatures: Any, spec: str) -> Any:
    served = {key: value for key, value in signatures.items() if not key.startswith("__")}
    if SIGNATURE not in served and len(served) != 1:
        have = ", ".join(sorted(served)) or "none"
        raise SourceError(
            f"the SavedModel has no signature {SIGNATURE!r} (it has: {have})", where=spec, fix="save it with that signature"
        )
    return served.get(SIGNATURE) or next(iter(served.values()))


def _declare(name: str, info: Any, spec: str) -> Declared:
    import tensorflow

    dtype = tensorflow.dtypes.as_dtype(info.dtype).name
    if dtype in ("string", "resource", "variant"):
        raise SourceError(f"the input {name!r} takes {dtype}", where=spec, fix="export a signature that takes tensors of numbers")
    if info.tensor_shape.unknown_rank:
        return Declared(name, None, dtype)
    return Declared(name, tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim), dtype)
