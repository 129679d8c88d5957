"""int8 for LiteRT, through ai-edge-quantizer."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import ArtifactError, QuantizeError
from edgekit.hub.quantized import KEPT
from edgekit.quantize.biases import with_exact_biases
from edgekit.quantize.borders import FIXED_RANGES, precisions, quantizable, wide
from edgekit.quantize.data import Calibration, no_calibration
from edgekit.quantize.observe import FEW
from edgekit.quantize.recipe import FLOAT, Recipe
from edgekit.quantize.tflite_parts import TfliteParts

if TYPE_CHECKING:
    from edgekit.litert import Compiled

_ATTENTION_NOTE = (
    "attention: products with weights are int8 with ranges found in each run, since fixed ranges would ruin it; "
    "convolutions and embeddings are int8, the rest is float"
)

# int16x8: half of one of 16 bits, so that larger values than those seen are not cut off. The largest error of MobileNetV2's
# scores falls from 28 % to 7 % of the largest score, ResNet-56's from 7 % to 1 %.
_HEADROOM = 1.5

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
    `int16x8`: the same with int16 activations, symmetric around zero, also where int8 would lose too much (attention, scores).
    `int8-dynamic`: int8 weights, activations quantized anew in each run; needs no data.

    Operators that the quantizer has no int8 form for stay in float and are told in the notes. A file that is quantized already,
    because the model was, stays as it is and needs no data.

    Raises:
        QuantizeError: int8 of a float file without calibration data, or the quantizer refuses the model.
        ArtifactError: The result does not load or does not run.
    """
    if precision not in (*FIXED_RANGES, "int8-dynamic"):
        fix = "pass int8, int16x8 or int8-dynamic"
        raise QuantizeError(f"{precision!r} is no precision of integer arithmetic", where="quantize_litert", fix=fix)
    parts = TfliteParts(compiled.data)
    if parts.is_quantized():
        return replace(compiled, notes=(*compiled.notes, KEPT))
    if precision in FIXED_RANGES and calibration is None:
        raise no_calibration(precision)
    recipe = recipe or Recipe()
    samples = _samples(compiled, calibration, min(recipe.samples, FEW) if ranges else recipe.samples)
    work = _Work(parts, precision, recipe, samples, ranges or {})
    data, refused = _running(work)
    made = TfliteParts(data)
    if not made.is_quantized():
        raise _nothing(parts, precision)
    listed = ", ".join(f"{count} {kind}" for kind, count in made.in_float(precision).items())
    notes = [f"in float: {listed}"] if listed else []
    notes += [f"the runtime does not take {kind} in {precision}" for kind in refused]
    notes += [_ATTENTION_NOTE] if precision == "int8" and parts.has_attention else []
    return replace(compiled, data=data, operators=made.counts(), notes=(*compiled.notes, *notes))


@dataclass(frozen=True)
class _Work:
    """What is quantized, and how.

    Args:
        parts: The float file.
        precision: `int8`, `int16x8` or `int8-dynamic`.
        recipe: Which operators stay in float.
        samples: Feeds of the file; empty where the precision needs none.
        given: Smallest and largest value of the tensors whose ranges are not the ones measured.
    """

    parts: TfliteParts
    precision: str
    recipe: Recipe
    samples: Sequence[Mapping[str, np.ndarray]]
    given: Mapping[str, tuple[float, float]]


def _nothing(parts: TfliteParts, precision: str) -> QuantizeError:
    kinds = ", ".join(parts.counts())
    return QuantizeError(
        f"there is nothing to quantize: the model computes with {kinds}, none of which has an {precision} form here",
        where=f"precision {precision}",
        fix="leave this precision out",
    )


def _samples(compiled: Compiled, calibration: Calibration | None, most: int) -> Sequence[Mapping[str, np.ndarray]]:
    feeds = [] if calibration is None else calibration.subset(most)
    return [{b.artifact: b.to_artifact(feed[b.source]) for b in compiled.inputs} for feed in feeds]


