"""Is an artifact still the same model? Metrics, gates and verdicts (docs/verify.md)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit.contract import Feeds, Results
    from edgekit.export import Progress
    from edgekit.package import Package
    from edgekit.sources import Source
    from edgekit.verify.samples import Samples
    from edgekit.verify.verdict import Verification

__all__ = ["verify"]


def verify(
    package: str | os.PathLike[str] | Package,
    *,
    data: str | None = None,
    labels: str | None = None,
    source: str | os.PathLike[str] | None = None,
    gates: Sequence[str] = (),
    samples: int | None = None,
    trust_source: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Run a package's artifacts on this machine and compare them with the source again.

    Without `data`, on the package's golden vectors: neither the source, its framework nor the dataset is needed. The gates are
    those of the export, with `gates` over them; those on shares of samples do not judge a handful of golden vectors.

    Args:
        package: The folder, or a loaded package. Every file is checked against the manifest first.
        data: Other real inputs, which the source must be run on: `source` is needed.
        labels: The class of each sample of `data`.
        source: The model that the package was made of.
        gates: `int8.cosine>=0.99`.
        samples: Use at most this many samples of `data`.
        trust_source: Allow code that the source carries to run.
        progress: Told what is being done.

    Raises:
        PackageError: The package is damaged.
        InputError: `source` is another model than the package's, or `data` is given without it.
    """
    # Inside the function, because a package's manifest holds verdicts: edgekit.package imports edgekit.verify.
    from edgekit.package import Package, load_package
    from edgekit.runtimes import Runner
    from edgekit.verify.compare import compare
    from edgekit.verify.gates import Override
    from edgekit.verify.verdict import Verification, judge

    package = load_package(package.path if isinstance(package, Package) else package)
    precisions = tuple(dict.fromkeys(artifact.precision for artifact in package.artifacts))
    limits = package.verification.gates.overridden([Override.parse(gate) for gate in gates], precisions)
    chosen, reference = _reference(package, data, labels, source, samples, trust_source)
    runners = {a.file: Runner(package.path / a.file, a.format, a.inputs, a.outputs) for a in package.artifacts}

    def told(run: int, feeds: Feeds) -> Results:
        if progress:
            progress("comparing with the source", run, chosen.evidence.runs)
        return reference(run, feeds)

    metrics = compare(told, runners, chosen.feeds, [spec.name for spec in package.outputs], chosen.labels)
    verdicts = [judge(a.file, a.precision, metrics[a.file], limits.of(a.precision), chosen.evidence) for a in package.artifacts]
    return Verification(chosen.evidence, limits, tuple(verdicts))


def _reference(
    package: Package,
    data: str | None,
    labels: str | None,
    source: str | os.PathLike[str] | None,
    limit: int | None,
    trust: bool,
) -> tuple[Samples, Callable[[int, Feeds], Results]]:
    """What to run on, and what the source says there."""
    from edgekit.errors import InputError
    from edgekit.verify.samples import Samples, real_samples
    from edgekit.verify.verdict import Evidence

    model = None if source is None else _open(package, os.fspath(source), trust)
    if data is not None and model is None:
        fix = "give it with --source, or leave --data out to use the golden vectors"
        raise InputError("other data need the source model to compare with", where="--data", fix=fix)
    if labels is not None and data is None:
        raise InputError("labels need the data that they belong to", where="--labels", fix="give --data and --source")
    if data is not None and model is not None:
        samples = real_samples(data, package.inputs, labels=labels, preprocess=package.preprocess, limit=limit)
        return samples, lambda run, feeds: model.run(feeds)
    vectors = package.golden_vectors()
    recorded = package.verification.evidence
    count = len(vectors) * max(1, recorded.samples // max(1, recorded.runs))
    kind = "golden" if recorded.real else "random"
    evidence = Evidence(kind, package.golden.file, package.golden.sha256, len(vectors), count, recorded.real, labeled=False)
    feeds = Samples([feeds for feeds, _ in vectors], evidence)
    if model is not None:
        return feeds, lambda run, inputs: model.run(inputs)
    return feeds, lambda run, inputs: vectors[run][1]


def _open(package: Package, path: str, trust: bool) -> Source:
    from edgekit.errors import InputError
    from edgekit.sources import open_source

    dynamic = sorted({d for spec in package.inputs for d in spec.shape if isinstance(d, str)})
    static = [spec for spec in package.inputs if all(isinstance(d, int) for d in spec.shape)]
    model = open_source(path, inputs=static, dynamic=dynamic, trust=trust)
    if model.sha256 != package.source.sha256:
        raise InputError(f"{path} is not the model that the package was made of: its sha256 differs", where="--source")
    return model
