"""docs/zoo.md, from the results of scripts/zoo.py."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from zoo_peers import PEERS
from zoo_results import OUTCOMES, Made, Result

TITLES = {
    "onnx": "ONNX files from packages",
    "transformers": "transformers",
    "torchvision": "torchvision",
    "timm": "timm",
    "keras": "keras.applications",
}
NOISE = 0.02
"""How far the latencies of one and the same file may be apart."""
FIXED = 32768
"""Bytes of operators, tensors and names that a file may have beside its weights however small those are."""
NAMES = {"onnx2tf": "onnx2tf", "litert-torch": "litert-torch", "tflite-converter": "TFLiteConverter"}
INTRODUCTION = """\
# The zoo

Written by `scripts/zoo.py --write`; do not edit. Every network is built by its own library, with random weights drawn
so that each parameter shows in the output, or comes from a package. It is exported to ONNX, compiled as for the targets
(pictures and feature maps channels-last), run by LiteRT on one thread, compared with what its own framework computes on the same
seeded input. *Error* is max |a - b| / max |a| of the worst output, a being the framework's; *exact* is at most 1e-4.
*Ill-conditioned* is one of which onnxruntime, on the exported graph, is as far from the framework as the artifact (within a
factor of 4); *no source*, one that the framework does not run or export.

The peers convert the same network: onnx2tf the same ONNX file, litert-torch the same module as an exported PyTorch program, with
the same inputs and outputs channels-last, and TensorFlow's TFLiteConverter the same Keras model. What a peer makes is judged as
edgekit's is, and compared only where it is right."""
COLUMNS = """\
*Operators* and *TRANSPOSE* are those of the FP32 file, as written; *size* is the file's, and in percent of the exported graph's
constants; *convert* is CPU seconds in a warm process, from the network's file to the TFLite file; *latency* is the median CPU
time of one inference on one thread (XNNPACK), all files of a network taking turns, and *ratio* edgekit's divided by the peer's.
Several figures in one cell are edgekit's and, after it, those of the peers in the order named."""

EARLIER = """\
Rows without times are of earlier code, and with inputs and outputs as ONNX has them: one TRANSPOSE at each that is a picture."""


@dataclass(frozen=True)
class Goal:
    """What edgekit is held to on every network.

    Args:
        title: Of the goal.
        column: What its figures are, in few words.
        limit: The most that `value` may be.
        value: None where there is nothing to compare.
        shown: A network's value, written.
        listed: Whether the networks that miss it are listed. Others are counted alone: operators and names outweigh a small
            file's numbers, and latencies are not that exact.
    """

    title: str
    column: str
    limit: float
    value: Callable[[Result], float | None]
    shown: Callable[[Result], str]
    listed: bool = True

    def missed(self, result: Result) -> bool:
        value = self.value(result)
        return value is not None and value > self.limit


def _fewer(column: str, figure: str) -> Goal:
    def excess(result: Result) -> float | None:
        mine, theirs = getattr(result.ours, figure) if result.ours.fine else None, result.better(figure)
        return mine - theirs if mine is not None and theirs is not None else None

    def shown(result: Result) -> str:
        return f"{getattr(result.ours, figure)} : {result.better(figure)}"

    return Goal(f"no more {column} than the better peer", column, 0, excess, shown)


def _at_most(
    title: str, column: str, limit: float, value: Callable[[Result], float | None], written: str, listed: bool = True
) -> Goal:
    return Goal(title, column, limit, value, lambda result: written.format(value(result)), listed)


