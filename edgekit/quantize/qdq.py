"""int8 for ONNX Runtime, through onnxruntime's own quantizer."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import EdgekitError, QuantizeError
from edgekit.ort.model import clean, to_proto
from edgekit.ort.probe import INFINITE, PROBES, largest_magnitudes
from edgekit.ort.session import rewrite
from edgekit.quantize.recipe import Recipe
from edgekit.telemetry import load_onnxruntime

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from edgekit.contract import Feeds
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

    Weights are symmetric int8 with one scale per output channel, activations int8 with one scale and zero point each.
    This is what onnxruntime recommends for all processors: ARM computes in int8 directly, x86 turns activations into uint8
    when it loads the model. The range of an activation is the recipe's, or what `ranges` says of the value of that name.

    Raises:
        QuantizeError: There are no calibration data, or onnxruntime cannot quantize the model.
    """
    load_onnxruntime()
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize

    if calibration is None:
        raise QuantizeError(
            "int8 needs calibration data: the ranges of the activations are measured on real inputs",
            where="precision int8",
            fix="pass --calibration with a folder of pictures, a .npy, a .npz or file.py:function, or ask for int8-dynamic",
        )
    recipe = recipe or Recipe()
    prepared = _prepared(hub)
    method = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }[recipe.ranges]
    # Histograms would hold every activation of every sample in memory; with a stride of 1 they are merged sample by sample.
    extra_options: dict[str, Any] = {} if recipe.ranges == "minmax" else {"CalibStridedMinMax": 1}
    extra_options["TensorQuantOverrides"] = _overrides(prepared, ranges or {})

    infinite = _infinite_values(prepared, calibration.subset(PROBES))
    excluded = [
        node.name
        for node in prepared.graph.node
        if recipe.keeps(node.name) or _is_dilated_pool(node) or not infinite.isdisjoint((*node.input, *node.output))
    ]

    def run(path: Path) -> None:
        quantize(
            prepared,
            path,
            calibration_data_reader=_reader(calibration.subset(recipe.samples)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=recipe.reduce_range,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
            calibrate_method=method,
            extra_options=extra_options,
        )

    quantized = _with_float_readout(_quantized(run), prepared)
    return clean(quantized).SerializeToString(deterministic=True), _float_notes(quantized)


def quantize_dynamic(hub: ir.Model, recipe: Recipe | None = None) -> tuple[bytes, list[str]]:
    """The hub with int8 weights; the ranges of activations are found anew in each run, so that no data are needed.

    Matrix products, LSTM and embeddings get signed weights with one scale per output channel. Convolutions stay in float: all
    that the quantizer has for them is a single scale for all channels, and ConvInteger is slower than the float kernel
    (ResNet-56: 1.9 against 1.1 ms).

    Raises:
        QuantizeError: onnxruntime cannot quantize the model.
    """
    load_onnxruntime()
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    recipe = recipe or Recipe()
    model = _prepared(hub)

    def run(path: Path) -> None:
        quantize(
            model,
            path,
            op_types_to_quantize=_MATRIX_PRODUCTS,
            per_channel=True,
            reduce_range=recipe.reduce_range,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node.name for node in model.graph.node if recipe.keeps(node.name)],
        )

    quantized = clean(_quantized(run))
    return quantized.SerializeToString(deterministic=True), _float_notes(quantized)


_MATRIX_PRODUCTS = ["MatMul", "Attention", "LSTM", "Gather", "EmbedLayerNormalization"]


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
    "Elu Flatten HardSigmoid HardSwish LeakyRelu LogSoftmax Relu Reshape Sigmoid Slice Softmax Squeeze Tanh Unsqueeze".split()
)
_PRODUCTS = ("Gemm", "MatMul")


def _with_float_readout(model: onnx.ModelProto, exact: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the rounding of results of dense layers that are its outputs, and of what reads them off (Softmax …).

    The product of integers can give them in float. In 256 steps of its range, the scores of a classifier tie or change places
    where the float ones are close together. `exact` is the model before it was quantized: a Relu or Clip that the quantizer
    left to a range comes back from there.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    users = Counter(name for node in model.graph.node for name in node.input)
    clips = {node.output[0]: node for node in exact.graph.node if node.op_type in ("Relu", "Clip")}
    pairs = [pair for output in model.graph.output for pair in _rounded_readout(output.name, makers, users)]
    dropped = {name for rounded, _ in pairs for name in (rounded, makers[rounded].input[0])}
    kept: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if not dropped.isdisjoint(node.output):
            continue
        kept.append(node)
        for rounded, made in pairs:
            if made not in node.output:
                continue
            clip = clips.get(rounded)
            is_lost = clip is not None and clip.op_type != node.op_type
            node.output[:] = [(f"{rounded}/unclipped" if is_lost else rounded) if name == made else name for name in node.output]
            if clip is not None and is_lost:
                kept.append(_fed(clip, f"{rounded}/unclipped"))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def _fed(node: onnx.NodeProto, name: str) -> onnx.NodeProto:
    """A copy with another first input."""
    copy = type(node)()
    copy.CopyFrom(node)
    copy.input[0] = name
    return copy


def _rounded_readout(output: str, makers: Mapping[str, onnx.NodeProto], users: Mapping[str, int]) -> list[tuple[str, str]]:
    """Pairs of a value that comes out of a DequantizeLinear and what was rounded for it, from an output back to its product.

    Empty where something else than a product is behind the output, or a value on the way has other users.
    """
    pairs: list[tuple[str, str]] = []
    name, limit = output, 0  # nothing may take the output itself beside the caller
    while (node := makers.get(name)) is not None and users[name] <= limit:
        limit = 1
        if node.op_type == "DequantizeLinear":
            before = makers.get(node.input[0])
            if before is None or before.op_type != "QuantizeLinear" or users[node.input[0]] != 1 or users[before.input[0]] != 1:
                return []
            pairs.append((name, before.input[0]))
            name = before.input[0]
        elif node.op_type in _READING:
            name = node.input[0]
        else:
            return pairs if node.op_type in _PRODUCTS else []
    return []


def _infinite_values(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> set[str]:
    """Values that hold stand-ins for infinity, as attention masks do: one int8 scale over them would make all else zero."""
    from onnx import numpy_helper

    names = {name for name, size in largest_magnitudes(model, feeds).items() if size >= INFINITE}
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and (np.abs(array) >= INFINITE).any():
            names.add(tensor.name)
    return names


def _overrides(model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]) -> dict[str, list[dict[str, Any]]]:
    """The given ranges in the quantizer's own words, of the values that basic optimizations have left."""
    values = {value.name for value in model.graph.input} | {name for node in model.graph.node for name in node.output}
    return {
        name: [{"rmin": np.array(low, np.float32), "rmax": np.array(high, np.float32)}]
        for name, (low, high) in ranges.items()
        if name in values and low < high
    }


def _is_dilated_pool(node: onnx.NodeProto) -> bool:
    return node.op_type == "AveragePool" and any(a.name == "dilations" and max(a.ints) > 1 for a in node.attribute)


def _reader(feeds: Sequence[Feeds]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.set_range(0, len(feeds))

        def get_next(self) -> dict[str, Any] | None:
            return next(self._iterator, None)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._iterator: Iterator[dict[str, Any]] = (dict(feeds[i]) for i in range(start_index, end_index))

        def __len__(self) -> int:
            return len(feeds)

    return Reader()


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
                fix="keep the operator in float with the recipe's keep_float, or leave this precision out",
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
