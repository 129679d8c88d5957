"""ONNX -> TFLite by edgekit, onnx2tf and litert-torch, side by side in one run.

    .venv/bin/python scripts/bench_convert.py --setup      # once: the peers' environments (Python 3.12 for onnx2tf)
    .venv/bin/python scripts/bench_convert.py --write      # measures, prints, and writes docs/benchmarks.md
    .venv/bin/python scripts/bench_convert.py --only resnet18 --rounds 1

Every conversion is a process of its own, on one thread; the converters take turns. Two times are reported: the conversion alone
in a process that is warm (everything imported, a small network converted before) and the whole process from start to file.
onnx2tf and edgekit read the same ONNX file; litert-torch reads the same network as an exported PyTorch program.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import tflite_facts
from bench_networks import NETWORKS, WARM_UP, Network
from real_models.registry import cache_folder

ROOT = Path(__file__).resolve().parent.parent
WORKER = ROOT / "scripts" / "convert_worker.py"
OURS = "edgekit"
# Packages and the Python that they install on. timm and torchvision go beside edgekit, for the networks.
PEERS = {
    "onnx2tf": ("python3.12", ("onnx2tf==2.6.7",)),
    "litert-torch": ("python3.11", ("torch==2.13.0", "litert-torch==0.10.0")),
}
NETWORK_PACKAGES = ("timm==1.0.31", "torchvision==0.28.0")
TIMEOUT = 900


@dataclass(frozen=True)
class Conversion:
    """One converter on one network: medians over the rounds. Times in seconds, memory and size in bytes, latency in ms.

    `failure` is why there is no result; the other fields are then None.
    """

    network: str
    converter: str
    failure: str | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    process_seconds: float | None = None
    peak_bytes: int | None = None
    operators: int | None = None
    transposes: int | None = None
    file_bytes: int | None = None
    relative_error: float | None = None
    latency_ms: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setup", action="store_true", help="make the peers' environments and stop")
    parser.add_argument("--only", action="append", metavar="NETWORK", help=", ".join(network.name for network in NETWORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    for peer in PEERS:
        parser.add_argument(f"--{peer}-python", type=Path, help=f"an environment that has {peer} already")
    options = parser.parse_args()
    if options.setup:
        set_up()
        return
    pythons = {OURS: Path(sys.executable)}
    for peer in PEERS:
        pythons[peer] = getattr(options, f"{peer.replace('-', '_')}_python") or _environment(peer) / "bin" / "python"
    chosen = [network for network in NETWORKS if not options.only or network.name in options.only]
    conversions: list[Conversion] = []
    for network in chosen:
        print(f"{network.name} …", file=sys.stderr, flush=True)
        conversions += measure(network, pythons, options.rounds)
        if options.json:
            options.json.write_text(json.dumps([asdict(conversion) for conversion in conversions], indent=2) + "\n")
    document = "\n".join(_document(conversions, options.rounds))
    print(document)
    if options.write:
        (ROOT / "docs" / "benchmarks.md").write_text(document + "\n")


def set_up() -> None:
    """Makes each peer's environment in the cache, and adds to this one what the networks need."""
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *NETWORK_PACKAGES], check=True)
    for peer, (python, packages) in PEERS.items():
        target = _environment(peer)
        if target.exists():
            continue
        if not shutil.which(python) or subprocess.run([python, "--version"], capture_output=True).returncode:
            print(f"{peer} is left out: it needs {python}, which is not on PATH", file=sys.stderr)
            continue
        subprocess.run([python, "-m", "venv", target], check=True)
        done = subprocess.run([target / "bin" / "pip", "install", "--quiet", *packages])
        if done.returncode:
            shutil.rmtree(target)
            print(f"{peer} is left out: pip could not install it", file=sys.stderr)


def measure(network: Network, pythons: dict[str, Path], rounds: int) -> list[Conversion]:
    """All converters on one network, taking turns."""
    with tempfile.TemporaryDirectory(prefix="edgekit-bench-") as scratch:
        folder, warm = Path(scratch, "network"), Path(scratch, "warm")
        failure = _write_network(network.name, folder) or _write_network(WARM_UP, warm)
        if failure:
            return [Conversion(network.name, OURS, failure=failure)]
        runs: dict[str, list[tuple[dict[str, float], float]]] = {converter: [] for converter in pythons}
        failures: dict[str, str] = {}
        outputs = {converter: Path(scratch, f"{converter}.tflite") for converter in pythons}
        for _ in range(rounds):
            for converter, python in pythons.items():
                if converter == "litert-torch" and not (folder / "model.pt2").exists():
                    failures[converter] = "takes PyTorch alone"
                if converter in failures:
                    continue
                command = [str(python), str(WORKER), converter, str(folder), str(outputs[converter]), network.layout]
                try:
                    whole, process_seconds = _run(command)
                    alone, _ = _run([*command, "--warm", str(warm)])
                    runs[converter].append(({**alone, "peak_bytes": whole["peak_bytes"]}, process_seconds))
                except ConversionFailed as error:
                    failures[converter] = str(error)
        done = [converter for converter in pythons if converter not in failures]
        latencies = dict(zip(done, tflite_facts.latencies([outputs[converter] for converter in done]), strict=True))
        return [
            Conversion(network.name, converter, failure=failures[converter])
            if converter in failures
            else _summary(network, converter, runs[converter], outputs[converter], folder / "model.onnx", latencies[converter])
            for converter in pythons
        ]


