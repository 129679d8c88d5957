"""What the zoo knows of each network, and the file that holds it: one line of JSON for each, in the order of the zoo."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "zoo.jsonl"

TOLERANCE = 1e-4
"""The largest relative error, max |a - b| / max |a|, of an FP32 artifact."""
CONDITION = 4.0
"""A network counts as ill-conditioned where onnxruntime is off as well, by at least this fraction (1/CONDITION) of our error."""
BROKEN = 1e-2
"""From which error on, in onnxruntime, the exported graph is not the network."""
FINE = ("exact", "ill-conditioned")
OUTCOMES = (*FINE, "wrong", "fault", "crash", "timeout", "memory", "refused", "no source")
"""exact: within TOLERANCE; fault: an exception that is none of edgekit's; no source: the framework fails or does not export."""


@dataclass(frozen=True)
class Made:
    """A TFLite file of a network, by edgekit or by a peer. Figures are None where it did not get so far.

    Args:
        outcome: One of OUTCOMES.
        reason: Why the outcome is not `exact`.
        code: Which converter: the last commit of edgekit's code (with + where it was changed since), or a peer's version.
        error: Against the source framework, the worst output.
        operators, transposes: Of the file, as written.
        bytes: Of the file.
        convert_s: CPU seconds of the conversion in a warm process, from the network's file to the TFLite file.
        latency_ms: Median CPU time of one inference on one thread, of turns taken with the network's other files.
    """

    outcome: str
    reason: str = ""
    code: str = ""
    error: float | None = None
    operators: int | None = None
    transposes: int | None = None
    bytes: int | None = None
    convert_s: float | None = None
    latency_ms: float | None = None

    @property
    def fine(self) -> bool:
        return self.outcome in FINE


@dataclass(frozen=True)
class Result:
    """One network.

    Args:
        ours: What became of it in edgekit.
        nodes, weight_bytes: Of the exported graph, and of its constants.
        ort_error: Of onnxruntime on the exported graph, as `Made.error`.
        peers: The same by other converters; empty where they were not asked.
    """

    name: str
    ours: Made
    nodes: int | None = None
    weight_bytes: int | None = None
    ort_error: float | None = None
    peers: Mapping[str, Made] = field(default_factory=dict)

    @property
    def collection(self) -> str:
        return self.name.partition("/")[0]

    def better(self, figure: str) -> float | None:
        """The least of a figure among the peers whose file is right; None if there is none."""
        figures = [getattr(peer, figure) for peer in self.peers.values() if peer.fine and getattr(peer, figure) is not None]
        return min(figures, default=None)

    def ratio(self, figure: str, peer: str | None = None) -> float | None:
        """Our figure, divided by that of a peer or else by the better peer's."""
        theirs = self.better(figure) if peer is None else replace(self, peers=_only(self.peers, peer)).better(figure)
        mine = getattr(self.ours, figure) if self.ours.fine else None
        return mine / theirs if mine is not None and theirs else None


def judged(made: Made, error: float, ort_error: float | None) -> Made:
    """The outcome of a file that runs, by its error and by that of onnxruntime on the same graph."""
    made = replace(made, error=error)
    if error <= TOLERANCE:
        return replace(made, outcome="exact", reason="")
    reason = f"off by {error:.1e}"
    if ort_error is None:
        return replace(made, outcome="wrong", reason=reason)
    if ort_error > BROKEN:
        return replace(made, outcome="no source", reason=f"the exported graph is off by {ort_error:.1e} in onnxruntime as well")
    outcome = "ill-conditioned" if error <= CONDITION * ort_error else "wrong"
    return replace(made, outcome=outcome, reason=f"{reason}, onnxruntime by {ort_error:.1e}")


def load(path: Path = RESULTS) -> dict[str, Result]:
    """All results by name."""
    lines = path.read_text().splitlines() if path.exists() else []
    results = [_read(json.loads(line)) for line in lines]
    return {result.name: result for result in results}


def save(result: Result, order: Sequence[str], path: Path = RESULTS) -> None:
    """Put one result into the file in place of the network's last, under a lock: several runs may write."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        known = load(path) | {result.name: result}
        _write((known[name] for name in order if name in known), path)
    finally:
        os.close(folder)


def edgekit_code() -> str:
    """The last commit that changed edgekit/, with + where files of it differ from that."""
    commit = _git("log", "-1", "--format=%h", "--abbrev=10", "--", "edgekit")
    return commit + ("+" if _git("status", "--porcelain", "--", "edgekit") else "")


def _write(results: Iterable[Result], path: Path) -> None:
    partial = path.with_suffix(".part")
    partial.write_text("".join(json.dumps(_written(result)) + "\n" for result in results))
    partial.replace(path)


def _read(line: dict[str, Any]) -> Result:
    peers = {name: Made(**facts) for name, facts in line.pop("peers", {}).items()}
    return Result(ours=Made(**line.pop("ours")), peers=peers, **line)


def _written(value: Any) -> Any:
    """As JSON: without what is empty, and with numbers as precise as they are."""
    if isinstance(value, Result):
        return _written(asdict(value))
    if isinstance(value, dict):
        return {key: _written(item) for key, item in value.items() if item not in (None, "", {})}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _only(peers: Mapping[str, Made], name: str) -> dict[str, Made]:
    return {name: peers[name]} if name in peers else {}


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
