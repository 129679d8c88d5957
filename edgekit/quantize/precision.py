"""The four precisions of an artifact, and what other tools call them."""

from __future__ import annotations

from edgekit.errors import InputError

PRECISIONS = ("fp32", "fp16", "int8", "int8-dynamic")
AUTO = "auto"
"""int8 but for what an accuracy budget needs in float: asked for like a precision, found by a search."""

# Spellings of LiteRT, ai-edge-quantizer, TFLiteConverter, ONNX Runtime, Ultralytics, OpenVINO and TensorRT users.
# Compared in lower case with `-`, `_`, `.` and spaces taken out.
_ALIASES = {
    "fp32": ("float32", "float", "full", "none", "f32", "w32a32", "noquant"),
    "fp16": ("float16", "half", "f16", "w16a16"),
    "int8": (
        "w8a8",
        "i8",
        "s8",
        "staticwi8ai8",
        "wi8ai8",
        "fullintegerquant",
        "fullinteger",
        "fullint8",
        "int8static",
        "staticint8",
        "static",
        "qdq",
        "int8qdq",
        "ptq",
    ),
    "int8-dynamic": (
        "dynamic",
        "dynamicint8",
        "int8dynamic",
        "dynamicwi8afp32",
        "dynamicrange",
        "dynamicrangequant",
        "drq",
        "w8a32",
        "w8dynamic",
    ),
}

# Spellings that mean something else than any of the four, each with the reason that is told.
_WEIGHT_ONLY = "weight-only quantization stores int8 weights and computes in float: it makes the file smaller, not faster"
_REFUSED = {
    "w8": _WEIGHT_ONLY,
    "w8a16": "8-bit weights with 16-bit activations are not written by edgekit",
    "weightonly": _WEIGHT_ONLY,
    "weightonlyint8": _WEIGHT_ONLY,
    "int8weightonly": _WEIGHT_ONLY,
    "weightonlywi8afp32": _WEIGHT_ONLY,
    "w8afp32": _WEIGHT_ONLY,
    "staticwi8ai16": "8-bit weights with 16-bit activations are not written by edgekit",
    "int16": "16-bit activations are not written by edgekit",
    "int4": "4-bit weights are not written by edgekit",
    "w4a16": "4-bit weights are not written by edgekit",
    "bf16": "bfloat16 has no kernels in the mobile runtimes",
    "bfloat16": "bfloat16 has no kernels in the mobile runtimes",
}


def parse_precision(text: str) -> str:
    """The precision that `text` means: one of `PRECISIONS`, or `AUTO`.

    `half`, `W8A8`, `dynamic_wi8_afp32` and the other names of the table above are accepted, in any case and with
    `-`, `_` or nothing between the words.

    Raises:
        InputError: The text names none of them, or something that is deliberately not one of them.
    """
    key = _normalized(text)
    if key == AUTO:
        return AUTO
    for precision, aliases in _ALIASES.items():
        if key == _normalized(precision) or key in aliases:
            return precision
    choices = ", ".join(PRECISIONS)
    if key in _REFUSED:
        fix = f"use one of {choices}"
        if _REFUSED[key] is _WEIGHT_ONLY:
            fix = "use int8-dynamic (int8 weights, integer arithmetic, no calibration data) or int8 (with --calibration)"
        raise InputError(f"{text!r} is not a precision of edgekit: {_REFUSED[key]}", where="--precision", fix=fix)
    raise InputError(f"{text!r} is not a precision", where="--precision", fix=f"use one of {choices}")


def _normalized(text: str) -> str:
    return "".join(c for c in text.strip().lower() if c not in "-_. ")
