"""Makes `.venv` in the checkout: edgekit with all extras, at the versions of constraints.txt.

    python3.11 scripts/environment.py

A second call returns at once, until pyproject.toml or constraints.txt changes. Standard library only, because nothing is
installed yet where it runs.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
STAMP = ENVIRONMENT / "edgekit-installed"
OLDEST = (3, 11)


def prepare() -> Path:
    """The environment's folder of programs, after the environment has been made or brought up to date."""
    if sys.version_info < OLDEST:
        sys.exit(f"edgekit needs Python 3.11 or newer; this is {sys.version.split()[0]}. Run the script with python3.11.")
    programs = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
    wanted = _fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted and (programs / "edgekit").exists():
        return programs
    print(
        f"Making {ENVIRONMENT.relative_to(ROOT)} with TensorFlow, PyTorch and ONNX Runtime: a few minutes, once.", file=sys.stderr
    )
    # clear: a half-made environment of a killed run is not worth repairing.
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    constraints = ("--constraint", str(ROOT / "constraints.txt"))
    install = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *constraints]
    done = subprocess.run([*install, "--editable", ".[all]"], cwd=ROOT)
    if done.returncode:
        sys.exit("pip could not install edgekit's dependencies; its message is above")
    STAMP.write_text(wanted)
    return programs


def _fingerprint() -> str:
    """What decides the environment's contents: the Python, what is asked for, and the versions allowed."""
    parts = [sys.version.encode(), *((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


if __name__ == "__main__":
    prepare()
