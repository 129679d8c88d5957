"""edgekit: a Keras, PyTorch or ONNX model on a phone or a Raspberry Pi, proved to be still the same model.

    package = edgekit.export("model.onnx", target="android", calibration="photos/", preprocess="imagenet")
    package.verdict                                     # "pass", "fail" or "unverified"
    edgekit.verify("model-android").exit_code           # again, from the golden vectors
    edgekit.load_package("model-android").artifacts
    edgekit.litert.compile("model.onnx")                # only the TFLite compiler: bytes

Nothing heavy is imported before it is used. docs/api.md describes the API.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.export import export as export
    from edgekit.inspect import inspect as inspect
    from edgekit.package import Package as Package
    from edgekit.package import load_package as load_package
    from edgekit.verify import verify as verify

__version__ = "0.1.0"

_PUBLIC = {
    "export": "edgekit.export",
    "inspect": "edgekit.inspect",
    "verify": "edgekit.verify",
    "load_package": "edgekit.package",
    "Package": "edgekit.package",
    "EdgekitError": "edgekit.errors",
}
_SUBPACKAGES = ("litert", "ort", "hub", "quantize", "sources")

__all__ = ["EdgekitError", "Package", "export", "inspect", "litert", "load_package", "ort", "verify"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"edgekit.{name}")
    raise AttributeError(f"module 'edgekit' has no attribute {name!r}")


class _Edgekit(ModuleType):
    """Keeps `edgekit.export`, `edgekit.verify` and `edgekit.inspect` functions: Python would put the submodules of the same
    names in their place when these are first imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _PUBLIC.get(name) == value.__name__:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Edgekit
