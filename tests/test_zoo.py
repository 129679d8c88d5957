"""A slice of the zoo: small networks from their libraries, through scripts/zoo.py's own steps."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import zoo
import zoo_page
import zoo_worker
from zoo_models import entries

FAST = {"timm/test_resnet": "timm", "timm/test_vit": "timm", "transformers/llama-cache": "transformers"}


@pytest.mark.parametrize("name", FAST)
def test_network_is_exact(name: str, tmp_path: Path) -> None:
    missing = [library for library in ("torch", "torchvision", FAST[name]) if importlib.util.find_spec(library) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    entry = next(entry for entry in entries() if entry.name == name)
    zoo_worker.export(entry, tmp_path)
    result = zoo_worker.check(name, tmp_path)
    assert result.outcome == "exact", result.reason
    assert result.bytes is not None
    assert result.weight_bytes is not None
    assert result.bytes < 1.2 * result.weight_bytes  # of so small a network, much is not weights


def test_an_error_is_judged_beside_that_of_onnxruntime() -> None:
    off = zoo_worker.Result("timm/a", "wrong", "off by 3.0e-04 in y", error=3e-4)
    assert zoo_worker.conclude(off, 2e-6).outcome == "wrong"
    assert zoo_worker.conclude(off, 2e-4).outcome == "ill-conditioned"
    assert zoo_worker.conclude(off, 0.5).outcome == "no source"


def test_names_are_distinct() -> None:
    names = [entry.name for entry in entries()]
    assert len(set(names)) == len(names)


def test_a_worker_that_dies_is_a_result() -> None:
    import os

    assert zoo.in_own_process(lambda: os._exit(3), 30, 8)[0] == "crash"
    assert zoo.in_own_process(lambda: [].pop(), 30, 8)[0] == "fault"


def test_a_worker_that_hangs_is_stopped() -> None:
    import time

    outcome, reason = zoo.in_own_process(lambda: time.sleep(60), 0.3, 8)
    assert (outcome, reason) == ("timeout", "not done after 0 s")


def test_the_page_names_what_does_not_work() -> None:
    fine = zoo_worker.Result("timm/a", "exact", error=1e-6, ort_error=1e-7, nodes=3, operators={"ADD": 2}, bytes=2000,
                             weight_bytes=1000, hub_s=0.1, compile_s=0.2)  # fmt: skip
    page = zoo_page.page([fine, zoo_worker.Result("onnx/b", "refused", "no such operator | at all")], 7)
    assert "2 of 7 networks" in page
    assert "| a | 1.0e-06 | 1.0e-07 | 3 | 2 |  | 0.00 MB, 200.0% | 0.10 | 0.20 |" in page
    assert "| onnx/b | refused | no such operator / at all |" in page
