"""The precisions of an artifact, and what other tools call them."""

from __future__ import annotations

from edgekit.errors import InputError

PRECISIONS = ("fp32", "fp16", "int8", "int8-dynamic", "int16x8", "int8-weights", "int4-weights")
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
    "int16x8": ("int16", "i16", "w8a16", "a16w8", "16x8", "int8x16", "staticwi8ai16", "wi8ai16", "int16activations"),
    "int8-weights": (
        "int8weight",
        "int8weightonly",
        "w8",
        "w8afp32",
        "w8only",
        "weightint8",
        "weightonly",
        "weightonly8",
        "weightonlyint8",
        "weightonlywi8afp32",
        "wo8",
    ),
    "int4-weights": (
        "int4",
        "int4weight",
        "int4weightonly",
        "dynamicwi4afp32",
        "dynamicwi4b32afp32",
        "q4",
        "w4",
        "w4a16",
        "w4a32",
        "w4a8",
        "w4afp32",
        "w4only",
        "weightint4",
        "weightonly4",
        "weightonlyint4",
        "weightonlywi4afp32",
        "wo4",
    ),
}

# Spellings that mean something else than any of them, each with the reason that is told.
_REFUSED = dict.fromkeys(("bf16", "bfloat16"), "bfloat16 has no kernels in the mobile runtimes")


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
        what = f"{text!r} is not a precision of edgekit: {_REFUSED[key]}"
        raise InputError(what, where="--precision", fix=f"use one of {choices}")
    raise InputError(f"{text!r} is not a precision", where="--precision", fix=f"use one of {choices}")


def _normalized(text: str) -> str:
    return "".join(c for c in text.strip().lower() if c not in "-_. ")
