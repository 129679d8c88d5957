"""What other converters make of a network of the zoo: onnx2tf, and litert-torch or TensorFlow's converter.

Each peer is a process in an environment of its own (`bench_convert.py --setup`) that is asked for one network after the other.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import peer_models
import tflite_facts
from bench_networks import SAMPLES, WARM_UP
from own_process import in_own_process
from zoo_results import Made, judged
from zoo_worker import Checked, no_program, program, values

PEERS = {
    "onnx": ("onnx2tf",),
    "transformers": ("onnx2tf", "litert-torch"),
    "torchvision": ("onnx2tf", "litert-torch"),
    "timm": ("onnx2tf", "litert-torch"),
    "keras": ("onnx2tf", "tflite-converter"),
}
"""Who converts a collection's networks. Nothing but edgekit and onnx2tf takes an ONNX file."""
SECONDS = 300.0
KEPT_BYTES = 2**27
"""Up to which size a peer's file stays in the cache, for the next measurement of latency."""


class Peers:
    """The peers' processes, each started when it is first asked for.

    Args:
        gigabytes: Of resident memory, for one conversion.

    Attributes:
        warm: The folder of a small network, for what a converter does at its first time.
    """

    def __init__(self, gigabytes: float) -> None:
        self._limits = {"seconds": SECONDS, "gigabytes": gigabytes}
        self._started: dict[str, tuple[subprocess.Popen[str], str]] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="edgekit-zoo-")
        self.warm = Path(self._scratch.name, "warm")

    def __enter__(self) -> Peers:
        self.warm.mkdir()
        command = [sys.executable, str(Path(__file__).with_name("bench_networks.py")), WARM_UP, str(self.warm)]
        subprocess.run(command, check=True, capture_output=True)
        shutil.copyfile(SAMPLES / "digits.keras", self.warm / "model.keras")
        return self

    def __exit__(self, *_: object) -> None:
        for process, _version in self._started.values():
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
        self._scratch.cleanup()

    def lacks_program(self, collection: str, folder: Path, known: Mapping[str, Made]) -> bool:
        """A peer has to be asked, and what it reads is neither in the folder nor known not to exist."""
        asked = [peer for peer in PEERS[collection] if peer != "onnx2tf" and not self._settled(peer, folder, known.get(peer))]
        return bool(asked) and not program(folder) and not no_program(folder)

    def make(
        self, collection: str, folder: Path, checked: Checked, ort_error: float | None, known: Mapping[str, Made]
    ) -> dict[str, Made]:
        """What each peer makes of the network exported to `folder`; its files are left there as PEER.tflite.

        `known` are earlier results: a peer that failed at its present version, or whose file is still there, is not asked again.
        """
        made = {}
        for peer in PEERS[collection]:
            now = known.get(peer)
            made[peer] = now if now and self._settled(peer, folder, now) else self._make(peer, folder, checked, ort_error)
        return made

    def _settled(self, peer: str, folder: Path, known: Made | None) -> bool:
        if known is None or known.code != self._start(peer)[1]:
            return False
        return not known.fine or _file(folder, peer).exists()

    def _make(self, peer: str, folder: Path, checked: Checked, ort_error: float | None) -> Made:
        process, version = self._start(peer)
        if peer != "onnx2tf" and not program(folder):
            return Made("no program", no_program(folder), version)
        with tempfile.TemporaryDirectory(prefix="edgekit-zoo-") as scratch:
            output = Path(scratch, "made.tflite")
            answer = self._ask(process, folder, output, checked)
            if "outcome" in answer:
                return Made(answer["outcome"], answer["reason"], version)
            made = Made("", code=version, convert_s=answer["cpu_seconds"], bytes=output.stat().st_size)
            ran = in_own_process(lambda: _run(made, output, folder, ort_error), SECONDS, self._limits["gigabytes"])
            if isinstance(ran, tuple):
                return replace(made, outcome="does not run" if ran[0] == "fault" else ran[0], reason=ran[1])
            if ran.fine:
                shutil.move(output, _file(folder, peer))
            return ran

    def _ask(self, process: subprocess.Popen[str], network: Path, output: Path, checked: Checked) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        ask = {
            "network": str(network),
            "output": str(output),
            "inputs": checked.inputs,
            "outputs": checked.outputs,
            **self._limits,
        }
        print(json.dumps(ask), file=process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer

    def _start(self, peer: str) -> tuple[subprocess.Popen[str], str]:
        """The peer's process, and its version."""
        if peer not in self._started:
            python = sys.executable if peer == "tflite-converter" else str(peer_models.peer_python(peer))
            if not Path(python).exists():
                sys.exit(f"{peer} is not installed: run scripts/bench_convert.py --setup, or leave the peers out with --no-peers")
            one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
            command = [python, str(peer_models.WORKER), peer, "--serve", "--warm", str(self.warm)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=one_thread
            )
            assert process.stdout is not None
            self._started[peer] = process, json.loads(process.stdout.readline())["version"]
        return self._started[peer]


def latencies(folder: Path, ours: Path, peers: Mapping[str, Made], seconds: float, least: int) -> list[float]:
    """Milliseconds of edgekit's file and of each peer's that is right, in that order; the files take turns."""
    feeds, _ = values(folder)
    files = [ours, *(_file(folder, peer) for peer, made in peers.items() if made.fine)]
    return tflite_facts.latencies(files, seconds, least, feeds)


def tidy(folder: Path, peers: Iterable[str]) -> None:
    """Remove what no later run needs, and the peers' files that are too large to be kept."""
    read = program(folder)
    if read:
        read.unlink()
    for file in (_file(folder, peer) for peer in peers):
        if file.exists() and file.stat().st_size > KEPT_BYTES:
            file.unlink()


def _file(folder: Path, peer: str) -> Path:
    return folder / f"{peer}.tflite"


def _run(made: Made, output: Path, folder: Path, ort_error: float | None) -> Made:
    operators = tflite_facts.operators(output)
    made = replace(made, operators=sum(operators.values()), transposes=operators.get("TRANSPOSE", 0))
    return judged(made, tflite_facts.error(output, *values(folder)), ort_error)
