"""int8 for ONNX Runtime, through onnxruntime's own quantizer."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import EdgekitError, QuantizeError
from edgekit.ort.model import clean, to_proto
from edgekit.ort.probe import INFINITE
from edgekit.ort.session import rewrite
from edgekit.quantize.data import no_calibration
from edgekit.quantize.layers import kept_values
from edgekit.quantize.recipe import Recipe
from edgekit.telemetry import load_onnxruntime

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from edgekit.quantize.data import Calibration

# Operators that do arithmetic on weights; what is left of them in float is told in a note.
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU")


def quantize_static(
    hub: ir.Model,
    calibration: Calibration | None,
    recipe: Recipe | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[bytes, list[str]]:
    """The hub in int8 with fixed ranges: an ONNX file in QDQ form (QuantizeLinear and DequantizeLinear around each operator).

    Weights are symmetric int8 with one scale per output channel, activations uint8 with one scale and zero point each: the same
    256 steps as LiteRT's. Signed ones onnxruntime would turn into uint8 on x86 when it loads the model, but not those that two
    nodes take, and what is beside them it would then compute in float: half of a residual network.

    In a network with attention the products get the ranges of their activations in each run, as in the LiteRT artifact.

    Args:
        hub: The graph.
        calibration: Real inputs.
        recipe: Which layers stay in float (`int16x8` as well: onnxruntime has no 16-bit kernels).
        ranges: The range of every value of the hub that has one, as `condition` finds them; without it, the extremes.

    Raises:
        QuantizeError: There are no calibration data, or onnxruntime cannot quantize the model.
    """
    load_onnxruntime()
    if calibration is None:
        raise no_calibration("int8")
    recipe = recipe or Recipe()
    prepared = _prepared(hub)
    known = _complete(prepared, hub, calibration, recipe, ranges)
    dynamic = _has_attention(prepared)
    kept = kept_values(hub, recipe)
    reading, products = _readouts(prepared)
    boundless = _float_values(prepared) - known.keys()  # stand-ins for infinity: one int8 scale would let them drown all else
    excluded = [
        node.name
        for node in prepared.graph.node
        if node.name in reading
        or (dynamic and node.op_type in _MATRIX_PRODUCTS)
        or not kept.keys().isdisjoint(node.output)
        or _is_dilated_pool(node)
        or not boundless.isdisjoint((*node.input, *node.output))
    ]

    def run(path: Path) -> None:
        work = _quantizer(prepared, known, excluded, recipe, _FIXED_BESIDE_ATTENTION if dynamic else None)
        work.quantize_model()
        work.model.save_model_to_file(str(path), False)

    quantized = _without_rounding_of(products, _quantized(run))
    if dynamic:
        quantized = _with_dynamic_products(quantized, recipe, kept)
    return clean(quantized).SerializeToString(deterministic=True), _float_notes(quantized)


def _quantizer(
    model: onnx.ModelProto,
    ranges: Mapping[str, tuple[float, float]],
    excluded: Sequence[str],
    recipe: Recipe,
    kinds: Sequence[str] | None,
) -> Any:
    """onnxruntime's quantizer, given the ranges that its own calibrators would otherwise find."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    return QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=recipe.reduce_range,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[],
        nodes_to_exclude=list(excluded),
        op_types_to_quantize=sorted({*QDQRegistry, *QLinearOpsRegistry}) if kinds is None else list(kinds),
        extra_options={},
    )


def _complete(
    prepared: onnx.ModelProto,
    hub: ir.Model,
    calibration: Calibration,
    recipe: Recipe,
    given: Mapping[str, tuple[float, float]] | None,
) -> dict[str, tuple[float, float]]:
    """The given ranges and, of values that only the prepared graph has, the extremes on some samples.

    A value that is not held gets the range of what is made of it: the quantizer merges them.
    """
    from edgekit.quantize.observe import FEW, observe
    from edgekit.quantize.simulate import held_values

    held = held_values(prepared)
    if not given:
        ranges = {name: value.extremes for name, value in observe(prepared, calibration.subset(recipe.samples)).items()}
    else:
        of_hub = {str(value.name) for node in hub.graph for value in node.outputs} | {str(v.name) for v in hub.graph.inputs}
        missing = held - of_hub
        seen = observe(prepared, calibration.subset(min(recipe.samples, FEW)), missing) if missing else {}
        ranges = {**given, **{name: value.extremes for name, value in seen.items()}}
    for node in prepared.graph.node:
        if node.op_type in ("Relu", "Clip") and node.input[0] not in held and node.output[0] in ranges:
            ranges[node.input[0]] = ranges[node.output[0]]
    return ranges


