"""What calibration costs: its time beside ai-edge-quantizer's, and its memory with many samples."""

from __future__ import annotations

import json

from quant_results import ROOT

COSTS = ROOT / "docs" / "int8-costs.json"


def load() -> dict[str, str]:
    """Sentences of the page by what they are about."""
    return json.loads(COSTS.read_text()) if COSTS.exists() else {}


def measure(*, calibration_time: bool, memory: bool) -> None:
    raise SystemExit("to come")
