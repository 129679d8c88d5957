"""What was seen of a graph's values, kept between runs: calibration is asked for again with each change of a recipe.

In `$EDGEKIT_CACHE`, else `$XDG_CACHE_HOME/edgekit`, else `~/.cache/edgekit`, in the folder `calibration`: one file per graph,
data and number of samples. The newest `KEPT` files stay. A folder that cannot be written is done without.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.quantize.observe import Observed, observe

if TYPE_CHECKING:
    import onnx

    from edgekit.quantize.data import Calibration

KEPT = 32
# Changes whenever what is observed does.
_VERSION = 1


def observed(
    model: onnx.ModelProto, calibration: Calibration, samples: int, tell: Callable[[int, int], None] | None = None
) -> dict[str, Observed]:
    """`observe` on at most `samples` of the calibration's feeds, or what it found the last time."""
    feeds = calibration.subset(samples)
    digest = hashlib.sha256(f"{_VERSION} {calibration.sha256} {len(feeds)} ".encode())
    digest.update(model.SerializeToString(deterministic=True))
    path = folder() / f"{digest.hexdigest()[:32]}.npz"
    found = _read(path) if calibration.sha256 else None
    if found is None:
        found = observe(model, feeds, tell=tell)
        if calibration.sha256:
            _write(path, found)
    return found


def folder() -> Path:
    """Where the files are."""
    if "EDGEKIT_CACHE" in os.environ:
        return Path(os.environ["EDGEKIT_CACHE"]) / "calibration"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit" / "calibration"


def _read(path: Path) -> dict[str, Observed] | None:
    """What is in a file; None where there is none, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names, numbers, counts = arrays["names"], arrays["numbers"], arrays["counts"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return {str(name): Observed.of_arrays(row, each) for name, row, each in zip(names, numbers, counts, strict=True)}


def _write(path: Path, found: dict[str, Observed]) -> None:
    rows = [value.to_arrays() for value in found.values()]
    if not rows:
        return
    content = io.BytesIO()
    numbers, counts = (np.stack(part) for part in zip(*rows, strict=True))
    np.savez_compressed(content, names=np.array(list(found)), numbers=numbers, counts=counts)
    unfinished = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content.getvalue())
        unfinished.replace(path)
        kept = sorted(path.parent.glob("*.npz"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in kept[KEPT:]:
            file.unlink(missing_ok=True)
    except OSError:
        unfinished.unlink(missing_ok=True)
