"""Makes the environment and exports a sample for Android: `python3.11 scripts/try_sample.py [keras|torch|onnx]`.

A classifier of handwritten digits becomes a package of TFLite and ONNX Runtime artifacts in three precisions, calibrated on 200
real scans and compared with its source on 600 others.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys

from environment import ROOT, prepare

SOURCES = {
    "keras": ("samples/digits.keras", "samples/digits"),
    "torch": ("samples/digits_torch.py:digits", "samples/digits_nchw"),
    "onnx": ("samples/digits.onnx", "samples/digits_nchw"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("framework", nargs="?", choices=SOURCES, default="keras")
    framework = parser.parse_args().framework
    source, data = SOURCES[framework]
    command = f"""edgekit export {source} --target android --precision fp32,fp16,int8
        --calibration {data}_calibration.npz --data {data}_test.npz --labels samples/digits_labels.npy
        --output out/digits-{framework}"""
    if framework == "torch":
        command += " --input image=1x1x8x8"
    words = shlex.split(command)
    programs = prepare()
    print("$ " + shlex.join(words), flush=True)
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    return subprocess.run([programs / words[0], *words[1:]], cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