GOALS = (
    _fewer("operators", "operators"),
    _fewer("TRANSPOSEs", "transposes"),
    _at_most("bytes at most those of the weights + 2 %", "size", 1.02, lambda r: _of_weights(r, r.ours), "{:.1%}", listed=False),
    Goal(
        "… + 32 KB, for operators and names",
        "size",
        1.02,
        lambda r: _of_weights(r, r.ours, FIXED),
        lambda r: f"{_of_weights(r, r.ours):.1%}",
    ),
    _at_most("latency at most the better peer's", "latency", 1.0, lambda r: r.ratio("latency_ms"), "x{:.3f}", listed=False),
    _at_most("… + 2 %, which is noise", "latency", 1 + NOISE, lambda r: r.ratio("latency_ms"), "x{:.3f}"),
    _at_most("conversion at most 0.25 of onnx2tf's", "onnx2tf", 0.25, lambda r: r.ratio("convert_s", "onnx2tf"), "x{:.2f}"),
    _at_most(
        "conversion at most 0.05 of litert-torch's",
        "litert-torch",
        0.05,
        lambda r: r.ratio("convert_s", "litert-torch"),
        "x{:.3f}",
    ),
)


def page(results: Sequence[Result], total: int) -> str:
    """The page, for the results in the order of the zoo; `total` is how many networks the zoo has."""
    beside = sum(1 for r in results if r.peers)
    lines = [INTRODUCTION, "", COLUMNS, ""]
    lines += [f"{len(results)} of {total} networks have been run, {beside} of them beside the peers."]
    codes = Counter(r.ours.code for r in results).most_common()
    lines += [
        "Commits of edgekit's code, and the networks run by each: " + ", ".join(f"{code} {count}" for code, count in codes) + "."
    ]
    lines += [EARLIER] if any(r.ours.fine and r.ours.convert_s is None for r in results) else []
    lines += [""]
    lines += _outcomes(results)
    lines += _failures(results)
    if beside:
        lines += _goals(results) + _peers(results) + _missed(results) + _causes(results)
    for collection, title in TITLES.items():
        lines += _collection(collection, title, [r for r in results if r.collection == collection and r.ours.operators])
    return "\n".join(lines) + "\n"


def _outcomes(results: Sequence[Result]) -> list[str]:
    lines = _table("", *OUTCOMES)
    for collection, title in TITLES.items():
        counts = Counter(r.ours.outcome for r in results if r.collection == collection)
        if counts:
            lines.append(_row(title, *(str(counts[outcome] or "") for outcome in OUTCOMES)))
    return lines


def _failures(results: Sequence[Result]) -> list[str]:
    rows = [_row(r.name, r.ours.outcome, r.ours.reason) for r in results if not r.ours.fine]
    return ["", "## What does not work yet", "", *_table("Network", "Outcome", "Reason"), *rows] if rows else []


def _goals(results: Sequence[Result]) -> list[str]:
    lines = ["", "## Beside the peers", "", "The better peer is, figure by figure, the best of those whose file is right.", ""]
    lines += _table("Goal for every network", "Met by", "Of")
    for goal in GOALS:
        asked = [r for r in results if goal.value(r) is not None]
        lines.append(_row(goal.title, str(sum(not goal.missed(r) for r in asked)), str(len(asked))))
    ratios = _ratios(results, lambda r: r.ratio("latency_ms"))
    return [
        *lines,
        "",
        f"Latency is {_mean(ratios)} of the better peer's in the geometric mean of {len(ratios)} networks (goal: 0.95).",
    ]


def _peers(results: Sequence[Result]) -> list[str]:
    lines = ["", *_table("Peer", "Networks", "Right", "Our latency, geometric mean", "Our conversion, geometric mean")]
    for peer, name in NAMES.items():
        made = [r.peers[peer] for r in results if peer in r.peers]
        if made:
            latency = _mean(_ratios(results, lambda r, peer=peer: r.ratio("latency_ms", peer)))  # type: ignore[misc]
            conversion = _mean(_ratios(results, lambda r, peer=peer: r.ratio("convert_s", peer)))  # type: ignore[misc]
            version = ", ".join(sorted({m.code for m in made}))
            lines.append(_row(f"{name} {version}", str(len(made)), str(sum(m.fine for m in made)), latency, conversion))
    return lines


