"""Does a file hold a model that is quantized already? Asked before anything heavy is loaded."""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import EdgekitError


def is_quantized_file(spec: str) -> bool:
    """Whether a source is a file whose model says which integers it wants.

    That is an ONNX file with a QuantizeLinear or operators on integers, a program of PyTorch that was converted after
    training with quantization, or a SavedModel that rounds in its graph as TensorFlow's training with quantization does.
    What a factory returns is not known before it has run. A file that cannot be read is for its reader to refuse.
    """
    path = Path(spec)
    try:
        if path.suffix == ".onnx" and path.is_file():
            return _is_quantized_onnx(path)
        if path.suffix == ".pt2" and path.is_file():
            return any("quantized_decomposed.quantize" in operator for operator in _operators(path))
        if (path / "saved_model.pb").is_file():
            return any(operator.startswith("FakeQuantWithMinMax") for operator in _operators(path))
    except EdgekitError:
        return False
    return False


def _is_quantized_onnx(path: Path) -> bool:
    from edgekit.hub.quantized import is_quantized
    from edgekit.onnx_file import read_onnx

    return is_quantized(read_onnx(path).model)


def _operators(path: Path) -> list[str]:
    from edgekit.inspect import inspect

    return list(inspect(path).operators)
