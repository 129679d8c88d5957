"""What source and artifacts are compared on: real data, or random inputs that certify nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.contract import Feeds, TensorSpec
from edgekit.errors import InputError
from edgekit.preprocess import Preprocess
from edgekit.quantize import Calibration, load_data
from edgekit.verify.verdict import Evidence

RANDOM_RUNS = 4
RANDOM_SEED = 0


@dataclass(frozen=True)
class Samples:
    """Feeds in the source's layout with what is known about them; `labels` holds one class per sample, or is None;
    `data` is where real ones come from."""

    feeds: Sequence[Feeds]
    evidence: Evidence
    labels: np.ndarray | None = None
    data: Calibration | None = None


def real_samples(
    data: str | Calibration,
    inputs: Sequence[TensorSpec],
    *,
    labels: str | None = None,
    preprocess: Preprocess | None = None,
    limit: int | None = None,
) -> Samples:
    """Read data, and labels beside them.

    Args:
        data: What `--data` takes, or data that are already read.
        inputs: The source's inputs.
        labels: What `--labels` takes; one class per sample of the whole set.
        preprocess: For pictures.
        limit: Use at most this many samples.

    Raises:
        InputError: Data or labels do not fit the model or each other.
    """
    calibration = data if isinstance(data, Calibration) else load_data(data, inputs, preprocess, limit=limit)
    classes = None
    if labels is not None:
        from edgekit.quantize import load_labels

        classes = load_labels(labels, calibration)
    samples = len(calibration.indices)
    evidence = Evidence(
        kind=calibration.kind,
        origin=_name(calibration.origin),
        sha256=calibration.sha256,
        runs=len(calibration.feeds),
        samples=samples,
        real=True,
        labeled=classes is not None,
    )
    return Samples(calibration.feeds, evidence, classes, calibration)


def random_samples(inputs: Sequence[TensorSpec], *, runs: int = RANDOM_RUNS, seed: int = RANDOM_SEED) -> Samples:
    """Inputs that need no data: they show that a graph is alive.

    Floats are uniform in [-1, 1). Integers are 0 or 1 and booleans either: valid as token ids, masks and indices of every model.
    A dynamic first axis becomes 1, any other dynamic axis 16.

    Raises:
        InputError: An input is neither a number nor a boolean.
    """
    generator = np.random.default_rng(seed)
    feeds = tuple({spec.name: _random(spec, generator) for spec in inputs} for _ in range(runs))
    digest = hashlib.sha256()
    for feed in feeds:
        for name, array in feed.items():
            digest.update(f"{name}:{array.dtype}:{array.shape}".encode() + array.tobytes())
    evidence = Evidence("random", f"seed {seed}", digest.hexdigest(), runs, runs, real=False, labeled=False)
    return Samples(feeds, evidence)


def _random(spec: TensorSpec, generator: np.random.Generator) -> np.ndarray:
    shape = tuple((1 if axis == 0 else 16) if isinstance(d, str) else d for axis, d in enumerate(spec.shape))
    dtype = np.dtype(spec.dtype)
    if np.issubdtype(dtype, np.floating):
        return np.asarray(generator.uniform(-1.0, 1.0, shape)).astype(dtype)
    if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
        return np.asarray(generator.integers(0, 2, shape)).astype(dtype)
    raise InputError(f"there are no random inputs for {spec.name!r} of dtype {spec.dtype}", fix="give real inputs with --data")


def _name(origin: str) -> str:
    """The last part of a path: where somebody's home folder is does not belong in a manifest."""
    return origin.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
