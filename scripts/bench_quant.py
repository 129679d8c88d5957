"""What INT8 costs real models, by edgekit and by other tools, in one run on the same samples.

    .venv/bin/python scripts/bench_quant.py --setup                    # once: onnx2tf with TensorFlow, for SavedModels
    .venv/bin/python scripts/bench_quant.py                            # what docs/int8.jsonl does not hold yet
    .venv/bin/python scripts/bench_quant.py --only resnet56 --again
    .venv/bin/python scripts/bench_quant.py --stale --write            # what was made by other code; and docs/int8.md
    .venv/bin/python scripts/bench_quant.py --samples 200 --only mnist-cnn --json quick.jsonl
    .venv/bin/python scripts/bench_quant.py --calibration-time --memory

Each model is a process of its own. Results are kept line by line as they come: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import quant_costs
import quant_page
import quant_results
from peer_models import peer_python
from quant_figures import distance, judged, latencies, results, shares
from quant_results import LITERT, ORT, RESULTS, Measured
from quant_subjects import SUBJECTS, subject
from quant_tools import EDGEKIT, ONNX2TF, PEERS, Artifact, Tool, Work, prepare

PRECISIONS = ("int8", "int8-dynamic")
ONNX2TF_NEEDS = ("python3.12", "onnx2tf[tensorflow]==2.6.7")


def main() -> None:
    options = _options()
    if options.setup:
        set_up()
    elif options.worker:
        measure(options.worker, options)
    else:
        if options.calibration_time or options.memory:
            quant_costs.measure(calibration_time=options.calibration_time, memory=options.memory)
        elif not options.page:
            in_turn(options)
        quant_page.show(quant_results.load(options.json), quant_costs.load(), write=options.write or options.page)


def in_turn(options: argparse.Namespace) -> None:
    """Each model in a process of its own."""
    for name in options.only or [one.name for one in SUBJECTS]:
        print(f"{name} …", file=sys.stderr, flush=True)
        environment = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
        done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--worker", name], env=environment)
        if done.returncode:
            print(f"{name} ended with {done.returncode}", file=sys.stderr, flush=True)


def set_up() -> None:
    """Makes an environment of onnx2tf that can write SavedModels."""
    python, package = ONNX2TF_NEEDS
    target = peer_python(ONNX2TF).parent.parent
    subprocess.run([python, "-m", "venv", target], check=True)
    if subprocess.run([target / "bin" / "pip", "install", "--quiet", package]).returncode:
        shutil.rmtree(target)
        sys.exit("pip could not install onnx2tf with TensorFlow")


def measure(name: str, options: argparse.Namespace) -> None:
    """All tools on one model: artifacts and answers one by one, latencies of all of them together."""
    chosen = subject(name)
    samples = min(options.samples or chosen.samples, chosen.samples)
    known = quant_results.load(options.json)
    wanted = [item for item in _asked(name, samples, options) if _is_missing(*item, known, samples, options)]
    is_timed = all(row.latency or row.failure for row in known.values() if (row.model, row.samples) == (name, samples))
    if not wanted and is_timed:
        return
    work = prepare(chosen, samples, again=options.again, export_again=options.stale)
    for tool, precision, _ in wanted:
        for row in (rows := list(_measured(tool, precision, work, samples))):
            print("  " + quant_page.line(row), file=sys.stderr, flush=True)
        quant_results.save(rows, options.json)
    quant_results.save(_timed(work, quant_results.load(options.json), samples), options.json)


def _asked(name: str, samples: int, options: argparse.Namespace) -> Iterator[tuple[Tool, str, Measured]]:
    """Each tool and precision with its first row, which has no figures yet."""
    precisions = options.precision or PRECISIONS
    asked = [(EDGEKIT, precision) for precision in ("fp32", *precisions)] + [(tool, "int8") for tool in PEERS]
    for tool, precision in asked:
        yield tool, precision, Measured(name, tool.name, tool.runtimes[0], precision, tool.code(), samples)


def _is_missing(
    tool: Tool,
    precision: str,
    row: Measured,
    known: Mapping[quant_results.Key, Measured],
    samples: int,
    options: argparse.Namespace,
) -> bool:
    if options.tool and tool.name not in options.tool:
        return False
    have = known.get(row.key)
    is_stale = options.stale and have is not None and (have.code != row.code or bool(have.failure))
    return options.again or is_stale or have is None or have.samples != samples


def _measured(tool: Tool, precision: str, work: Work, samples: int) -> Iterator[Measured]:
    """One row for each runtime that the tool makes artifacts for."""
    first = [Measured(work.subject.name, tool.name, runtime, precision, tool.code(), samples) for runtime in tool.runtimes]
    try:
        made = work.float_artifacts if precision == "fp32" else tool.make(work, precision)
        artifacts = {row: made[row.runtime].kept(work.folder / row.file) for row in first if row.runtime in made}
        answers = {row.runtime: results(artifact, work) for row, artifact in artifacts.items()}
    except Exception as error:  # whatever a tool raises about a model is what there is to say of it
        yield from (replace(row, failure=_told(error)) for row in first)
        return
    between = distance(answers[LITERT], answers[ORT]) if len(answers) == 2 else None
    for row, artifact in artifacts.items():
        whole = judged(shares(row, artifact), answers[row.runtime], work)
        yield replace(whole, between=between, bytes=artifact.path.stat().st_size)


def _timed(work: Work, known: Mapping[quant_results.Key, Measured], samples: int) -> list[Measured]:
    """All rows of the model with the latencies of their artifacts, which take turns."""
    rows = [row for row in known.values() if row.model == work.subject.name and not row.failure and row.samples == samples]
    found = {row: artifact for row in rows if (artifact := Artifact.known(work.folder / row.file)) is not None}
    times = latencies(list(found.values()), work)
    return [replace(row, latency=milliseconds) for row, milliseconds in zip(found, times, strict=True)]


def _told(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ", ".join(one.name for one in SUBJECTS)
    parser.add_argument("--only", action="append", metavar="MODEL", help=f"one of {names}; may be repeated")
    parser.add_argument("--tool", action="append", choices=[tool.name for tool in (EDGEKIT, *PEERS)])
    parser.add_argument("--precision", action="append", help="of edgekit: int8, int8-dynamic and fp32 unless given")
    parser.add_argument("--samples", type=int, help="test samples at most")
    parser.add_argument("--again", action="store_true", help="also what is known")
    parser.add_argument("--stale", action="store_true", help="also what other code has made, and what has failed")
    parser.add_argument("--write", action="store_true", help="write docs/int8.md")
    parser.add_argument("--page", action="store_true", help="write docs/int8.md from what is known, and stop")
    parser.add_argument("--json", type=Path, default=RESULTS, help="the file of results, by default docs/int8.jsonl")
    parser.add_argument("--calibration-time", action="store_true", help="time calibration, by edgekit and ai-edge-quantizer")
    parser.add_argument("--memory", action="store_true", help="peak memory of calibration on 500 and 50,000 samples")
    parser.add_argument("--setup", action="store_true", help="make the environment of onnx2tf with TensorFlow, and stop")
    parser.add_argument("--worker", metavar="MODEL", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
