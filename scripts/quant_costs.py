"""What calibration costs: its time beside ai-edge-quantizer's, and its memory with many samples.

Run by bench_quant.py; `python quant_costs.py memory SAMPLES` is one measurement of memory, in a process of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx_ir

sys.path.insert(0, str(Path(__file__).resolve().parent))

from quant_results import LITERT, ROOT
from quant_subjects import subject
from quant_tools import folder_of, prepare, quantizer_of
from real_models import data
from zoo_results import edgekit_code

from edgekit import hub
from edgekit.contract import TensorSpec

COSTS = ROOT / "docs" / "int8-costs.json"
TIMED, ROUNDS = "mobilenet-v2-cifar10", 3
FILLED, FEW, MANY = "cifar10-keras", 500, 50_000


def load() -> dict[str, str]:
    """Sentences of the page by what they are about."""
    return json.loads(COSTS.read_text()) if COSTS.exists() else {}


def measure(*, calibration_time: bool, memory: bool) -> None:
    """Measure, and write what came out beside the page."""
    found = load()
    if calibration_time:
        found["time"] = _told_time()
    if memory:
        found["memory"] = _told_memory()
    COSTS.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def _told_time() -> str:
    from edgekit.ort.model import to_proto
    from edgekit.quantize import condition
    from edgekit.quantize.observe import observe

    work = prepare(subject(TIMED), 1000)
    graph = _hub(work.exported, work.inputs)
    proto, feeds = to_proto(graph), work.calibration_feeds()

    def whole() -> None:
        with tempfile.TemporaryDirectory() as empty:  # without what an earlier run has seen
            os.environ["EDGEKIT_CACHE"], kept = empty, os.environ.get("EDGEKIT_CACHE", "")
            condition(graph, work.calibration)
            os.environ["EDGEKIT_CACHE"] = kept

    source = work.float_artifacts[LITERT]
    tool, signature = quantizer_of(source)
    given = [{b.artifact: b.to_artifact(feed[b.source]) for b in source.inputs} for feed in feeds]
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(ROUNDS):
        times["ours"].append(_cpu_seconds(lambda: observe(proto, feeds)))
        times["theirs"].append(_cpu_seconds(lambda: tool.calibrate({signature: given}, num_threads=1)))
    ours, theirs = (statistics.median(times[side]) for side in ("ours", "theirs"))
    return (
        f"**Time.** {TIMED}, {len(feeds)} samples, CPU time on one thread, median of {ROUNDS}: edgekit sees all values once in "
        f"{ours:.1f} s, ai-edge-quantizer in {theirs:.1f} s ({ours / theirs:.2f}). With everything that edgekit does beside "
        f"(equalization, the choice of ranges, rounding, biases; for both runtimes): {_cpu_seconds(whole):.1f} s. "
        f"Commit {edgekit_code()}."
    )


def _told_memory() -> str:
    peaks = {}
    for samples in (FEW, MANY):
        done = subprocess.run([sys.executable, __file__, "memory", str(samples)], capture_output=True, text=True, check=True)
        peaks[samples] = json.loads(done.stdout.strip().splitlines()[-1])["peak_bytes"] / 2**20
    return (
        f"**Memory.** {FILLED}, calibrated on CIFAR-10's training pictures from a mapped .npy: the process peaks at "
        f"{peaks[FEW]:,.0f} MB with {FEW} samples and at {peaks[MANY]:,.0f} MB with {MANY:,}. Commit {edgekit_code()}."
    )


def peak_of_calibration(samples: int) -> int:
    """Bytes of resident memory at most, while the model is conditioned on this many samples."""
    from edgekit.package import load_package
    from edgekit.preprocess import Preprocess
    from edgekit.quantize import Recipe, condition, load_data

    pictures = data.pictures(f"cifar10-train-{MANY}", lambda: data.cifar10("train", MANY)[0])
    folder = folder_of(FILLED)
    inputs = load_package(folder / "fp32").inputs
    graph = _hub(folder / "exported.onnx", inputs)
    with tempfile.TemporaryDirectory() as empty:
        os.environ["EDGEKIT_CACHE"] = empty
        calibration = load_data(pictures, inputs, Preprocess.parse("none,layout=nhwc"), limit=samples)
        condition(graph, calibration, Recipe(samples=samples))
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _hub(exported: Path, inputs: Sequence[TensorSpec]) -> onnx_ir.Model:
    return hub.prepare(onnx_ir.load(exported), shapes={spec.name: spec.shape for spec in inputs})


def _cpu_seconds(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


if __name__ == "__main__":
    print(json.dumps({"peak_bytes": peak_of_calibration(int(sys.argv[2]))}))
