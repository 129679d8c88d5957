"""onnxruntime's own tools for its flatbuffer format, without what comes along with them."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from edgekit.telemetry import load_onnxruntime


def ort_format_model() -> ModuleType:
    """`onnxruntime.tools.ort_format_model`, which also puts the package `ort_flatbuffers_py` on sys.path.

    The `__init__` of `onnxruntime.tools` imports torch where it is installed: seconds and hundreds of megabytes for a reader of
    flatbuffers. An empty package takes its place during the import, and is gone afterwards.
    """
    load_onnxruntime()
    tools, name = "onnxruntime.tools", "onnxruntime.tools.ort_format_model"
    if tools in sys.modules or name in sys.modules:
        return importlib.import_module(name)
    runtime = find_spec("onnxruntime")
    assert runtime is not None
    assert runtime.submodule_search_locations
    package = ModuleType(tools)
    package.__path__ = [str(Path(next(iter(runtime.submodule_search_locations)), "tools"))]
    sys.modules[tools] = package
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules[tools]
