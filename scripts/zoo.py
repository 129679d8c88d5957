"""Hundreds of networks through the compiler, each compared with the framework that it comes from and with other converters.

    .venv/bin/python scripts/zoo.py                         # all without a result, every eighth first
    .venv/bin/python scripts/zoo.py --only timm/swin         # names that match the regular expression
    .venv/bin/python scripts/zoo.py --stale                  # also those whose result is of older code
    .venv/bin/python scripts/zoo.py --only . --again --no-peers       # convert and check again from the exported graphs
    .venv/bin/python scripts/zoo.py --outcome wrong,refused --again   # those that ended so
    .venv/bin/python scripts/zoo.py --write                  # generate docs/zoo.md from the results

Results are in docs/zoo.jsonl, so that a run goes on where the last one ended, on whatever machine. Exported graphs and the peers'
files are in the cache.

Each network is exported to ONNX once, and then converted and checked, each in a process of its own with limits on time and
memory; then come the peers (zoo_peers.py), whose environments `bench_convert.py --setup` makes. What is to be run needs Keras,
PyTorch, timm, transformers and torchvision.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from collections.abc import Set as Collection
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from own_process import in_own_process
from real_models.registry import cache_folder
from zoo_models import Entry, entries
from zoo_peers import Peers, latencies, tidy
from zoo_results import OUTCOMES, RESULTS, ROOT, Made, Result, edgekit_code, judged, load, save
from zoo_worker import Checked, check, export, onnxruntime_error, warm_up

PAGE = ROOT / "docs" / "zoo.md"
T = TypeVar("T")
SECONDS = 900.0
GIGABYTES = 8.0
LEAST = 7
"""Inferences of each file, of networks that take long."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="REGEX", default="", help="names that match")
    parser.add_argument("--outcome", default="", help="only those whose result is one of these, separated by commas")
    parser.add_argument("--again", action="store_true", help="also those that have a result")
    parser.add_argument(
        "--stale", action="store_true", help="also those whose result is of other code than edgekit's present one"
    )
    parser.add_argument("--no-peers", action="store_true", help="edgekit alone")
    parser.add_argument("--new-peers", action="store_true", help="do not use the peers' files that are in the cache")
    parser.add_argument("--new-export", action="store_true", help="do not use the exported graphs that are in the cache")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the .tflite files there")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--write", action="store_true", help=f"generate {PAGE.relative_to(ROOT)} from all results and stop")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of results")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for an export, and for a check")
    parser.add_argument("--latency-seconds", type=float, default=2.5, help="for the latency of one file")
    parser.add_argument("--gigabytes", type=float, default=GIGABYTES, help="of memory, resident")
    options = parser.parse_args()
    order = [entry.name for entry in entries()]
    known = load(options.results)
    if options.write:
        from zoo_page import page

        PAGE.write_text(page([known[name] for name in order if name in known], len(order)))
        return
    chosen = [entry for entry in sampled(entries()) if re.search(options.only, entry.name)]
    if options.outcome:
        chosen = [e for e in chosen if e.name in known and known[e.name].ours.outcome in options.outcome.split(",")]
    if not options.again:
        chosen = [entry for entry in chosen if not done(known.get(entry.name), options)]
    if options.list:
        print("\n".join(entry.name for entry in chosen))
        return
    with contextlib.nullcontext() if options.no_peers else Peers(options.gigabytes) as peers:
        preload({entry.collection for entry in chosen}, peers)
        for entry in chosen:
            result = run(entry, peers, load(options.results).get(entry.name), options)
            save(result, order, options.results)
            print(line(result), flush=True)
    print(summary(load(options.results).values()))


def done(result: Result | None, options: argparse.Namespace) -> bool:
    """Nothing is left to find out about the network."""
    if result is None or (options.stale and result.ours.code != edgekit_code()):
        return False
    measured = bool(result.peers) and (not result.ours.fine or result.ours.latency_ms is not None)
    return options.no_peers or measured or result.nodes is None


