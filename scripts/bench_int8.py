"""How much int8 loses on real classifiers, with and without conditioning, as a table.

python scripts/bench_int8.py [--only mobilenet-v2] [--samples 300]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from real_models.recipes import recipe

from edgekit import ort
from edgekit.contract import Feeds, TensorSpec
from edgekit.hub import prepare
from edgekit.litert import compile_hub
from edgekit.preprocess import Preprocess
from edgekit.quantize import Conditioned, condition, load_data, quantize_litert
from edgekit.runtimes import Runner
from edgekit.sources import open_source

MODELS = ("mobilenet-v2", "efficientnet-lite0", "resnet56")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=MODELS)
    parser.add_argument("--samples", type=int, default=1000, help="test samples at most")
    options = parser.parse_args()
    print("| network | runtime | int8 | cosine | same class | accuracy (source) | made in |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in options.only or MODELS:
        measure(name, options.samples)


def measure(name: str, samples: int) -> None:
    export = recipe(name).prepare(1000)
    source = open_source(export.source, inputs=[TensorSpec.parse(spec) for spec in export.inputs], trust=True)
    hub = prepare(source.to_onnx(), shapes={spec.name: spec.shape for spec in source.inputs})
    image = Preprocess.parse(export.preprocess) if export.preprocess else None
    calibration = load_data(str(export.calibration), source.inputs, image)
    test = load_data(export.data, source.inputs, image, limit=samples)
    labels = np.load(str(export.labels))[list(test.indices)]
    (output,) = (spec.name for spec in source.outputs)
    reference = np.concatenate([source.run(feed)[output] for feed in test.feeds])
    for way in ("plain", "conditioned"):
        begin = time.perf_counter()
        ready = condition(hub, calibration) if way == "conditioned" else Conditioned(hub, hub)
        spent = time.perf_counter() - begin
        for runtime in ("ONNX Runtime", "LiteRT"):
            begin = time.perf_counter()
            if runtime == "LiteRT":
                compiled = compile_hub(ready.hub, input_layout="nhwc")
                made = quantize_litert(compiled, "int8", calibration, ranges=ready.ranges)
                runner = Runner(made.data, "tflite", made.inputs, made.outputs)
            else:
                artifact = ort.build(ready.hub, "int8", calibration=calibration, ranges=ready.ranges)[0]
                runner = Runner(artifact.data, "onnx", artifact.inputs, artifact.outputs)
            seconds = spent + time.perf_counter() - begin
            row = _row(runner, test.feeds, output, reference, labels)
            print(f"| {name} | {runtime} | {'; '.join(ready.notes) or way} | {row} | {seconds:.0f} s |", flush=True)


def _row(runner: Runner, feeds: Sequence[Feeds], output: str, reference: np.ndarray, labels: np.ndarray) -> str:
    results = np.concatenate([runner.run(feed)[output] for feed in feeds])
    a, b = results.astype(np.float64), reference.astype(np.float64)
    cosine = (a * b).sum() / np.sqrt(np.square(a).sum() * np.square(b).sum())
    same = (a.argmax(1) == b.argmax(1)).mean()
    return f"{cosine:.5f} | {same:.1%} | {(a.argmax(1) == labels).mean():.1%} ({(b.argmax(1) == labels).mean():.1%})"


if __name__ == "__main__":
    main()