def _float_values(model: onnx.ModelProto) -> set[str]:
    """The names of float32 values that nodes take or give, and of constants that hold stand-ins for infinity."""
    import onnx
    from onnx import numpy_helper

    inferred = onnx.shape_inference.infer_shapes(model).graph
    declared = (*inferred.value_info, *inferred.input, *inferred.output)
    names = {value.name for value in declared if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    names -= {tensor.name for tensor in model.graph.initializer}
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and (np.abs(numpy_helper.to_array(tensor)) >= INFINITE).any():
            names.add(tensor.name)
    return names


def quantize_dynamic(hub: ir.Model, recipe: Recipe | None = None) -> tuple[bytes, list[str]]:
    """The hub with int8 weights; the ranges of activations are found anew in each run, so that no data are needed.

    Matrix products, LSTM and embeddings get signed weights with one scale per output channel. Convolutions stay in float: all
    that the quantizer has for them is a single scale for all channels, and ConvInteger is slower than the float kernel
    (ResNet-56: 1.9 against 1.1 ms).

    Raises:
        QuantizeError: onnxruntime cannot quantize the model.
    """
    load_onnxruntime()
    recipe = recipe or Recipe()
    quantized = clean(_with_dynamic_products(_prepared(hub), recipe, kept_values(hub, recipe)))
    return quantized.SerializeToString(deterministic=True), _float_notes(quantized)


def _with_dynamic_products(model: onnx.ModelProto, recipe: Recipe, kept: Container[str]) -> onnx.ModelProto:
    """The model with products whose activations are quantized in each run; those that make a value in `kept` stay in float."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    def run(path: Path) -> None:
        quantize(
            model,
            path,
            op_types_to_quantize=_MATRIX_PRODUCTS,
            per_channel=True,
            reduce_range=recipe.reduce_range,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node.name for node in model.graph.node if any(name in kept for name in node.output)],
        )

    return _quantized(run)


_MATRIX_PRODUCTS = ["MatMul", "Attention", "LSTM", "Gather", "EmbedLayerNormalization"]
# Fixed ranges would ruin a network with attention; convolutions, and what the quantizer merges with them, take them well.
_FIXED_BESIDE_ATTENTION = ["Conv", "Clip", "Relu"]


def _prepared(hub: ir.Model) -> onnx.ModelProto:
    """The hub after basic optimizations, every node named (the quantizer refers to nodes by name).

    onnxruntime's int8 AveragePool knows no attribute `dilations` (opset 19) and refuses the model even where it says 1.
    """
    import onnx

    model = onnx.load_model_from_string(rewrite(to_proto(hub).SerializeToString(), optimize="basic"))
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
        if node.op_type == "AveragePool" and not _is_dilated_pool(node):
            kept = [attribute for attribute in node.attribute if attribute.name != "dilations"]
            del node.attribute[:]
            node.attribute.extend(kept)
    return model


# What may stand between the last product and the model's output: it takes the product's float results as they are.
_READING = frozenset(
    "Clip Elu Flatten HardSigmoid HardSwish LeakyRelu LogSoftmax Relu Reshape Sigmoid Slice Softmax Squeeze Tanh "
    "Unsqueeze".split()
)
_PRODUCTS = ("Gemm", "MatMul")
_BESIDE_SHARES = frozenset("Cast Concat Dropout Expand Mul Reshape Squeeze Transpose Unsqueeze Where".split())


def _readouts(model: onnx.ModelProto) -> tuple[set[str], set[str]]:
    """Nodes that read off what a product makes for an output, and these products, by name.

    The product of integers can give its results in float. In 256 steps of their range, the scores of a classifier tie or change
    places where the float ones are close together.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    users = Counter(name for node in model.graph.node for name in node.input)
    reading: set[str] = set()
    products: set[str] = set()
    for output in model.graph.output:
        way, name, limit = [], output.name, 0  # nothing may take the output itself beside the caller
        while (node := makers.get(name)) is not None and users[name] <= limit and node.op_type in _READING:
            way.append(node.name)
            name, limit = node.input[0], 1
        if node is not None and users[name] <= limit and node.op_type in _PRODUCTS:
            reading.update(way)
            products.add(node.name)
    return reading, products


def _without_rounding_of(products: Container[str], model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the QuantizeLinear and DequantizeLinear behind these nodes."""
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    dropped: set[str] = set()
    for node in model.graph.node:
        rounding = takers.get(node.output[0], []) if node.name in products else []
        if len(rounding) == 1 and rounding[0].op_type == "QuantizeLinear":
            (expanding,) = takers[rounding[0].output[0]]
            dropped |= {rounding[0].name, expanding.name}
            node.output[0] = expanding.output[0]
    left = [node for node in model.graph.node if node.name not in dropped]
    del model.graph.node[:]
    model.graph.node.extend(left)
    return model


def _has_attention(model: onnx.ModelProto) -> bool:
    """Whether a product takes what a Softmax makes, as it is or guarded, scaled, cast or moved."""
    shares: set[str] = set()
    for node in model.graph.node:
        of_shares = not shares.isdisjoint(node.input)
        if of_shares and node.op_type == "MatMul":
            return True
        if node.op_type == "Softmax" or (of_shares and node.op_type in _BESIDE_SHARES):
            shares.update(node.output)
    return False


def _is_dilated_pool(node: onnx.NodeProto) -> bool:
    return node.op_type == "AveragePool" and any(a.name == "dilations" and max(a.ints) > 1 for a in node.attribute)


def _quantized(run: Callable[[Path], None]) -> onnx.ModelProto:
    import onnx

    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder, _silent():
        path = Path(folder, "model.onnx")
        try:
            run(path)
        except EdgekitError:
            raise
        except Exception as error:  # the quantizer raises many types, onnxruntime its own
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise QuantizeError(
                f"onnxruntime cannot quantize the model: {reason}",
                fix="keep the operator in float in the recipe's layers, or leave this precision out",
            ) from error
        return onnx.load(path)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The quantizer prints its progress and recommends, through the root logger, preprocessing that the hub has had."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)


def _float_notes(model: onnx.ModelProto) -> list[str]:
    """Which operators with weights still compute in float."""
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    integer = ("DequantizeLinear",)
    left = Counter(
        node.op_type
        for node in model.graph.node
        if node.op_type in _WEIGHTED and not all(producers.get(name) in integer for name in node.input[:2])
    )
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(left.items()))
    return [f"in float: {listed}"] if listed else []