def run(entry: Entry, peers: Peers | None, known: Result | None, options: argparse.Namespace) -> Result:
    """Export the network unless that is done, then convert and check it, and then the peers' files beside it."""
    folder = cache_folder() / "zoo" / entry.name.replace("/", "-")
    limits = (options.seconds, options.gigabytes)
    code = edgekit_code()
    earlier = known.peers if known and not options.new_peers and not options.new_export else {}
    lacking = not (folder / "about.json").exists() or (peers and peers.lacks_program(entry.collection, folder, earlier))
    if options.new_export or lacking:
        ended = in_own_process(lambda: export(entry, folder), *limits)
        if isinstance(ended, tuple):
            outcome, reason = ended
            return Result(entry.name, Made("no source" if outcome == "fault" else outcome, f"export: {reason}", code))
    with tempfile.TemporaryDirectory(prefix="edgekit-zoo-") as scratch:
        file = Path(scratch, "edgekit.tflite")
        checked = in_own_process(lambda: check(folder, file), *limits)
        if isinstance(checked, tuple):
            return Result(entry.name, Made(*checked, code=code))
        ort_error = in_own_process(lambda: onnxruntime_error(folder), *limits)
        result = Result(
            entry.name,
            replace(checked.ours, code=code),
            checked.nodes,
            checked.weight_bytes,
            None if isinstance(ort_error, tuple) else ort_error,
            earlier,
        )
        if checked.ours.error is not None:
            result = replace(result, ours=judged(result.ours, checked.ours.error, result.ort_error))
        if options.keep and file.exists():
            options.keep.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, options.keep / f"{entry.name.replace('/', '-')}.tflite")
        return compared(entry, result, checked, peers, folder, file, options) if peers else result


def compared(
    entry: Entry, result: Result, checked: Checked, peers: Peers, folder: Path, file: Path, options: argparse.Namespace
) -> Result:
    """The result with what the peers make of the network, and with the latency of all files that are right."""
    made = peers.make(entry.collection, folder, checked, result.ort_error, result.peers)
    result = replace(result, peers=made)
    if result.ours.fine:
        measured = in_own_process(lambda: latencies(folder, file, made, options.latency_seconds, LEAST), options.seconds, 16)
        if not isinstance(measured[0], str):
            result = with_latencies(result, measured)
    tidy(folder, made)
    return result


def with_latencies(result: Result, measured: Sequence[float]) -> Result:
    """The result with these latencies: edgekit's, then those of the peers whose files are right."""
    right = [name for name, made in result.peers.items() if made.fine]
    theirs = dict(zip(right, measured[1:], strict=True))
    peers = {name: replace(made, latency_ms=theirs.get(name)) for name, made in result.peers.items()}
    return replace(result, ours=replace(result.ours, latency_ms=measured[0]), peers=peers)


def sampled(names: Sequence[T], step: int = 8) -> list[T]:
    """The same in another order: every eighth, then those after them, and so on. A run that is stopped has seen all families."""
    return [name for start in range(step) for name in names[start::step]]


def summary(results: Iterable[Result]) -> str:
    """How many of each collection ended how."""
    counts: dict[str, dict[str, int]] = {}
    for result in results:
        of = counts.setdefault(result.collection, {})
        of[result.ours.outcome] = of.get(result.ours.outcome, 0) + 1
    return "\n".join(
        f"{collection}: " + ", ".join(f"{of[outcome]} {outcome}" for outcome in OUTCOMES if outcome in of)
        for collection, of in counts.items()
    )


def line(result: Result) -> str:
    """One network, for the terminal."""
    ours = result.ours
    words = [f"{ours.outcome:15} {result.name:45}", f"{ours.error:.1e}" if ours.error is not None else "", ours.reason]
    words += (
        [f"operators {ours.operators}, transposes {ours.transposes}, {ours.latency_ms or 0:.3g} ms"] if ours.operators else []
    )
    for name, peer in result.peers.items():
        figures = f"{peer.operators}, {peer.transposes}, x{result.ratio('latency_ms', name) or 0:.3f}"
        words.append(f"| {name} {figures if peer.fine else f'{peer.outcome}: {peer.reason[:120]}'}")
    return " ".join(words)


def preload(collections: Collection[str], peers: Peers | None) -> None:
    """Import what takes long once, before the workers are forked. TensorFlow is left out: it does not survive a fork."""
    if collections & {"timm", "torchvision", "transformers"}:
        from zoo_models.random_weights import allow_torchvision

        allow_torchvision()
        import onnxscript  # noqa: F401
        import timm  # noqa: F401
        import torch.onnx  # noqa: F401
        import transformers  # noqa: F401
    if peers:
        warm_up(peers.warm)


if __name__ == "__main__":
    main()
