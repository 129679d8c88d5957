"""Builds the wheel, installs it alone into an empty environment, and uses it there: `.venv/bin/python scripts/check_wheel.py`.

The environment has edgekit's own dependencies, at the versions of constraints.txt, and neither TensorFlow nor PyTorch. It works
in a folder outside the checkout, so that only what the wheel carries is found.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"
TARGETS = {"android", "raspberry-pi", "linux"}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="edgekit-wheel-") as scratch:
        folder = Path(scratch)
        pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
        _run(folder, sys.executable, *pip, "wheel", str(ROOT), "--no-deps", "--wheel-dir", str(folder))
        wheel = next(folder.glob("edgekit-*.whl"))
        print(f"built {wheel.name}, {wheel.stat().st_size / 1e3:.0f} kB")

        venv.create(folder / "empty", with_pip=True)
        programs = folder / "empty" / ("Scripts" if os.name == "nt" else "bin")
        _run(folder, programs / "python", *pip, "install", "--constraint", str(ROOT / "constraints.txt"), str(wheel))
        installed = json.loads(_run(folder, programs / "python", "-m", "pip", "list", "--format", "json"))
        frameworks = {"tensorflow", "torch", "keras"} & {package["name"].lower() for package in installed}
        assert not frameworks, f"the wheel brought {frameworks}"

        listed = _run(folder, programs / "edgekit", "targets")
        missing = {target for target in TARGETS if target not in listed}
        assert not missing, f"`edgekit targets` does not list {missing}:\n{listed}"
        print(listed)

        data = SAMPLES / "digits_nchw"
        options = ["--target", "android", "--precision", "fp32,fp16,int8", "--output", "package"]
        options += ["--calibration", f"{data}_calibration.npz", "--data", f"{data}_test.npz"]
        print(_run(folder, programs / "python", "-m", "edgekit", "export", SAMPLES / "digits.onnx", *options))
        print(_run(folder, programs / "edgekit", "verify", "package"))
    return 0


def _run(folder: Path, *command: str | Path) -> str:
    """What the command prints; ends this script with the command's own complaint when it fails."""
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
