"""Conversion at size: memory in proportion to the weights, time in proportion to the nodes. Larger: scripts/bench_scale.py."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))
import bench_scale

from edgekit import litert
from edgekit.onnx_file import read_onnx

SCRIPTS = Path(__file__).resolve().parent.parent.parent / "scripts"


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("external", [False, True])
def test_peak_memory_is_below_two_and_a_half_times_the_weights(external: bool, tmp_path: Path) -> None:
    source, result = tmp_path / "model.onnx", tmp_path / "model.tflite"
    weights = bench_scale.save_convolutions(source, 64, external)
    command = [sys.executable, str(SCRIPTS / "bench_scale.py"), "measure", str(source), str(result)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found["peak"] <= bench_scale.MEMORY_BOUND * weights + bench_scale.MEMORY_BASE
    assert result.stat().st_size < weights * 1.02


def test_weights_are_read_from_the_file_only_when_they_are_needed(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    bench_scale.save_dense(source, 32, external=False)
    (weights, *_) = read_onnx(source).model.graph.initializers.values()
    assert weights.const_value is not None
    array = weights.const_value.numpy()
    assert not array.flags.owndata
    assert np.shares_memory(array, weights.const_value.numpy())


@pytest.mark.parametrize("kind", list(bench_scale.KINDS))
def test_time_grows_with_the_nodes_not_with_their_square(kind: str) -> None:
    """Eight times the nodes would take 64 times as long if a pass were quadratic; the bound leaves room for a busy machine."""
    build = bench_scale.KINDS[kind]
    litert.compile(build(100))  # imports
    small, large = (_seconds_per_node(build(count)) for count in (250, 2000))
    assert large < 3 * small


def _seconds_per_node(proto: ModelProto) -> float:
    start = time.process_time()
    litert.compile(proto)
    return (time.process_time() - start) / len(proto.graph.node)