def _running(work: _Work) -> tuple[bytes, tuple[str, ...]]:
    """A quantized file that loads and runs, and the operators left in float for that: single ones by name, or one more kind with
    each trial.

    Raises:
        ArtifactError: No operator to blame is left.
    """
    refused: tuple[str, ...] = ()
    if set(precisions(work.parts, work.precision, work.recipe).values()) <= {FLOAT}:
        raise _nothing(work.parts, work.precision)
    with _quantizer_errors():
        ranges = _ranges(work) if work.precision in FIXED_RANGES else {}
    present = {part.kind for part in work.parts.operators if part.code in quantizable(work.precision)}
    while True:
        with _quantizer_errors():
            data = _quantized(work, precisions(work.parts, work.precision, work.recipe, ranges, refused), ranges)
        try:
            _check_runs(data, work.samples[0] if work.samples else None)
            return data, refused
        except ArtifactError as error:
            named = re.findall(r"\((\w+)\) failed", error.where or "")  # a WHILE, where an operator inside it was refused
            beyond = [name for name in TfliteParts(data).beyond_rescaling() if name not in refused]
            blamed = [kind for kind in (*named, *_SUSPECTS) if kind in present and kind not in refused]
            if not beyond and not blamed:
                raise
            refused += tuple(beyond) or (blamed[0],)


def _quantized(work: _Work, by_name: Mapping[str, str], ranges: Mapping[str, Any]) -> bytes:
    in_16_bits = wide(work.parts, by_name)
    ranges = {name: _range(found, work.given.get(name), name in in_16_bits) for name, found in ranges.items()}
    made = _quantizer(work, by_name).quantize(ranges or None, enable_progress_bar=False, enable_progress_report=False)
    return with_exact_biases(work.parts, bytes(made.quantized_model))


def _range(found: Mapping[str, Any], given: tuple[float, float] | None, in_16_bits: bool) -> Mapping[str, Any]:
    """What is given goes over what was measured; 16 bits need no narrow range, and take the wider of both."""
    if not {"min", "max"} <= found.keys():
        return found
    low, high = found["min"], found["max"]
    if given is not None:
        low, high = (np.full(np.shape(low), end, np.float32) for end in given)
    if in_16_bits:
        low, high = np.minimum(low, found["min"]) * _HEADROOM, np.maximum(high, found["max"]) * _HEADROOM
    return {**found, "min": low, "max": high}


def _quantizer(work: _Work, by_name: Mapping[str, str]) -> Any:
    """ai-edge-quantizer with these precisions, which it wants as regular expressions: later ones count."""
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer

    every, float_ = qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_manager.AlgorithmName.NO_QUANTIZE
    quantizer_ = quantizer.Quantizer(work.parts.data)

    def add(pattern: str, precision: str) -> None:
        if precision in FIXED_RANGES:
            bits = 16 if precision == "int16x8" else 8
            quantizer_.add_static_config(pattern, every, activation_num_bits=bits, weight_num_bits=8)
        elif precision == "int8-dynamic":
            quantizer_.add_dynamic_config(pattern, every, num_bits=8)
        else:
            quantizer_.update_quantization_recipe(pattern, every, algorithm_key=float_)

    add(".*", work.precision)
    for precision in sorted(set(by_name.values()) - {work.precision}):
        names = "|".join(re.escape(name) for name, found in by_name.items() if found == precision)
        add(f"^(?:{names});", precision)  # the quantizer joins the names of an operator's results, with ; after each
    for side in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        quantizer_.update_quantization_recipe("", side, algorithm_key=float_)
    return quantizer_


def _ranges(work: _Work) -> dict[str, Any]:
    """Smallest and largest value of each tensor over all samples.

    The interpreter's profiler tracks them while it runs, several times faster than copying out every tensor, and gives the
    same numbers. What it does not see (tensors inside control flow) needs the slow way: one sample tells whether there is any.
    """
    from ai_edge_quantizer.calibrator import CalibrationMode

    recipe = _quantizer(work, precisions(work.parts, work.precision, work.recipe)).get_quantization_recipe()
    data, samples = work.parts.data, work.samples
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
def _quantizer_errors() -> Iterator[None]:
    """Its exceptions as ours, and nothing printed."""
    try:
        with _silent():
            yield
    except Exception as error:  # the quantizer raises ValueError, RuntimeError, KeyError … for what it does not know
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise QuantizeError(
            f"ai-edge-quantizer cannot quantize the model: {reason}",
            fix="keep the operator in float in the recipe's layers, or leave this precision out",
        ) from error


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
