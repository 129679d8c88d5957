"""A slice of the zoo: small networks from their libraries, through scripts/zoo.py's own steps."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import tflite_facts
import zoo
import zoo_page
import zoo_peers
import zoo_results
import zoo_worker
from convert_worker import ChannelsLast, convert
from own_process import in_own_process
from zoo_models import Built, Entry, entries
from zoo_results import Made, Result, judged

from edgekit import litert
from edgekit.sources import open_source

FAST = {"timm/test_resnet": "timm", "timm/test_vit": "timm", "transformers/llama-cache": "transformers"}
WORKER = Path(zoo.__file__).with_name("convert_worker.py")
RESNET = Result(
    "timm/a",
    Made("exact", error=1e-6, operators=30, transposes=1, bytes=2_080_000, convert_s=0.1, latency_ms=1.5),
    nodes=40,
    weight_bytes=2_000_000,
    ort_error=1e-7,
    peers={
        "onnx2tf": Made("exact", operators=29, transposes=4, bytes=2_010_000, convert_s=1.0, latency_ms=1.0),
        "litert-torch": Made("wrong", "off by 1.0e+00", operators=3, transposes=0, bytes=9, convert_s=1.0, latency_ms=0.1),
    },
)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the zoo exports it: a convolution of a square picture, and a scalar that scales it."""
    folder = tmp_path_factory.mktemp("zoo") / "network"
    folder.mkdir()
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 20]>
        agraph (float[1,4,4,4] picture, float by) => (float[1,3,4,4] map, float[1,3] mean) {
            map = Conv(picture, w)
            all = ReduceMean<keepdims = 0>(map, axes)
            mean = Mul(all, by)
        }
    """)
    random = np.random.default_rng(5)
    for name, array in {"w": random.standard_normal((3, 4, 1, 1), np.float32), "axes": np.array([2, 3])}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, folder / "model.onnx")
    feeds = {"picture": random.standard_normal((1, 4, 4, 4), np.float32), "by": np.array(3, np.float32)}
    results = onnx.reference.ReferenceEvaluator(model).run(None, feeds)
    arrays = {f"feed {name}": array for name, array in feeds.items()}
    arrays |= {f"result {name}": array for name, array in zip(("map", "mean"), results, strict=True)}
    np.savez(folder / "values.npz", **arrays)
    (folder / "about.json").write_text(json.dumps({"nodes": 3}))
    return folder


@pytest.mark.parametrize("name", FAST)
def test_network_is_exact(name: str, tmp_path: Path) -> None:
    missing = [library for library in ("torch", "torchvision", FAST[name]) if importlib.util.find_spec(library) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    entry = next(entry for entry in entries() if entry.name == name)
    folder = tmp_path / "network"
    zoo_worker.export(entry, folder)
    checked = zoo_worker.check(folder, tmp_path / "made.tflite")
    assert checked.ours.error is not None, checked.ours.reason
    assert checked.ours.error <= zoo_results.TOLERANCE
    assert checked.ours.bytes is not None
    assert checked.ours.bytes < 1.2 * checked.weight_bytes  # of so small a network, much is not weights
    assert zoo_worker.program(folder), zoo_worker.no_program(folder)


def test_a_check_tells_what_is_held_channels_last(network: Path, tmp_path: Path) -> None:
    checked = zoo_worker.check(network, tmp_path / "made.tflite")
    assert checked.ours.error is not None
    assert checked.ours.error < 1e-6
    assert (checked.inputs, checked.outputs) == ((0,), (0,))


@pytest.mark.parametrize("layout", ["keep", "nhwc"])
def test_a_file_is_compared_in_either_order_of_axes(layout: str, network: Path, tmp_path: Path) -> None:
    file = tmp_path / "made.tflite"
    file.write_bytes(litert.compile(network / "model.onnx", input_layout=layout, output_layout=layout))
    feeds, wanted = zoo_worker.values(network)
    assert tflite_facts.error(file, feeds, wanted) < 1e-6
    wrong = {name: array + (name == "mean") for name, array in wanted.items()}
    assert tflite_facts.error(file, feeds, wrong) > 0.01
    assert len(tflite_facts.latencies([file, file], 0.01, 3, feeds)) == 2


def test_numbered_tensors_are_matched_by_their_numbers() -> None:
    arrays = {name: np.zeros(()) for name in ("a", "b", "c")}
    names = ["serving_default_args_2:0", "serving_default_args_0:0"]
    assert tflite_facts._matched(arrays, names) == ["c", "a"]
    assert tflite_facts._matched(arrays, ["serving_default_b:0", "x"]) == ["b", "a"]
    assert tflite_facts._matched(arrays, ["StatefulPartitionedCall:1", "StatefulPartitionedCall:0"]) == ["b", "a"]


def test_an_error_is_judged_beside_that_of_onnxruntime() -> None:
    assert judged(Made(""), 3e-5, None).outcome == "exact"
    assert judged(Made(""), 3e-4, 2e-6).outcome == "wrong"
    assert judged(Made(""), 3e-4, 2e-4).outcome == "ill-conditioned"
    assert judged(Made(""), 3e-4, 0.5).outcome == "no source"


def test_only_peers_whose_file_is_right_are_compared() -> None:
    assert RESNET.better("operators") == 29
    assert RESNET.ratio("latency_ms") == 1.5
    assert RESNET.ratio("latency_ms", "litert-torch") is None


def test_results_are_kept_in_the_order_of_the_zoo(tmp_path: Path) -> None:
    path = tmp_path / "zoo.jsonl"
    other = Result("onnx/b", Made("refused", "no such operator"))
    for result in (RESNET, other, replace(RESNET, nodes=41)):
        zoo_results.save(result, ["onnx/b", "timm/a"], path)
    assert list(zoo_results.load(path).values()) == [other, replace(RESNET, nodes=41)]


def test_a_run_that_is_stopped_has_seen_all_families() -> None:
    assert zoo.sampled(list(range(20)))[:6] == [0, 8, 16, 1, 9, 17]
    assert sorted(zoo.sampled(list(range(20)))) == list(range(20))


def test_names_are_distinct() -> None:
    names = [entry.name for entry in entries()]
    assert len(set(names)) == len(names)


def test_a_worker_that_dies_is_a_result() -> None:
    def last_words() -> None:
        os.write(2, b"LLVM ERROR: out of ideas\n")
        os._exit(3)

    assert in_own_process(last_words, 30, 8) == ("crash", "the process ended with 3: LLVM ERROR: out of ideas")
    assert in_own_process(lambda: [].pop(), 30, 8)[0] == "fault"


def test_a_worker_that_hangs_is_stopped() -> None:
    assert in_own_process(lambda: time.sleep(60), 0.3, 8) == ("timeout", "not done after 0 s")


def test_a_converter_answers_one_request_after_the_other(network: Path, tmp_path: Path) -> None:
    output = tmp_path / "made.tflite"
    ask = {"network": str(network), "output": str(output), "inputs": [0], "outputs": [], "seconds": 60, "gigabytes": 8}
    asks = [ask, {**ask, "network": str(tmp_path)}]
    done = subprocess.run(
        [sys.executable, WORKER, "edgekit", "--serve", "--warm", network],
        input="".join(json.dumps(one) + "\n" for one in asks),
        capture_output=True,
        text=True,
        check=True,
    )
    version, first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert version["version"]
    assert first["cpu_seconds"] > 0
    assert output.stat().st_size > 0
    assert second["outcome"] == "fault"
    assert "model.onnx" in second["reason"]


def test_a_converter_is_timed_without_its_first_time(network: Path, tmp_path: Path) -> None:
    figures = convert("edgekit", network, tmp_path / "made.tflite", ChannelsLast((0,)), network)
    assert 0 < figures["cpu_seconds"] < 5
    assert (tmp_path / "made.tflite").exists()


def test_a_peer_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorflow")
    pytest.importorskip("torch")
    monkeypatch.setitem(zoo_peers.PEERS, "keras", ("tflite-converter",))
    source = open_source(str(zoo_peers.SAMPLES / "digits.keras"))
    feeds = {"image": np.random.default_rng(5).random((1, 8, 8, 1), np.float32)}
    built = Built(source, feeds, lambda folder: shutil.copyfile(zoo_peers.SAMPLES / "digits.keras", folder / "model.keras"))
    folder, file = tmp_path / "network", tmp_path / "ours.tflite"
    zoo_worker.export(Entry("keras/digits", lambda: built), folder)
    checked = zoo_worker.check(folder, file)
    with zoo_peers.Peers(8) as peers:
        assert not peers.lacks_program("keras", folder, {})
        made = peers.make("keras", folder, checked, None, {})
        peer = made["tflite-converter"]
        assert peer.outcome == "exact", peer.reason
        assert peer.operators
        assert peer.convert_s
        assert len(zoo_peers.latencies(folder, file, made, 0.1, 3)) == 2
        zoo_peers.tidy(folder, made)
        assert not zoo_worker.program(folder)
        assert peers.make("keras", folder, checked, None, made) == made
        assert not peers.lacks_program("keras", folder, made)
        assert peers.lacks_program("keras", folder, {})


def test_the_page_names_what_does_not_work_and_what_is_missed() -> None:
    page = zoo_page.page([RESNET, Result("onnx/b", Made("refused", "no such operator | at all"))], 7)
    assert "2 of 7 networks have been run, 1 of them beside the peers." in page
    assert "| a | 1.0e-06 | 1.0e-07 | 30 / 29 / wrong | 1 / 4 / – | 2.08 MB, 104.0% / 100.5% / – " in page
    assert "| 0.10 / 1.00 / – | 1.5 / 1 / – | 1.500 / – |" in page
    assert "| onnx/b | refused | no such operator / at all |" in page
    assert "| no more operators than the better peer | 0 | 1 |" in page
    assert "| timm/a | 30 : 29 |  | 104.0% | x1.500 |  |  |" in page
    assert "| wrong numbers |  | 1 |  |" in page


def test_operators_of_a_small_file_and_noise_are_counted_and_not_listed() -> None:
    ours = replace(RESNET.ours, bytes=2_060_000, operators=29, latency_ms=1.01)
    page = zoo_page.page([replace(RESNET, ours=ours)], 7)
    assert "| bytes at most those of the weights + 2 % | 0 | 1 |\n| … + 32 KB, for operators and names | 1 | 1 |" in page
    assert "| latency at most the better peer's | 0 | 1 |\n| … + 2 %, which is noise | 1 | 1 |" in page
    assert "## Goals missed" not in page