class ConversionFailed(Exception):
    """A converter, or its environment, did not deliver; says in its own last words why."""


def _run(command: list[str]) -> tuple[dict[str, float], float]:
    """The worker's figures, and the seconds from the process's start to its end."""
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=one_thread, timeout=TIMEOUT)
    except FileNotFoundError:
        raise ConversionFailed("not installed (--setup)") from None
    except subprocess.TimeoutExpired:
        raise ConversionFailed(f"no result within {TIMEOUT} s") from None
    seconds = time.perf_counter() - start
    if done.returncode:
        raise ConversionFailed((done.stderr.strip().splitlines() or ["no message"])[-1][:200])
    return json.loads(done.stdout.strip().splitlines()[-1]), seconds


def _summary(
    network: Network, converter: str, runs: list[tuple[dict[str, float], float]], output: Path, onnx: Path, latency: float
) -> Conversion:
    operators = tflite_facts.operators(output)
    return Conversion(
        network.name,
        converter,
        seconds=statistics.median(figures["seconds"] for figures, _ in runs),
        cpu_seconds=statistics.median(figures["cpu_seconds"] for figures, _ in runs),
        process_seconds=statistics.median(seconds for _, seconds in runs),
        peak_bytes=int(statistics.median(figures["peak_bytes"] for figures, _ in runs)),
        operators=sum(operators.values()),
        transposes=operators["TRANSPOSE"],
        file_bytes=output.stat().st_size,
        relative_error=tflite_facts.relative_error(output, onnx),
        latency_ms=latency,
    )


def _write_network(name: str, folder: Path) -> str | None:
    """Writes the network's files in a process of its own; why it could not, or None."""
    folder.mkdir()
    command = [sys.executable, str(ROOT / "scripts" / "bench_networks.py"), name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stderr.strip().splitlines() or ["no message"])[-1] if done.returncode else None


def _environment(peer: str) -> Path:
    return cache_folder() / "environments" / peer


def _document(conversions: Iterable[Conversion], rounds: int) -> list[str]:
    lines = [
        "# Conversion benchmark",
        "",
        "Written by `scripts/bench_convert.py --write`; do not edit.",
        "",
        f"One run on {_processor()}, one thread per process, medians of {rounds} rounds in which the converters take turns.",
        "*Convert* is the conversion alone in a warm process (CPU time in brackets), *process* the time from starting Python",
        "to the file, *peak* the largest resident memory of that process. *Latency* is the CPU time of one inference on one",
        "thread (XNNPACK), all artifacts of a network taking turns. *Error* is max |a - b| / max |a| against onnxruntime on",
        "the ONNX file. onnx2tf writes its float16 model in the same call. Bold, in brackets: edgekit is better by that factor",
        "(CPU times are compared for the conversion, because they do not feel what else a machine does).",
        "",
        "| Network | Converter | Convert s | Process s | Peak MB | Operators | Transposes | KB | Error | Latency ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    ours: Conversion | None = None
    for one in conversions:
        ours = one if one.converter == OURS else ours
        lines.append(_row(one, ours))
    return lines


def _row(one: Conversion, ours: Conversion | None) -> str:
    if one.failure:
        return f"| {one.network} | {one.converter} | {one.failure.replace('|', '/')} | | | | | | | |"
    assert one.seconds is not None
    assert one.cpu_seconds is not None
    assert one.process_seconds is not None
    assert one.peak_bytes is not None
    assert one.file_bytes is not None
    assert one.latency_ms is not None

    def ratio(theirs: float, field: str) -> str:
        mine = getattr(ours, field, None)
        return f" (**{theirs / mine:.2g}x**)" if mine and one.converter != OURS else ""

    cells = (
        one.network,
        one.converter,
        f"{one.seconds:.2f} [{one.cpu_seconds:.2f}]" + ratio(one.cpu_seconds, "cpu_seconds"),
        f"{one.process_seconds:.1f}" + ratio(one.process_seconds, "process_seconds"),
        f"{one.peak_bytes / 1e6:.0f}" + ratio(one.peak_bytes, "peak_bytes"),
        f"{one.operators}",
        f"{one.transposes}",
        f"{one.file_bytes / 1e3:.0f}" + ratio(one.file_bytes, "file_bytes"),
        f"{one.relative_error:.1e}",
        f"{one.latency_ms:.2f}" + ratio(one.latency_ms, "latency_ms"),
    )
    return "| " + " | ".join(cells) + " |"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    names = [line for line in information.read_text().splitlines() if "model name" in line] if information.exists() else []
    return names[0].partition(":")[2].strip() if names else "an unnamed processor"


if __name__ == "__main__":
    main()
