"""Does a node have the form that ONNX gives its operator? The facts of each schema are read once.

ONNX's own checks of a node serialize it; these cost a few microseconds, say which attribute or input is wrong, and run before any
pass looks at the node, so that passes need not doubt what they read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import onnx_ir as ir

from edgekit.hub import OPSET
from edgekit.hub.facts import does_not_fit

FLAGS = frozenset(
    "align_corners allowzero antialias ceil_mode center_point_box count_include_pad detect_negative detect_positive exclusive "
    "fmod input_forget interleaved inverse is_causal keepdims largest layout linear_before_reset noop_with_empty_axes "
    "onesided periodic reverse select_last_index sorted training_mode transA transB upper".split()
)
"""Integers that mean yes or no; runtimes disagree on what another number means."""
POSITIVE = frozenset("block_size blocksize dilations group hidden_size kernel_shape num_outputs strides".split())
UNLIMITED = frozenset("ends sample_size seed start end starts value_int value_ints".split())
"""Integers that are not sizes or axes, or may stand for "to the end"."""
LIMIT = 1 << 31
FILLS = frozenset("extrapolation_value value value_float value_floats".split())
"""What may be NaN; elsewhere runtimes disagree on what that means."""
CHOICES = {
    ("", "auto_pad"): "NOTSET SAME_UPPER SAME_LOWER VALID",
    ("", "coordinate_transformation_mode"): "half_pixel half_pixel_symmetric pytorch_half_pixel align_corners asymmetric "
    "tf_half_pixel_for_nn tf_crop_and_resize output_half_pixel",
    ("", "keep_aspect_ratio_policy"): "stretch not_larger not_smaller",
    ("", "nearest_mode"): "round_prefer_floor round_prefer_ceil floor ceil",
    ("", "padding_mode"): "zeros border reflection",
    ("", "reduction"): "none add mul max min mean sum",
    ("BitShift", "direction"): "LEFT RIGHT",
    ("DepthToSpace", "mode"): "DCR CRD",
    ("GRU", "direction"): "forward reverse bidirectional",
    ("GridSample", "mode"): "linear nearest cubic bilinear bicubic",
    ("LSTM", "direction"): "forward reverse bidirectional",
    ("Pad", "mode"): "constant reflect edge wrap",
    ("RNN", "direction"): "forward reverse bidirectional",
    ("Resize", "mode"): "nearest linear cubic",
    ("RoiAlign", "mode"): "avg max",
    ("Upsample", "mode"): "nearest linear",
}
"""The words that an attribute may be; those of RoiAlign's and Resize's coordinates are together."""


@dataclass(frozen=True)
class _Operand:
    """A formal input: the types it takes, the name of its type variable, and whether it may be left out or repeated."""

    types: frozenset[ir.DataType]
    variable: str
    optional: bool
    variadic: bool
    homogeneous: bool


@dataclass(frozen=True)
class _Form:
    inputs: tuple[_Operand, ...]
    least_inputs: int
    most_inputs: int
    least_outputs: int
    most_outputs: int
    attributes: Mapping[str, int]
    required: frozenset[str]


def check_form(node: ir.Node, version: int) -> None:
    """Check an ai.onnx node's numbers of inputs and outputs, and its attributes' names and types.

    An operator that ONNX does not have passes: some of those are upgraded, the rest is refused when its shape is inferred.

    Raises:
        SourceError: The node has not the form of its operator.
    """
    form = _form(node.op_type, version) or _form(node.op_type, OPSET)
    if form is None:
        return
    _check_count(node, "inputs", len(node.inputs), form.least_inputs, form.most_inputs)
    _check_count(node, "outputs", len(node.outputs), form.least_outputs, form.most_outputs)
    for place, value in enumerate(node.inputs):
        operand = form.inputs[min(place, len(form.inputs) - 1)]
        if value is None and not operand.optional and not (operand.variadic and place >= form.least_inputs):
            raise does_not_fit(node, f"its input {place} is missing")
    for name, attribute in node.attributes.items():
        kind = form.attributes.get(name)
        if kind is None:
            raise does_not_fit(node, f"it has no attribute {name!r} in opset {version}")
        if attribute.type.value != kind:
            wanted = ir.AttributeType(kind).name
            raise does_not_fit(node, f"its attribute {name!r} is of type {attribute.type.name}, not {wanted}")
        _check_attribute(node, name, attribute.value)
    if node.op_type == "Constant" and len(node.attributes) != 1:
        raise does_not_fit(node, "it holds not exactly one value")
    if node.op_type == "Split" and node.attributes.get_int("num_outputs", len(node.outputs)) != len(node.outputs):
        raise does_not_fit(node, f"its num_outputs is not the {len(node.outputs)} that it has")
    for name in form.required - node.attributes.keys():
        raise does_not_fit(node, f"its attribute {name!r} is missing")


def _check_attribute(node: ir.Node, name: str, value: Any) -> None:
    numbers = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)
    if name in FLAGS and value not in (0, 1):
        raise does_not_fit(node, f"its attribute {name!r} is {value}, which must be 0 or 1")
    if name in POSITIVE and not all(number > 0 for number in numbers):
        raise does_not_fit(node, f"its attribute {name!r} is {value}, which must be positive")
    if name not in UNLIMITED and any(isinstance(number, int) and not -LIMIT <= number < LIMIT for number in numbers):
        raise does_not_fit(node, f"its attribute {name!r} is {value}, beyond what a size or an axis can be")
    if name not in FILLS and any(number != number for number in numbers):
        raise does_not_fit(node, f"its attribute {name!r} is {value}, where it must be a number")
    words = CHOICES.get((node.op_type, name), CHOICES.get(("", name)))
    if isinstance(value, bytes) or (words is not None and value not in words.split()):
        raise does_not_fit(node, f"its attribute {name!r} is {value!r}, not one of: {words or 'what is UTF-8'}")
    if name == "softcap" and not value >= 0:
        raise does_not_fit(node, f"its attribute 'softcap' is {value}, which must not be negative")
    if name in ("to", "dtype") and not 0 < value < len(ir.DataType):
        raise does_not_fit(node, f"its attribute {name!r} is {value}, which is no type")


def check_types(node: ir.Node, version: int) -> None:
    """Check the dtypes of an ai.onnx node's inputs, as far as they are known.

    Raises:
        SourceError: An input has a type that the operator does not take, or one that another input contradicts.
    """
    form = _form(node.op_type, version)
    if form is None:
        return
    bound: dict[str, ir.DataType] = {}
    for place, value in enumerate(node.inputs):
        if value is None or value.dtype is None or not form.inputs or not isinstance(value.type, ir.TensorType):
            continue
        operand = form.inputs[min(place, len(form.inputs) - 1)]
        if operand.types and value.dtype not in operand.types:
            raise does_not_fit(node, f"its input {place} ({value.name!r}) is {value.dtype.name}, which it does not take")
        if operand.homogeneous and bound.setdefault(operand.variable, value.dtype) != value.dtype:
            first = bound[operand.variable].name
            raise does_not_fit(node, f"its input {place} ({value.name!r}) is {value.dtype.name} where another is {first}")


def _check_count(node: ir.Node, kind: str, have: int, least: int, most: int) -> None:
    if not least <= have <= most:
        wanted = str(least) if least == most else f"{least} to {most}" if most < 1 << 20 else f"at least {least}"
        raise does_not_fit(node, f"it has {have} {kind}, not {wanted}")


@lru_cache(maxsize=1024)
def _form(op_type: str, version: int) -> _Form | None:
    import onnx.defs

    if not 0 < version < 1 << 31:
        return None
    try:
        schema = onnx.defs.get_schema(op_type, version, "")
    except onnx.defs.SchemaError:
        return None
    option = onnx.defs.OpSchema.FormalParameterOption
    types = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    inputs = tuple(
        _Operand(
            _tensor_types(types.get(formal.type_str, [formal.type_str])),
            formal.type_str,
            formal.option == option.Optional,
            formal.option == option.Variadic,
            formal.is_homogeneous,
        )
        for formal in schema.inputs
    )
    return _Form(
        inputs,
        schema.min_input,
        schema.max_input,
        schema.min_output,
        schema.max_output,
        {name: int(attribute.type) for name, attribute in schema.attributes.items()},  # type: ignore[call-overload]  # an enum of nanobind
        frozenset(name for name, attribute in schema.attributes.items() if attribute.required),
    )


def _tensor_types(names: Sequence[str]) -> frozenset[ir.DataType]:
    """The element types of `tensor(float)` and so on; what is no tensor is left out."""
    found = [name.removeprefix("tensor(").removesuffix(")").upper() for name in names if name.startswith("tensor(")]
    return frozenset(ir.DataType[name] for name in found if name in ir.DataType.__members__)
