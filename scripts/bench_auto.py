"""Does `--precision auto` keep its budget on samples that it has not seen, and what of INT8's speed is left? A table.

    .venv/bin/python scripts/bench_auto.py --max-drop 0.2 --write
    .venv/bin/python scripts/bench_auto.py --only resnet56 --searched 500 --test 1000

The labelled test set of each classifier is taken apart: every n-th sample is what the search gets as `--data`, and the others are
what its artifacts are judged on. Latency is CPU time of one inference on one thread, all files of a model taking turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from quant_subjects import SUBJECTS, subject
from zoo_results import edgekit_code

import edgekit
from edgekit.package import Package
from edgekit.quantize import load_data
from edgekit.runtimes import Runner

PAGE = Path(__file__).resolve().parents[1] / "docs" / "auto.md"
HEAD = """# `--precision auto` on samples that it has not seen

Written by `scripts/bench_auto.py --write`; do not edit. Each classifier's labelled test set was taken apart: some samples for the
search, the others for this table. *Lost* is in points of accuracy on those others (negative: gained), for int8 and for auto.
*Speed-up kept* is (float32 - auto) / (float32 - int8), in CPU time of one inference on one thread.

"""
COLUMNS = (
    "Model | Runtime | Samples: search, test | Budget | int8 lost | auto lost | Nodes in float | Speed-up of int8 | Kept | Search"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    labelled = [one.name for one in SUBJECTS if one.prepare(1).labels is not None]
    parser.add_argument("--only", action="append", choices=labelled)
    parser.add_argument("--max-drop", type=float, default=0.2, metavar="POINTS")
    parser.add_argument("--searched", type=int, default=2000, help="samples for the search")
    parser.add_argument("--test", type=int, default=8000, help="other samples, at most")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each search")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(PAGE.parents[1])}")
    options = parser.parse_args()
    lines = [f"| {COLUMNS} |", "|" + " --- |" * (COLUMNS.count("|") + 1)]
    print(*lines, sep="\n", flush=True)
    for name in options.only or labelled:
        for line in rows(name, options.max_drop, options.searched, options.test, options.minutes):
            lines.append(line)
            print(line, flush=True)
    if options.write:
        PAGE.write_text(HEAD + "\n".join(lines) + f"\n\nCommit {edgekit_code()}.\n", encoding="utf-8")


def rows(name: str, budget: float, searched: int, test: int, minutes: float) -> Iterator[str]:
    """One line of the table for each runtime."""
    one = subject(name)
    given = one.prepare(one.samples)
    labels = np.load(str(given.labels))
    every = max(len(labels) // searched, 2)
    mine = np.arange(len(labels)) % every == 0
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        data = _part(Path(str(given.data)), mine, Path(folder, "searched"))
        np.save(Path(folder, "labels.npy"), labels[mine])
        package = edgekit.export(
            given.source,
            "raspberry-pi",
            output=Path(folder, "package"),
            precisions=["fp32", "int8", "auto"],
            formats=["tflite", "onnx"],
            calibration=str(given.calibration),
            data=str(data),
            labels=str(Path(folder, "labels.npy")),
            preprocess=given.preprocess,
            inputs=given.inputs,
            max_drop=budget,
            search_minutes=minutes,
            trust_source=True,
        )
        runners = {a.file: Runner(package.path / a.file, a.format, a.inputs, a.outputs) for a in package.artifacts}
        others = load_data(str(given.data), package.inputs, package.preprocess)
        chosen = np.flatnonzero(~mine)[:test]
        accuracies = _accuracies(runners, package, others.feeds, labels, chosen)
        times = _times({file: runner.bound(others.feeds[0]) for file, runner in runners.items()})
        for suffix in ("tflite", "onnx"):  # nothing kept in float: the same bytes take the same time
            files = [f"model_{precision}.{suffix}" for precision in ("int8", "auto")]
            if len({(package.path / file).read_bytes() for file in files}) == 1:
                times[files[1]] = times[files[0]]
    search = (package.quantization or {})["search"]
    for runtime, suffix in (("LiteRT", "tflite"), ("ONNX Runtime", "onnx")):
        exact, int8, auto = (f"model_{precision}.{suffix}" for precision in ("fp32", "int8", "auto"))
        lost = [100 * (accuracies[exact] - accuracies[file]) for file in (int8, auto)]
        kept = (times[exact] - times[auto]) / (times[exact] - times[int8])
        cells = (
            name,
            runtime,
            f"{mine.sum():,}, {len(chosen):,}",
            f"{budget:g}",
            f"{lost[0]:+.2f}",
            f"{lost[1]:+.2f}",
            f"{len(search['in_float'])} of {search['nodes'] or 'all'}" if search["in_float"] else "0",
            f"{times[exact] / times[int8]:.1f}x",
            f"{kept:.0%}",
            f"{len(search['curve'])} trials{', budget met' if search['met'] else ', budget NOT met'}",
        )
        yield "| " + " | ".join(cells) + " |"


def _part(data: Path, chosen: np.ndarray, target: Path) -> Path:
    """Some samples of a .npy or .npz file, in another one of that kind."""
    file = target.with_suffix(data.suffix)
    if data.suffix == ".npz":
        with np.load(data) as arrays:
            np.savez(file, **{name: arrays[name][chosen] for name in arrays.files})
    else:
        np.save(file, np.load(data, mmap_mode="r")[chosen])
    return file


def _accuracies(runners: dict[str, Runner], package: Package, feeds, labels: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
    (output,) = (spec.name for spec in package.outputs)
    right = dict.fromkeys(runners, 0)
    for i in chosen:
        for file, runner in runners.items():
            right[file] += int(runner.run(feeds[int(i)])[output].argmax() == labels[i])
    return {file: count / len(chosen) for file, count in right.items()}


def _times(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median CPU seconds of one inference each, taking turns."""
    found: dict[str, list[float]] = {file: [] for file in calls}
    for _ in range(60):
        for file, call in calls.items():
            begin = time.thread_time()
            call()
            found[file].append(time.thread_time() - begin)
    return {file: statistics.median(times[5:]) for file, times in found.items()}


if __name__ == "__main__":
    main()
