"""Makes `.venv` in the checkout: edgekit with all extras, at the versions of constraints.txt.

    python3.11 scripts/environment.py

A second call returns at once, until pyproject.toml or constraints.txt changes. Standard library only, because nothing is
installed yet where it runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
STAMP = ENVIRONMENT / "edgekit-installed.json"
OLDEST = (3, 11)


def prepare() -> Path:
    """The environment's folder of programs, after the environment has been made or brought up to date."""
    if sys.version_info < OLDEST:
        sys.exit(f"edgekit needs Python 3.11 or newer; this is {sys.version.split()[0]}. Run the script with python3.11.")
    programs = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
    wanted = {"python": sys.version, "requirements": _requirements()}
    installed = json.loads(STAMP.read_text()) if STAMP.exists() else {}
    if installed == wanted:
        return programs
    print(
        f"Making {ENVIRONMENT.relative_to(ROOT)} with TensorFlow, PyTorch and ONNX Runtime: a few minutes, once.", file=sys.stderr
    )
    STAMP.unlink(missing_ok=True)
    # Without a stamp it is what a killed run left, and not worth repairing; one that was complete is brought up to date.
    venv.create(ENVIRONMENT, with_pip=True, clear=installed.get("python") != sys.version)
    constraints = ("--constraint", str(ROOT / "constraints.txt"))
    install = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *constraints]
    done = subprocess.run([*install, "--editable", ".[all]"], cwd=ROOT)
    if done.returncode:
        sys.exit("pip could not install edgekit's dependencies; its message is above")
    STAMP.write_text(json.dumps(wanted))
    return programs


def _requirements() -> str:
    """A digest of what is asked for and of the versions allowed."""
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


if __name__ == "__main__":
    prepare()
