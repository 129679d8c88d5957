"""One conversion by one converter, in the environment that has it: run by bench_convert.py, never by hand.

    python convert_worker.py {edgekit,onnx2tf,litert-torch} NETWORK_FOLDER OUTPUT.tflite {nhwc,keep} [--warm WARM_UP_FOLDER]

A network's folder holds model.onnx and, for PyTorch networks, model.pt2. Prints one JSON line: seconds and CPU seconds of the
conversion alone (imports and loading before it are not in it), and the process's peak resident bytes. With --warm, a small
network is converted first, so that what a converter imports or sets up on first use is not counted. Standard library only:
the peers' environments have no edgekit.
"""

from __future__ import annotations

import argparse
import atexit
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("converter", choices=PREPARE)
    parser.add_argument("network", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("layout", choices=("nhwc", "keep"))
    parser.add_argument("--warm", type=Path)
    options = parser.parse_args()
    prepare = PREPARE[options.converter]
    if options.warm:
        with tempfile.TemporaryDirectory() as scratch:
            prepare(options.warm, Path(scratch, "warm.tflite"), "nhwc")()
    convert = prepare(options.network, options.output, options.layout)
    start, start_cpu = time.perf_counter(), time.process_time()
    convert()
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": _peak_bytes()}))


def _peak_bytes() -> int:
    """The largest resident memory since this program started; ru_maxrss would begin with what its parent held."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _edgekit(network: Path, output: Path, layout: str) -> Callable[[], None]:
    from edgekit import litert

    return lambda: (output.write_bytes(litert.compile(network / "model.onnx", input_layout=layout)), None)[1]


def _onnx2tf(network: Path, output: Path, layout: str) -> Callable[[], None]:
    from onnx2tf.onnx2tf import convert

    # It simplifies its input in place: it gets a copy, so that the others read what was exported.
    scratch = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, scratch)
    shutil.copyfile(network / "model.onnx", scratch / "model.onnx")

    def run() -> None:
        # Its default: a channel-last float32 model, written together with a float16 one.
        convert(input_onnx_file_path=str(scratch / "model.onnx"), output_folder_path=str(scratch), non_verbose=True)
        shutil.copyfile(scratch / "model_float32.tflite", output)

    return run


def _litert_torch(network: Path, output: Path, layout: str) -> Callable[[], None]:
    import litert_torch
    import torch

    program = torch.export.load(network / "model.pt2")
    arguments, _ = program.example_inputs
    module = program.module()
    if layout == "nhwc":
        module = litert_torch.to_channel_last_io(module, args=[0])
        arguments = (arguments[0].permute(0, 2, 3, 1).contiguous(), *arguments[1:])
    return lambda: litert_torch.convert(module, arguments).export(str(output))


PREPARE = {"edgekit": _edgekit, "onnx2tf": _onnx2tf, "litert-torch": _litert_torch}

if __name__ == "__main__":
    main()
