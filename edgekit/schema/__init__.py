"""The JSON schema of a package's manifest."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def manifest_schema() -> dict[str, Any]:
    """The schema of edgekit.json (JSON Schema 2020-12), as this edgekit writes it."""
    return json.loads((resources.files(__name__) / "edgekit-1.json").read_text(encoding="utf-8"))
