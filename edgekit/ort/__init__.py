"""ONNX Runtime artifacts from the hub graph: `.onnx`, and `.ort` with the operators that a small build must contain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgekit.contract import Artifact, Binding
from edgekit.errors import QuantizeError

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgekit.contract import Feeds
    from edgekit.quantize import Calibration
    from edgekit.quantize.recipe import Recipe

__all__ = ["build"]


def build(
    hub: ir.Model,
    precision: str,
    *,
    calibration: Calibration | None = None,
    recipe: Recipe | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    probes: Sequence[Feeds] = (),
    formats: Sequence[str] = ("onnx", "ort"),
    name: str | None = None,
) -> list[Artifact]:
    """All ONNX Runtime artifacts of one precision.

    Every artifact has the hub's inputs and outputs: same names, same shapes, same dtypes (float32 also for fp16 and int8).
    Each has been loaded by onnxruntime. The same hub and the same data give the same bytes. A hub that is quantized already keeps
    its integers in all integer precisions, needs no calibration, and a note says so.

    Args:
        hub: The graph that `edgekit.hub.prepare` gives. It is not changed.
        precision: One of `edgekit.quantize.PRECISIONS`.
        calibration: Real inputs, which `int8` needs.
        recipe: How to quantize int8.
        ranges: Of activations, by value name, for `int8`: what `edgekit.quantize.condition` finds.
        formats: `onnx`, and `ort` where it is wanted as well.
        name: Of the files, without their suffix; by default `model_<precision>`.
        probes: Inputs on which `fp16` looks for values that float16 is too short for. A few are enough.

    Returns:
        `model_<precision>.onnx`, `model_<precision>.ort` (not for fp16 and weights alone), and for the latter an artifact of
        the format `ort-config`: a text file, `model_<precision>.required_operators.config`, which is nothing to load or run.

    Raises:
        QuantizeError: int8 of a float model without calibration data, or a model that cannot be quantized.
        ArtifactError: onnxruntime does not load the result, or the model is larger than an ONNX file can be.
    """
    import onnx

    from edgekit.hub.quantized import KEPT, is_quantized
    from edgekit.ort.ort_format import required_operators, to_ort_format
    from edgekit.ort.session import open_session

    notes: list[str] = []
    kept = precision.startswith("int") and is_quantized(hub)
    name = name or f"model_{precision}"
    if kept:
        model, notes = _unsigned(_basic(hub, name)), [KEPT]
    elif precision == "fp32":
        model = _basic(hub, name)
    elif precision == "fp16":
        from edgekit.ort.fp16 import to_float16

        model, notes = to_float16(hub, probes)
    elif precision in ("int8", "int8-dynamic"):
        from edgekit.quantize.qdq import quantize_dynamic, quantize_static

        if precision == "int8":
            model, notes = quantize_static(hub, calibration, recipe, ranges)
        else:
            model, notes = quantize_dynamic(hub, recipe)
    elif precision in ("int8-weights", "int4-weights"):
        from edgekit.ort.weight_only import to_stored_weights

        model, notes = to_stored_weights(onnx.load_model_from_string(_basic(hub, name)), precision)
    else:
        raise QuantizeError(
            f"{precision!r} is not a precision of ONNX Runtime files",
            where="edgekit.ort.build",
            fix="pass parse_precision's result",
        )

    open_session(model, name=f"{name}.onnx")
    inputs, outputs = _bindings(hub.graph.inputs), _bindings(hub.graph.outputs)
    artifacts = [Artifact(f"{name}.onnx", "onnx", precision, model, inputs, outputs, tuple(notes))]
    # An .ort is optimized when it is written. onnxruntime on x86 has no float16 kernels and would write its casts to float32 into
    # the file; weights in 8 bits would be expanded.
    if precision not in ("fp16", "int8-weights", "int4-weights") and "ort" in formats:
        ort = to_ort_format(model, name=f"{name}.ort")
        open_session(ort, name=f"{name}.ort")
        config = required_operators({f"{name}.ort": ort}).encode()
        artifacts.append(Artifact(f"{name}.ort", "ort", precision, ort, inputs, outputs, tuple(notes)))
        artifacts.append(Artifact(f"{name}.required_operators.config", "ort-config", precision, config, (), ()))
    return artifacts


def _basic(hub: ir.Model, name: str) -> bytes:
    """The hub after onnxruntime's basic optimizations, or as it is where they would bring in onnxruntime's own operators."""
    import onnx

    from edgekit.ort.model import clean, name_new_constants, to_proto
    from edgekit.ort.session import rewrite

    plain = to_proto(hub)
    optimized = clean(onnx.load_model_from_string(rewrite(plain.SerializeToString(), optimize="basic", name=f"{name}.onnx")))
    name_new_constants(optimized, plain)
    standard = {opset.domain for opset in optimized.opset_import} <= {opset.domain for opset in plain.opset_import}
    return (optimized if standard else plain).SerializeToString(deterministic=True)


def _unsigned(model: bytes) -> bytes:
    import onnx

    from edgekit.ort.unsigned import with_unsigned_activations

    return with_unsigned_activations(onnx.load_model_from_string(model)).SerializeToString(deterministic=True)


def _bindings(values: Sequence[ir.Value]) -> tuple[Binding, ...]:
    return tuple(_binding(value) for value in values)


def _binding(value: ir.Value) -> Binding:
    name = value.name or ""
    shape = tuple(d if isinstance(d, int) else str(d.value or "dynamic") for d in value.shape or ())
    dtype = str(value.dtype.numpy()) if value.dtype is not None else "float32"
    return Binding(source=name, artifact=name, shape=shape, dtype=dtype)
