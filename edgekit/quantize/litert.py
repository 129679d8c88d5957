"""int8 for LiteRT, through ai-edge-quantizer."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import ArtifactError, QuantizeError
from edgekit.hub.quantized import KEPT
from edgekit.quantize.data import Calibration
from edgekit.quantize.recipe import Recipe
from edgekit.quantize.tflite_parts import TfliteParts

if TYPE_CHECKING:
    from edgekit.litert import Compiled

# The quantizer's Quantize and Dequantize operators, and those that carry no arithmetic, are not "in float".
_NOT_ARITHMETIC = ("QUANTIZE", "DEQUANTIZE", "CAST", "SHAPE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "IF", "WHILE", "CALL_ONCE")


# The operators whose weights make the size of a model.
_WEIGHTED = (
    "BATCH_MATMUL",
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "EMBEDDING_LOOKUP",
    "FULLY_CONNECTED",
    "GATHER",
    "TRANSPOSE_CONV",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
)


# In a network with attention. With fixed ranges the few large channels of activations take all steps: all-MiniLM-L6-v2 keeps a
# cosine of 0.45 with everything in int8, 0.51 with normalizations and SOFTMAX in float, 0.95 with FULLY_CONNECTED alone, and
# 0.9987 as it is done here.
_FIXED_BESIDE_ATTENTION = ("CONV_2D", "DEPTHWISE_CONV_2D", "GATHER")
_DYNAMIC_BESIDE_ATTENTION = ("FULLY_CONNECTED", "BATCH_MATMUL")
_ATTENTION_NOTE = (
    "attention: products with weights are int8 with ranges found in each run, since fixed ranges would ruin it; "
    "convolutions and embeddings are int8, the rest is float"
)

# What to leave in float when the runtime refuses a quantized file without naming an operator, in this order.
_SUSPECTS = ("SPLIT", "SPLIT_V", "UNPACK", "PACK", "BATCH_MATMUL", "TRANSPOSE_CONV")


def quantize_litert(
    compiled: Compiled,
    precision: str,
    calibration: Calibration | None = None,
    *,
    recipe: Recipe | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Compiled:
    """A float .tflite file in int8; inputs and outputs stay float32.

    `int8`: int8 activations with fixed ranges, int8 weights with one scale per output channel. The range of an activation is
    the smallest and largest value over all calibration feeds, as for the ONNX Runtime artifact of the same package, or what
    `ranges` says of the tensor of that name (`condition` finds them). (The quantizer's own default is a moving average that
    forgets all but the last twenty or so samples.)
    A dense layer that makes the file's outputs gives them in float, from int8 weights and an input quantized in each run.
    `int8-dynamic`: int8 weights, activations quantized anew in each run; needs no data.

    Operators that the quantizer has no int8 form for stay in float and are told in the notes. A file that is quantized already,
    because the model was, stays as it is and needs no data.

    Raises:
        QuantizeError: int8 of a float file without calibration data, or the quantizer refuses the model.
        ArtifactError: The result does not load or does not run.
    """
    if precision not in ("int8", "int8-dynamic"):
        raise QuantizeError(f"{precision!r} is no integer precision", where="quantize_litert", fix="pass int8 or int8-dynamic")
    if _is_quantized(compiled.data):
        return replace(compiled, notes=(*compiled.notes, KEPT))
    if precision == "int8" and calibration is None:
        raise QuantizeError(
            "int8 needs calibration data: the ranges of the activations are measured on real inputs",
            where="precision int8",
            fix="pass --calibration with a folder of pictures, a .npy, a .npz or file.py:function, or ask for int8-dynamic",
        )
    recipe = recipe or Recipe()
    samples = _samples(compiled, calibration, recipe) if calibration is not None else []
    data, refused = _running(compiled, precision, samples, recipe, ranges or {})
    operators, notes = _described(data, precision)
    notes += [f"the runtime does not take {name} in int8" for name in refused]
    notes += [_ATTENTION_NOTE] if precision == "int8" and TfliteParts(compiled.data).has_attention() else []
    return replace(compiled, data=data, operators=operators, notes=(*compiled.notes, *notes))


def _is_quantized(data: bytes) -> bool:
    """Whether any tensor holds integers that stand for other numbers, beside weights that are expanded before they are used."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    for graph in model.subgraphs:
        expanding = [op for op in graph.operators or [] if _code(model, op) == schema.BuiltinOperator.DEQUANTIZE]
        expanded = {i for op in expanding for i in op.inputs if model.buffers[graph.tensors[i].buffer].data is not None}
        for i, tensor in enumerate(graph.tensors):
            found = tensor.quantization
            if i not in expanded and found is not None and found.scale is not None and len(found.scale) > 0:
                return True
    return False


