"""The ONNX → LiteRT compiler.

    rewrite ONNX → assign layouts → lower (edgekit.litert.pipeline) → fit kernels → peephole → integers → write

`compile` takes any ONNX model; `compile_hub` takes the hub graph (edgekit.hub.prepare) and also says how the artifact's inputs
and outputs relate to the model's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.collection import paused_collection
from edgekit.contract import Binding
from edgekit.errors import InputError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from edgekit.litert.graph import Tensor

__all__ = ["Compiled", "compile", "compile_hub"]

LAYOUTS = ("keep", "nhwc", "nchw")
PRECISIONS = ("fp32", "fp16", "int8-weights", "int4-weights")


@dataclass(frozen=True)
class Compiled:
    """A .tflite file in memory.

    Args:
        data: The file's bytes.
        inputs, outputs: How its tensors relate to the model's, in the file's order.
        operators: How many of each builtin operator it has, as written (before any delegate).
        notes: What a reader of the report must know.
    """

    data: bytes
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    operators: dict[str, int]
    notes: tuple[str, ...] = ()


@paused_collection()
def compile(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model,
    *,
    shapes: Mapping[str, tuple[int | str, ...]] | None = None,
    input_layout: str = "keep",
    output_layout: str = "keep",
    precision: str = "fp32",
) -> bytes:
    """Compile an ONNX model to a .tflite file.

    Args:
        model: A path, the bytes of a file, an `onnx.ModelProto` (left alone) or an `onnx_ir.Model` (used up).
        shapes: Shapes for inputs that have dynamic dimensions, by name.
        input_layout, output_layout: `keep` keeps the ONNX shapes exactly. `nhwc` and `nchw` hold images and feature maps (what
            convolutions and poolings see) channels-last or channels-first and keep everything else.
        precision: `fp32`, or for smaller weights `fp16`, `int8-weights` or `int4-weights`.

    Returns:
        The bytes of the file, with the signature `serving_default` and the ONNX names.

    Raises:
        SourceError: It is not a readable ONNX model.
        UnsupportedOperator: A node cannot be expressed in LiteRT.
        CompileError: The graph cannot: a type that LiteRT does not have, a value of unknown rank.
    """
    from edgekit import hub

    prepared = hub.prepare(_read(model), shapes=shapes or {})
    return _compile(prepared, input_layout, output_layout, precision, stored_integers=True).data


@paused_collection()
def compile_hub(
    hub: ir.Model,
    *,
    input_layout: str = "keep",
    output_layout: str = "keep",
    precision: str = "fp32",
    stored_integers: bool = False,
) -> Compiled:
    """Compile the hub graph, which stays as it is; see `compile` for the other arguments.

    Args:
        stored_integers: Weights that are int8 times a scale are stored so (edgekit.litert.stored_integers), as `compile` does.
            A quantizer wants them as float32 constants.
    """
    return _compile(hub.clone(), input_layout, output_layout, precision, stored_integers)


def _compile(model: ir.Model, input_layout: str, output_layout: str, precision: str, stored_integers: bool) -> Compiled:
    for layout in (input_layout, output_layout):
        if layout not in LAYOUTS:
            raise InputError(f"{layout!r} is not a layout", fix=f"use one of {', '.join(LAYOUTS)}")
    if precision not in PRECISIONS:
        written = ", ".join(PRECISIONS)
        raise InputError(f"the compiler writes {written}, not {precision!r}", fix="quantize the compiled model for int8")
    from edgekit.litert.fit import fit_kernels
    from edgekit.litert.half import to_half
    from edgekit.litert.known_ranks import require_known_ranks
    from edgekit.litert.lookup_tables import look_up_repetitions
    from edgekit.litert.lower.non_negative import mark_as_fed
    from edgekit.litert.multiply_add import multiply_and_add
    from edgekit.litert.peephole import simplify
    from edgekit.litert.pipeline import to_litert
    from edgekit.litert.quantized import to_integers
    from edgekit.litert.stored_integers import store_integers
    from edgekit.litert.weight_only import store_weights
    from edgekit.litert.write import write

    require_known_ranks(model)
    mark_as_fed(model.graph)
    names = [v.name or "" for v in model.graph.outputs]
    graph, held, notes = to_litert(model, input_layout=input_layout, output_layout=output_layout)
    notes += fit_kernels(graph)
    simplify(graph)
    notes += to_integers(graph)
    multiply_and_add(graph)
    look_up_repetitions(graph)
    if stored_integers:
        store_integers(graph)
    notes += to_half(graph) if precision == "fp16" else []
    notes += store_weights(graph, precision) if precision.endswith("-weights") else []
    data = write(graph, f"{model.graph.name or 'model'}, compiled by edgekit")
    return Compiled(
        data,
        tuple(_binding(t.name, t, held.inputs[t.name]) for t in graph.inputs),
        tuple(_binding(name, t, held.outputs[name]) for name, t in zip(names, graph.outputs, strict=True)),
        graph.operator_counts(),
        tuple(notes),
    )


def _binding(source: str, tensor: Tensor, perm: tuple[int, ...]) -> Binding:
    moved = perm != tuple(range(len(perm)))
    return Binding(source, tensor.name, tensor.shape, tensor.dtype.name, perm if moved else None)


def _read(model: str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model) -> ir.Model:
    import onnx
    import onnx_ir as ir

    from edgekit.onnx_file import convert_proto, parse_onnx, read_onnx, require_outputs

    if isinstance(model, bytes):
        return convert_proto(parse_onnx(model))
    if isinstance(model, onnx.ModelProto):
        copied = onnx.ModelProto()
        copied.CopyFrom(model)
        return convert_proto(copied)
    if isinstance(model, ir.Model):
        require_outputs(model, "a model in memory")
        return model
    return read_onnx(model).model