def _missed(results: Sequence[Result]) -> list[str]:
    """Each network that misses a goal, with what it misses it by."""
    listed = [goal for goal in GOALS if goal.listed]
    rows = [
        _row(r.name, *(goal.shown(r) if goal.missed(r) else "" for goal in listed))
        for r in results
        if any(goal.missed(r) for goal in listed)
    ]
    words = (
        "By more than what is allowed for operators, names and noise. Operators and TRANSPOSEs are edgekit's against the better\n"
    )
    words += "peer's; the last two columns are conversion."
    return ["", "## Goals missed", "", words, "", *_table("Network", *(goal.column for goal in listed)), *rows] if rows else []


def _causes(results: Sequence[Result]) -> list[str]:
    """Why the peers have no right file, most frequent first."""
    counts: dict[str, Counter[str]] = {}
    for result in results:
        for peer, made in result.peers.items():
            if not made.fine:
                counts.setdefault(_cause(made), Counter())[peer] += 1
    order = sorted(counts, key=lambda cause: (-counts[cause].total(), cause))
    rows = [_row(cause, *(str(counts[cause][peer] or "") for peer in NAMES)) for cause in order]
    return ["", "## What the peers fail at", "", *_table("Why", *NAMES.values()), *rows] if rows else []


def _cause(made: Made) -> str:
    """The outcome and the first clause of the reason, without what is of one network alone."""
    if made.outcome in ("wrong", "timeout", "memory", "no source"):
        return {"wrong": "wrong numbers", "no source": "the exported graph is wrong"}.get(made.outcome, made.reason)
    text = re.sub(r"^no program to convert: ", "", made.reason).split(" · ")[0]
    text = re.sub(r"\s*\([\w.]+\.py:\d+\)$", "", text)
    return f"{made.outcome}: {re.sub(r'[0-9]{2,}', '…', text)[:120].strip()}"


def _collection(collection: str, title: str, results: Sequence[Result]) -> list[str]:
    if not results:
        return []
    peers = PEERS[collection]
    order = ", ".join(("edgekit", *(NAMES[peer] for peer in peers)))
    head = _table("Network", "Error", "onnxruntime", "Operators", "TRANSPOSE", "Size", "Convert s", "Latency ms", "Ratio")
    return ["", f"## {title}", "", f"In one cell: {order}.", "", *head, *(_network(r, peers) for r in results)]


def _network(result: Result, peers: Sequence[str]) -> str:
    ours, theirs = result.ours, [result.peers[peer] for peer in peers if peer in result.peers]
    made = [ours, *theirs]
    right = [m if m.fine else None for m in theirs]
    shares = [f"{share:.1%}" if (share := _of_weights(result, m)) else "–" for m in (ours, *right)]
    return _row(
        result.name.partition("/")[2],
        _number(ours.error) + ("" if ours.fine else f" ({ours.outcome})"),
        _number(result.ort_error),
        " / ".join(str(m.operators) if m is ours or m.fine else m.outcome for m in made),
        " / ".join(str(m.transposes) if m else "–" for m in (ours, *right)),
        f"{ours.bytes / 1e6:.2f} MB, {' / '.join(shares)}" if ours.bytes else "",
        " / ".join(f"{m.convert_s:.2f}" if m and m.convert_s else "–" for m in (ours, *right)),
        " / ".join(f"{m.latency_ms:.3g}" if m and m.latency_ms else "–" for m in (ours, *right)),
        " / ".join(f"{ratio:.3f}" if (ratio := result.ratio("latency_ms", peer)) else "–" for peer in result.peers),
    )


def _of_weights(result: Result, made: Made | None, fixed: int = 0) -> float | None:
    """The bytes of a file but for `fixed` of them, of those of the exported graph's constants."""
    return (made.bytes - fixed) / result.weight_bytes if made and made.bytes and result.weight_bytes else None


def _ratios(results: Iterable[Result], ratio: Callable[[Result], float | None]) -> list[float]:
    return [value for value in map(ratio, results) if value]


def _mean(ratios: Sequence[float]) -> str:
    """Geometric."""
    return f"{math.exp(sum(map(math.log, ratios)) / len(ratios)):.3f}" if ratios else "–"


def _table(*heads: str) -> list[str]:
    return [_row(*heads), _row(*("---" for _ in heads))]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"
