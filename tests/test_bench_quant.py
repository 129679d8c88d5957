"""What scripts/bench_quant.py measures: answers, operators that compute in INT8, and what it keeps."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import quant_figures
import quant_page
import quant_results
import quant_subjects
from quant_results import LITERT, ORT, Measured
from quant_tools import Artifact

from edgekit.contract import Binding
from edgekit.litert import compile_hub
from edgekit.quantize import quantize_litert
from tests.hub.graphs import hub
from tests.litert.quantized_models import NETWORKS, quantized, random_feeds

GOOD = Measured(
    "resnet56",
    "edgekit",
    LITERT,
    "int8",
    "abc",
    10_000,
    accuracy=0.93,
    source_accuracy=0.935,
    unchanged=0.97,
    sqnr=28.9,
    error=0.5,
    between=0.1,
    bytes=270,
    latency=0.3,
    operators=10,
    integer_operators=9,
)


def test_goals() -> None:
    assert GOOD.missed() == []
    assert replace(GOOD, accuracy=0.9299).missed() == ["loses 0.51 points"]
    assert replace(GOOD, unchanged=0.9699).missed() == ["97.0% unchanged"]
    assert replace(GOOD, integer_operators=8).missed() == ["8 of 10 operators in INT8"]


def test_results_come_back_and_are_replaced(tmp_path: Path) -> None:
    path, failed = tmp_path / "int8.jsonl", Measured("minilm", "onnxruntime", ORT, "int8", "1.31", 500, failure="no")
    quant_results.save([GOOD, failed], path)
    quant_results.save([replace(GOOD, unchanged=0.98)], path)
    assert list(quant_results.load(path).values()) == [replace(GOOD, unchanged=0.98), failed]


def test_the_page_compares_with_float_and_between_runtimes(capsys: pytest.CaptureFixture[str]) -> None:
    exact = replace(GOOD, precision="fp32", bytes=1000, latency=1.0, between=None)
    twin = replace(GOOD, runtime=ORT, error=0.4)
    quant_page.show({row.key: row for row in (exact, GOOD, twin)}, {}, write=False)
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "| LiteRT | int8 |" in line)
    assert row == (
        "| resnet56 | edgekit | LiteRT | int8 | 93.00% (-0.50) | 97.00% | 28.9 dB | 0.27 | 0.30 | 9 of 10 | 0.25 | met |"
    )


def test_pitches_are_the_same_within_half_a_semitone() -> None:
    def salience(*bins: int) -> np.ndarray:
        return np.array([[float(i == place) for i in range(360)] for place in bins], np.float32)

    assert quant_subjects.same_pitch(salience(0, 100, 359), salience(2, 103, 359)).tolist() == [True, False, True]


def test_sentences_are_the_same_by_their_nearest_neighbour() -> None:
    a = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
    b = np.array([[1, 0], [0.1, 0.9], [0, 1]], np.float32)
    assert quant_subjects.same_neighbour(a, 3 * a).tolist() == [True, True, True]
    assert quant_subjects.same_neighbour(a, b).tolist() == [True, False, True]
    assert quant_subjects.similarities(a) == pytest.approx([0.9 / np.hypot(0.9, 0.1), 0, 0.1 / np.hypot(0.9, 0.1)])


def test_operators_of_a_tflite_file(tmp_path: Path) -> None:
    compiled = compile_hub(
        hub("g (float[2,8] x) => (y) <float[8,4] w> { m = MatMul(x, w) y = Sin(m) }".replace("<float[8,4] w>", _W))
    )
    path = tmp_path / "model.tflite"
    for data, expected in ((compiled.data, False), (quantize_litert(compiled, "int8-dynamic").data, True)):
        path.write_bytes(data)
        kinds = quant_figures._tflite_kinds(path)
        assert sorted(kinds) == [("FULLY_CONNECTED", expected), ("SIN", False)]


_W = f"<float[8,4] w = {{{', '.join(str(i / 7) for i in range(32))}}}>"


@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
def test_operators_as_onnxruntime_runs_them(activations: str, tmp_path: Path) -> None:
    source = NETWORKS["residual"]
    path = tmp_path / "model.onnx"
    onnx.save(source, path)
    assert not any(integer for _, integer in quant_figures._onnx_kinds(path))
    onnx.save(quantized(source, random_feeds(source, 8), tmp_path, "QDQ", activations, per_channel=True), path)
    kinds = quant_figures._onnx_kinds(path)
    assert ("QLinearConv", True) in kinds
    assert all(integer for name, integer in kinds if name.startswith("QLinear"))


def test_an_artifact_is_found_again(tmp_path: Path) -> None:
    made = tmp_path / "model.tflite"
    made.write_bytes(b"bytes")
    bindings = (Binding("x", "y", (1, 2, 2, 3), "float32", (0, 2, 3, 1)), Binding("a", "b", (), "float32"))
    kept = Artifact(made, "tflite", bindings[:1], bindings[1:]).kept(tmp_path / "edgekit-int8.tflite")
    assert Artifact.known(kept.path) == kept
    assert Artifact.known(tmp_path / "other.tflite") is None
