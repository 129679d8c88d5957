"""Every ONNX node test through the compiler and the LiteRT interpreter.

    .venv/bin/python scripts/conformance.py                          # all tests, both ways; results in build/conformance.json
    .venv/bin/python scripts/conformance.py --only topk --mode frozen  # tests whose name matches, with details
    .venv/bin/python scripts/conformance.py --resume                 # only what the results file does not have yet
    .venv/bin/python scripts/conformance.py --write                  # also generates docs/operators.md

Each test of `onnx.backend.test` runs twice: `given`, as it is (weights, shapes and axes arrive as inputs), and `frozen`, with
every input but the first a constant, as in an exported model. It is compiled, loaded and run with XNNPACK and with the builtin
kernels alone, and compared with the outputs that ONNX gives, in a worker process with a time limit.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from conformance_cases import MODES, Case, collect, outside

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "conformance.json"
PAGE = ROOT / "docs" / "operators.md"
WORKERS = 2
TIME_LIMIT = 30.0  # seconds a test may take
OUTCOMES = ("pass", "refused", "wrong", "unloadable", "fault", "crash", "timeout")
"""refused: an error that names its reason; unloadable: the interpreter does not take the file; fault: any other exception."""


@dataclass(frozen=True)
class Result:
    """What became of one test in one mode; `outcome` is one of OUTCOMES or `outside`, `reason` says why it is not `pass`."""

    test: str
    mode: str
    operator: str
    outcome: str
    reason: str = ""
    seconds: float = 0.0

    @property
    def key(self) -> str:
        return f"{self.test}:{self.mode}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="REGEX", help="tests whose name matches; nothing is written")
    parser.add_argument("--mode", choices=MODES, help="one mode only")
    parser.add_argument("--resume", action="store_true", help="keep the results that are there")
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", action="store_true", help=f"generate {PAGE.relative_to(ROOT)} from the results")
    options = parser.parse_args()
    cases = [c for c in collect() if not options.only or re.search(options.only, c.name)]
    known = _load(options.results) if options.resume and not options.only else {}
    jobs = [(i, mode) for i, c in enumerate(cases) for mode in ([options.mode] if options.mode else MODES)]
    waiting = [(i, mode) for i, mode in jobs if f"{cases[i].name}:{mode}" not in known]
    for number, result in enumerate(_run(cases, waiting, options.workers), 1):
        known[result.key] = result
        if options.only:
            print(f"{result.outcome:10} {result.test}:{result.mode}  {result.reason}")
        elif number % 100 == 0:
            _save(options.results, known.values())
            print(f"\r{number}/{len(waiting)}", end="", file=sys.stderr, flush=True)
    if not options.only:
        _save(options.results, known.values())
    print(summary(known.values()))
    if options.write and not options.only:
        from conformance_page import page

        PAGE.write_text(page(list(known.values())))


def summary(results: Iterable[Result]) -> str:
    """The outcomes per mode, and how much of what is in scope passes."""
    lines = []
    for mode in MODES:
        counts = Counter(r.outcome for r in results if r.mode == mode)
        scope = sum(counts[o] for o in OUTCOMES)
        if scope:
            figures = ", ".join(f"{counts[o]} {o}" for o in OUTCOMES if counts[o])
            share = counts["pass"] / scope
            lines.append(f"{mode}: {share:.1%} of {scope} in scope pass ({figures}); {counts['outside']} out of scope")
    return "\n".join(lines)


# The pool: workers are forked with the tests in memory, and replaced when they die or hang


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    channel: Connection
    job: tuple[int, str] | None = None
    since: float = 0.0


def _run(cases: Sequence[Case], jobs: Sequence[tuple[int, str]], count: int) -> Iterable[Result]:
    waiting = list(reversed(jobs))
    workers = [_start(cases) for _ in range(min(count, len(jobs)))]
    try:
        while waiting or any(w.job for w in workers):
            for w in workers:
                if w.job is None and waiting:
                    w.job, w.since = waiting.pop(), time.monotonic()
                    w.channel.send(w.job)
            ready = wait([w.channel for w in workers if w.job], timeout=1.0)
            for place, w in enumerate(workers):
                if w.job is None:
                    continue
                index, mode = w.job
                elapsed = time.monotonic() - w.since
                if w.channel in ready:
                    try:
                        yield w.channel.recv()
                        w.job = None
                        continue
                    except EOFError:
                        w.process.join()
                        outcome, reason = "crash", f"the process ended with {w.process.exitcode}"
                elif elapsed > TIME_LIMIT:
                    outcome, reason = "timeout", f"not done after {TIME_LIMIT:.0f} s"
                else:
                    continue
                _stop(w)
                workers[place] = _start(cases)
                yield Result(cases[index].name, mode, cases[index].operator, outcome, reason, elapsed)
    finally:
        for w in workers:
            _stop(w)


def _start(cases: Sequence[Case]) -> _Worker:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(cases, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _stop(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.channel.close()


def _work(cases: Sequence[Case], channel: Connection) -> None:
    from conformance_cases import attempt

    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)  # what the interpreter says on stderr is in the exception as well
    while True:
        index, mode = channel.recv()
        case, start = cases[index], time.monotonic()
        reason = outside(case)
        outcome, reason = ("outside", reason) if reason else attempt(case, mode)
        channel.send(Result(case.name, mode, case.operator, outcome, reason, round(time.monotonic() - start, 3)))


def _save(path: Path, results: Iterable[Result]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    ordered = sorted(results, key=lambda r: r.key)
    partial.write_text(json.dumps([asdict(r) for r in ordered], indent=0))
    partial.replace(path)


def _load(path: Path) -> dict[str, Result]:
    return {r.key: r for r in (Result(**row) for row in json.loads(path.read_text()))} if path.exists() else {}


if __name__ == "__main__":
    main()