def _code(model: Any, operator: Any) -> int:
    code = model.operatorCodes[operator.opcodeIndex]
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def _running(
    compiled: Compiled,
    precision: str,
    samples: Sequence[Mapping[str, np.ndarray]],
    recipe: Recipe,
    ranges: Mapping[str, tuple[float, float]],
) -> tuple[bytes, tuple[str, ...]]:
    """A quantized file that loads and runs, and the operators left in float for that, one more with each trial.

    Raises:
        ArtifactError: No operator to blame is left.
    """
    from ai_edge_quantizer import qtyping

    known = {name.value for name in qtyping.TFLOperationName}  # a WHILE is named where an operator inside it was refused
    refused: tuple[str, ...] = ()
    while True:
        data = _from_quantizer(compiled.data, precision, samples, recipe, ranges, refused)
        try:
            _check_runs(data, samples[0] if samples else None)
            return data, refused
        except ArtifactError as error:
            named = re.findall(r"\((\w+)\) failed", error.where or "")
            blamed = [name for name in (*named, *_SUSPECTS) if name in known & compiled.operators.keys() and name not in refused]
            if not blamed:
                raise
            refused += (blamed[0],)


def _from_quantizer(
    data: bytes,
    precision: str,
    samples: Sequence[Mapping[str, np.ndarray]],
    recipe: Recipe,
    ranges: Mapping[str, tuple[float, float]],
    refused: Sequence[str],
) -> bytes:
    try:
        with _silent():
            return _quantized(data, precision, samples, recipe, ranges, refused)
    except Exception as error:  # the quantizer raises ValueError, RuntimeError, KeyError … for what it does not know
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise QuantizeError(
            f"ai-edge-quantizer cannot quantize the model: {reason}",
            fix="keep the operator in float with the recipe's keep_float, or leave this precision out",
        ) from error


def _samples(compiled: Compiled, calibration: Calibration, recipe: Recipe) -> Sequence[Mapping[str, np.ndarray]]:
    feeds = calibration.subset(recipe.samples)
    return [{b.artifact: b.to_artifact(feed[b.source]) for b in compiled.inputs} for feed in feeds]


def _quantized(
    data: bytes,
    precision: str,
    samples: Sequence[Mapping[str, np.ndarray]],
    recipe: Recipe,
    given: Mapping[str, tuple[float, float]],
    refused: Sequence[str],
) -> bytes:
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer
    from ai_edge_quantizer import recipe as recipes

    work = quantizer.Quantizer(data, recipes.static_wi8_ai8() if precision == "int8" else recipes.dynamic_wi8_afp32())
    parts, names = TfliteParts(data), qtyping.TFLOperationName
    float_ = algorithm_manager.AlgorithmName.NO_QUANTIZE
    if precision == "int8":
        for name in (names.INPUT, names.OUTPUT):
            work.update_quantization_recipe(".*", name, algorithm_key=float_)
    if precision == "int8" and parts.has_attention():
        work.update_quantization_recipe(".*", names.ALL_SUPPORTED, algorithm_key=float_)
        for kind in _FIXED_BESIDE_ATTENTION:
            work.add_static_config(".*", names(kind), activation_num_bits=8, weight_num_bits=8)
        for kind in _DYNAMIC_BESIDE_ATTENTION:
            work.add_dynamic_config(".*", names(kind), num_bits=8)
    for result in (*parts.inside_control_flow(), *parts.readout()) if precision == "int8" else ():
        pattern = f"^{re.escape(result)};"  # the quantizer joins the names of an operator's results, with ; after each
        work.update_quantization_recipe(pattern, names.ALL_SUPPORTED, algorithm_key=float_)
        work.add_dynamic_config(pattern, names("FULLY_CONNECTED"), num_bits=8)
    for kind in refused:
        work.update_quantization_recipe(".*", names(kind), algorithm_key=float_)
    for pattern in recipe.keep_float:
        work.update_quantization_recipe(pattern, names.ALL_SUPPORTED, algorithm_key=float_)
    ranges = _ranges(data, samples, work.get_quantization_recipe()) if precision == "int8" else None
    for name, (low, high) in given.items():
        if ranges and {"min", "max"} <= ranges.get(name, {}).keys():
            shape = np.shape(ranges[name]["min"])
            ranges[name] = {**ranges[name], "min": np.full(shape, low, np.float32), "max": np.full(shape, high, np.float32)}
    for result in parts.beside_infinity(ranges or {}):
        work.update_quantization_recipe(f"^{re.escape(result)};", names.ALL_SUPPORTED, algorithm_key=float_)
    return bytes(work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model)


