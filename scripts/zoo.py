"""Hundreds of networks through the compiler, each compared with the framework that it comes from.

    .venv/bin/python scripts/zoo.py                        # all without a result; results in build/zoo, exports in the cache
    .venv/bin/python scripts/zoo.py --only timm/swin        # names that match the regular expression
    .venv/bin/python scripts/zoo.py --only . --again        # convert and check again from the exported graphs
    .venv/bin/python scripts/zoo.py --outcome wrong,refused --again   # those that ended so
    .venv/bin/python scripts/zoo.py --write                 # generate docs/zoo.md from the results

Each network is exported to ONNX once, and then converted and checked, each in a process of its own with limits on time and
memory. What is to be run needs Keras, PyTorch, timm, transformers and torchvision.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.connection
import os
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from real_models.registry import cache_folder
from zoo_models import Entry, entries
from zoo_worker import OUTCOMES, Result, check, conclude, export, onnxruntime_error

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "zoo"
PAGE = ROOT / "docs" / "zoo.md"
T = TypeVar("T")
SECONDS = 900.0
GIGABYTES = 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="REGEX", default="", help="names that match")
    parser.add_argument("--outcome", default="", help="only those whose result is one of these, separated by commas")
    parser.add_argument("--again", action="store_true", help="also those that have a result")
    parser.add_argument("--new-export", action="store_true", help="do not use the exported graphs that are in the cache")
    parser.add_argument("--keep", action="store_true", help="leave the .tflite files beside the results")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--write", action="store_true", help=f"generate {PAGE.relative_to(ROOT)} from all results and stop")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for an export, and for a check")
    parser.add_argument("--gigabytes", type=float, default=GIGABYTES, help="of memory, resident")
    options = parser.parse_args()
    known = load_results(RESULTS)
    if options.write:
        from zoo_page import page

        PAGE.write_text(page([known[e.name] for e in entries() if e.name in known], len(entries())))
        return
    chosen = [e for e in entries() if re.search(options.only, e.name)]
    if options.outcome:
        chosen = [e for e in chosen if e.name in known and known[e.name].outcome in options.outcome.split(",")]
    for entry in chosen:
        if options.list:
            print(entry.name)
        elif options.again or entry.name not in known:
            result = run(entry, options)
            _save(RESULTS, result)
            known[entry.name] = result
            figures = f"{result.error:.1e}" if result.error is not None else ""
            print(f"{result.outcome:15} {entry.name:45} {figures:8} {result.reason}", flush=True)
    if not options.list:
        print(summary(known.values()))


def run(entry: Entry, options: argparse.Namespace) -> Result:
    """Export the network unless that is done, then convert and check it."""
    stem = entry.name.replace("/", "-")
    folder = cache_folder() / "zoo" / stem
    if options.new_export:
        shutil.rmtree(folder, ignore_errors=True)
    if not (folder / "about.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _preload(entry)
        ended = in_own_process(lambda: export(entry, folder), options.seconds, options.gigabytes)
        if isinstance(ended, tuple):
            outcome, reason = ended
            return Result(entry.name, "no source" if outcome == "fault" else outcome, f"export: {reason}")
    keep = RESULTS / f"{stem}.tflite" if options.keep else None
    RESULTS.mkdir(parents=True, exist_ok=True)
    ended = in_own_process(lambda: check(entry.name, folder, keep), options.seconds, options.gigabytes)
    if isinstance(ended, tuple):
        return Result(entry.name, *ended)
    if ended.error is None:
        return ended
    ort_error = in_own_process(lambda: onnxruntime_error(folder), options.seconds, options.gigabytes)
    return ended if isinstance(ort_error, tuple) else conclude(ended, ort_error)


def in_own_process(work: Callable[[], T], seconds: float, gigabytes: float) -> T | tuple[str, str]:
    """What `work` returns, or `(outcome, reason)` where it does not: fault, crash, timeout or memory."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(work, theirs), daemon=True)
    process.start()
    theirs.close()
    end = time.monotonic() + seconds
    try:
        while not ours.poll(0.1):
            if time.monotonic() > end:
                return "timeout", f"not done after {seconds:.0f} s"
            if _resident(process.pid) > gigabytes * 2**30:
                return "memory", f"more than {gigabytes:.0f} GB"
        succeeded, value = ours.recv()
    except EOFError:
        process.join()
        return "crash", f"the process ended with {process.exitcode}"
    finally:
        process.kill()
        process.join()
        ours.close()
    return value if succeeded else ("fault", value)


def summary(results: Iterable[Result]) -> str:
    """How many of each collection ended how."""
    counts: dict[str, dict[str, int]] = {}
    for result in results:
        of = counts.setdefault(result.name.partition("/")[0], {})
        of[result.outcome] = of.get(result.outcome, 0) + 1
    return "\n".join(
        f"{collection}: " + ", ".join(f"{of[outcome]} {outcome}" for outcome in OUTCOMES if outcome in of)
        for collection, of in counts.items()
    )


def load_results(folder: Path) -> dict[str, Result]:
    """All results, by name."""
    found = [Result(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    return {result.name: result for result in found}


def _save(folder: Path, result: Result) -> None:
    path = folder / f"{result.name.replace('/', '-')}.json"
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(asdict(result), indent=1) + "\n")
    partial.replace(path)


def _preload(entry: Entry) -> None:
    """Import what takes long once, before the workers are forked. TensorFlow is left out: it does not survive a fork."""
    if entry.collection in ("timm", "torchvision", "transformers"):
        from zoo_models.random_weights import allow_torchvision

        allow_torchvision()
        import onnxscript  # noqa: F401
        import timm  # noqa: F401
        import torch.onnx  # noqa: F401
        import transformers  # noqa: F401


def _work(work: Callable[[], object], channel: multiprocessing.connection.Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    try:
        channel.send((True, work()))
    except Exception as error:
        channel.send((False, _told(error)))


def _told(error: Exception) -> str:
    """The exception on one line, with the place that raised it."""
    trace, place = error.__traceback__, ""
    while trace:
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    lines: Sequence[str] = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' · '.join(lines)[:600]} ({place})"


def _resident(pid: int | None) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


if __name__ == "__main__":
    main()
