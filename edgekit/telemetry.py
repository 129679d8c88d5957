"""onnxruntime as edgekit imports it: it reports nothing, and leaves no file."""

from __future__ import annotations

import importlib
import os
from types import ModuleType


def load_onnxruntime() -> ModuleType:
    """The package, with its telemetry off from before it is imported: the import writes a session's number to `$TMPDIR/.ses`.

    `ORT_DISABLE_TELEMETRY` keeps the value that the user has given it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    onnxruntime = importlib.import_module("onnxruntime")
    onnxruntime.disable_telemetry_events()
    return onnxruntime