def _ranges(data: bytes, samples: Sequence[Mapping[str, np.ndarray]], recipe: Any) -> dict[str, Any]:
    """Smallest and largest value of each tensor over all samples.

    The interpreter's profiler tracks them while it runs, several times faster than copying out every tensor, and gives the
    same numbers. What it does not see (tensors inside control flow) needs the slow way: one sample tells whether there is any.
    """
    from ai_edge_quantizer.calibrator import CalibrationMode

    fast = _calibrated(data, samples, recipe, CalibrationMode.CALIBRATION_PROFILER_BASED)
    try:
        needed = _calibrated(data, samples[:1], recipe, CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS)
    except ValueError:  # the slow way cannot read tensors without memory, such as the optional inputs of an LSTM
        return fast
    if needed.keys() <= fast.keys():
        return {name: fast[name] for name in needed}
    return _calibrated(data, samples, recipe, CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS)


def _calibrated(data: bytes, samples: Sequence[Mapping[str, np.ndarray]], recipe: Any, mode: Any) -> dict[str, Any]:
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe)
    work = calibrator.Calibrator(data, num_threads=1, mode=mode, qsv_update_func=qsv_utils.min_max_update)
    (signature,) = work.get_signature_list()
    work.calibrate({signature: samples}, manager)
    return work.get_model_qsvs()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The quantizer draws progress bars on stderr, prints reports, logs, and warns of the memory that calibration takes."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _check_runs(data: bytes, sample: Mapping[str, np.ndarray] | None) -> None:
    """Load the file and, where there are data, run it once."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
        if sample is not None:
            interpreter.get_signature_runner()(**sample)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError("LiteRT does not run the quantized model", where=reason, fix="leave this precision out") from error


def _described(data: bytes, precision: str) -> tuple[dict[str, int], list[str]]:
    """How many of each operator the file has, and which of those that count compute in float."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    kinds = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    operators: Counter[str] = Counter()
    floating: Counter[str] = Counter()
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            name = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
            operators[name] += 1
            counts = name in _WEIGHTED if precision == "int8-dynamic" else name not in _NOT_ARITHMETIC
            floating[name] += counts and _in_float(graph, model.buffers, operator, precision, schema)
    listed = ", ".join(f"{count} {name}" for name, count in sorted(floating.items()) if count)
    return dict(sorted(operators.items())), [f"in float: {listed}"] if listed else []


def _in_float(graph: Any, buffers: Any, operator: Any, precision: str, schema: Any) -> bool:
    """int8: the first result and all operands are float. int8-dynamic: the weights are float (activations always are)."""
    tensors = [graph.tensors[i] for i in operator.inputs if i >= 0]
    if precision == "int8":
        integers = any(t.type == schema.TensorType.INT8 for t in tensors)
        return graph.tensors[operator.outputs[0]].type == schema.TensorType.FLOAT32 and not integers
    weights = [t for t in tensors if buffers[t.buffer].data is not None and t.shape is not None and len(t.shape) >= 2]
    return any(t.type == schema.TensorType.FLOAT32 for t in weights)
