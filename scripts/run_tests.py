"""Makes the environment and passes the tests: `python3.11 scripts/run_tests.py [pytest's arguments]`."""

from __future__ import annotations

import os
import subprocess
import sys

from environment import ROOT, prepare


def main() -> int:
    programs = prepare()
    # The tests run side by side; frameworks that each take all cores as well would only wait for each other.
    environment = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    arguments = sys.argv[1:] or ["--numprocesses=auto", "--dist=loadfile", "--quiet"]
    return subprocess.run([programs / "python", "-m", "pytest", *arguments], cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
