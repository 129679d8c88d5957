"""Conversions by one converter, in the environment that has it: run by bench_convert.py and zoo.py, never by hand.

    python convert_worker.py CONVERTER NETWORK_FOLDER OUTPUT.tflite {nhwc,keep} [--warm WARM_UP_FOLDER]
    python convert_worker.py CONVERTER --serve --warm WARM_UP_FOLDER

CONVERTER is edgekit, onnx2tf, litert-torch or tflite-converter. A network's folder holds model.onnx and, for PyTorch networks,
model.pt2, for Keras networks, model.keras. The first form converts one network and prints one JSON line: seconds and CPU seconds
of the conversion alone (imports and loading before it are not in it), and the process's peak resident bytes. With --warm, a small
network is converted first, so that what a converter imports or sets up on first use is not counted.

The second form imports the converter once, says its version, and answers requests, one JSON object a line: `network` and
`output` (paths), `inputs` and `outputs` (places of those to hold channels-last), `seconds` and `gigabytes` (limits). Each is
converted in a fork; the answer is such a line of figures, or `outcome` and `reason`.

Standard library only: the peers' environments have no edgekit.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from own_process import in_own_process


@dataclass(frozen=True)
class ChannelsLast:
    """The inputs and outputs, by place, that the file is to hold as N…C."""

    inputs: Sequence[int] = ()
    outputs: Sequence[int] = ()


PICTURE = ChannelsLast(inputs=(0,))
Prepare = Callable[[Path, Path, ChannelsLast], Callable[[], None]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("converter", choices=PREPARE)
    parser.add_argument("network", type=Path, nargs="?")
    parser.add_argument("output", type=Path, nargs="?")
    parser.add_argument("layout", choices=("nhwc", "keep"), nargs="?")
    parser.add_argument("--warm", type=Path)
    parser.add_argument("--serve", action="store_true")
    options = parser.parse_args()
    if options.serve:
        serve(options.converter, options.warm)
    else:
        layout = PICTURE if options.layout == "nhwc" else ChannelsLast()
        print(json.dumps(convert(options.converter, options.network, options.output, layout, options.warm)))


def convert(converter: str, network: Path, output: Path, layout: ChannelsLast, warm: Path | None) -> dict[str, float]:
    """Convert a network and return the figures."""
    prepare = PREPARE[converter]
    if warm:
        with tempfile.TemporaryDirectory() as scratch:
            prepare(warm, Path(scratch, "warm.tflite"), PICTURE)()
    run = prepare(network, output, layout)
    start, start_cpu = time.perf_counter(), time.process_time()
    run()
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": _peak_bytes()}


def serve(converter: str, warm: Path) -> None:
    """Answer requests from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a converter prints is no answer
    for module in IMPORTED[converter]:
        importlib.import_module(module)
    print(json.dumps({"version": importlib.metadata.version(DISTRIBUTION[converter])}), file=answers, flush=True)
    for line in sys.stdin:
        ask = json.loads(line)
        layout = ChannelsLast(ask["inputs"], ask["outputs"])
        ended = in_own_process(
            lambda ask=ask, layout=layout: convert(converter, Path(ask["network"]), Path(ask["output"]), layout, warm),
            ask["seconds"],
            ask["gigabytes"],
        )
        answer = {"outcome": ended[0], "reason": ended[1]} if isinstance(ended, tuple) else ended
        print(json.dumps(answer), file=answers, flush=True)


def tflite_converter(source: Path) -> Callable[[], bytes]:
    """TensorFlow's converter on a saved Keras model, which is loaded here and converted by the call."""
    import keras
    import tensorflow

    model = keras.models.load_model(source, compile=False)
    # A fixed batch of one, as edgekit's artifact has: with an open batch the converter adds operators that compute shapes.
    inputs = [tensorflow.TensorSpec((1, *tensor.shape[1:]), tensor.dtype, tensor.name) for tensor in model.inputs]

    def run() -> bytes:
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serve", lambda *tensors: model(list(tensors) if len(tensors) > 1 else tensors[0]), inputs)
        with tempfile.TemporaryDirectory() as folder:
            archive.write_out(folder, verbose=False)
            return tensorflow.lite.TFLiteConverter.from_saved_model(folder).convert()

    return run


def _peak_bytes() -> int:
    """The largest resident memory since this program started; ru_maxrss would begin with what its parent held."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _edgekit(network: Path, output: Path, layout: ChannelsLast) -> Callable[[], None]:
    from edgekit import litert

    kept = "nhwc" if layout.inputs else "keep"
    return lambda: (output.write_bytes(litert.compile(network / "model.onnx", input_layout=kept)), None)[1]


def _onnx2tf(network: Path, output: Path, layout: ChannelsLast) -> Callable[[], None]:
    from onnx2tf.onnx2tf import convert

    # It simplifies its input in place: it gets a copy, so that the others read what was exported. The copy lies in the caller's
    # folder, because a process that is stopped removes nothing.
    scratch = Path(tempfile.mkdtemp(dir=output.parent))
    shutil.copyfile(network / "model.onnx", scratch / "model.onnx")

    def run() -> None:
        # Its default: a channel-last float32 model, written together with a float16 one.
        convert(input_onnx_file_path=str(scratch / "model.onnx"), output_folder_path=str(scratch), non_verbose=True)
        shutil.copyfile(scratch / "model_float32.tflite", output)

    return run


def _litert_torch(network: Path, output: Path, layout: ChannelsLast) -> Callable[[], None]:
    import litert_torch
    import torch

    program = torch.export.load(network / "model.pt2")
    arguments, _ = program.example_inputs
    module = program.module()
    if layout.inputs or layout.outputs:
        module = litert_torch.to_channel_last_io(module, args=list(layout.inputs), outputs=list(layout.outputs))
        arguments = tuple(
            argument.permute(0, *range(2, argument.ndim), 1).contiguous() if place in layout.inputs else argument
            for place, argument in enumerate(arguments)
        )
    return lambda: litert_torch.convert(module, arguments).export(str(output))


def _tflite_converter(network: Path, output: Path, layout: ChannelsLast) -> Callable[[], None]:
    run = tflite_converter(network / "model.keras")
    return lambda: (output.write_bytes(run()), None)[1]


PREPARE: dict[str, Prepare] = {
    "edgekit": _edgekit,
    "onnx2tf": _onnx2tf,
    "litert-torch": _litert_torch,
    "tflite-converter": _tflite_converter,
}
# What lives through a fork. TensorFlow does not, and is imported by each conversion.
IMPORTED = {
    "edgekit": ("edgekit.litert",),
    "onnx2tf": ("onnx2tf.onnx2tf",),
    "litert-torch": ("litert_torch",),
    "tflite-converter": (),
}
DISTRIBUTION = {"edgekit": "edgekit", "onnx2tf": "onnx2tf", "litert-torch": "litert-torch", "tflite-converter": "tensorflow"}

if __name__ == "__main__":
    main()
