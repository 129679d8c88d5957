"""What every kind of source is to the rest of edgekit, and what they share in becoming one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgekit.contract import Feeds, Results, TensorSpec
from edgekit.errors import InputError, SourceError

if TYPE_CHECKING:
    import onnx_ir

NOTES = "edgekit.notes"
"""Key of `onnx_ir.Model.metadata_props` under which a conversion says, one per line, what a report's reader must know."""


@dataclass(frozen=True)
class Source:
    """A model that is loaded and ready to run.

    Args:
        kind: `keras`, `torch` or `onnx`.
        path: As the user gave it.
        sha256: Of the file; of a folder's sorted contents; of a factory's file and the weights that it returned.
        inputs: With the shapes that `--input` fixed; a str dimension where `--dynamic` keeps it open.
        outputs: In the same terms. Their shapes are those of a first run.
        reference: Feeds in, results out, in the model's own framework.
        convert: Makes the ONNX graph anew at each call.
    """

    kind: str
    path: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    reference: Callable[[Feeds], Results] = field(repr=False)
    convert: Callable[[], onnx_ir.Model] = field(repr=False)

    def run(self, feeds: Feeds) -> Results:
        """The model's outputs on `feeds`, float32, in its own framework: what every artifact is compared with.

        Raises:
            InputError: An input is missing, unknown, or of another shape or dtype than `inputs` says.
            SourceError: The framework failed on them.
        """
        names = [spec.name for spec in self.inputs]
        if set(feeds) != set(names):
            raise InputError(f"the model takes {', '.join(names)}, not {', '.join(feeds) or 'nothing'}", where=self.path)
        for spec in self.inputs:
            spec.check(feeds[spec.name])
        return run_reference(self.reference, feeds, self.path)

    def to_onnx(self) -> onnx_ir.Model:
        """A new ONNX graph of the model, as its exporter left it: names as in `inputs` and `outputs`, weights included.

        Raises:
            SourceError: No exporter takes the model; says why.
        """
        return bind(self.convert(), self.inputs, self.outputs, self.path)


def describe_outputs(
    reference: Callable[[Feeds], Results], inputs: Sequence[TensorSpec], path: str, names: Sequence[str] = ()
) -> tuple[TensorSpec, ...]:
    """The specs of the outputs, found by running the model on zeros.

    With dynamic dimensions it runs twice, at two sizes of each: an output's dimension that follows gets the name of the
    input's dimension whose size it has, or one of its own (`logits_1`) where it only depends on it.
    """
    labels = list(dict.fromkeys(d for spec in inputs for d in spec.shape if isinstance(d, str)))
    small = dict(zip(labels, range(2, 1000, 3), strict=False))
    large = {label: size + 1 for label, size in small.items()}
    first = run_reference(reference, zeros(inputs, small), path)
    second = run_reference(reference, zeros(inputs, large), path) if labels else first
    specs = []
    for name, array in first.items():
        other = second[name]
        if array.ndim != other.ndim:
            raise SourceError(f"the output {name!r} changes its rank with the size of the input", where=path)
        shape = tuple(
            a if a == b else next((label for label in labels if (small[label], large[label]) == (a, b)), f"{name}_{axis}")
            for axis, (a, b) in enumerate(zip(array.shape, other.shape, strict=True))
        )
        specs.append(TensorSpec(name, shape, str(array.dtype)))
    return tuple(specs)


def zeros(inputs: Iterable[TensorSpec], sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Feeds of zeros, each dynamic dimension as large as `sizes` says."""
    return {spec.name: np.zeros([sizes[d] if isinstance(d, str) else d for d in spec.shape], dtype=spec.dtype) for spec in inputs}


def run_reference(reference: Callable[[Feeds], Results], feeds: Feeds, path: str) -> Results:
    """`reference(feeds)`, with a framework's exception told as a SourceError."""
    try:
        return {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in reference(feeds).items()}
    except MemoryError:
        raise SourceError("the model does not fit into memory", where=path, fix="use smaller shapes with --input") from None
    except SourceError:
        raise
    except Exception as error:  # a framework raises anything; what it says is what the user needs
        shapes = ", ".join(f"{name}={'x'.join(map(str, array.shape))}:{array.dtype}" for name, array in feeds.items())
        raise SourceError(
            f"the model fails on its inputs: {first_line(error)}",
            where=f"{path} ({shapes})",
            fix="give the right shapes with --input",
        ) from error


def bind(model: onnx_ir.Model, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], path: str) -> onnx_ir.Model:
    """`model` with graph inputs and outputs that are exactly the specs': their order, shapes and dtypes.

    An exporter drops an input that nothing reads; it comes back, because the contract says that the model takes it.
    """
    import onnx_ir

    graph = model.graph
    _register_constants(graph)
    have = {value.name: value for value in graph.inputs}
    unknown = set(have) - {spec.name for spec in inputs}
    missing = [spec.name for spec in outputs if spec.name not in {value.name for value in graph.outputs}]
    if unknown or missing:
        wrong = ", ".join(map(str, sorted(map(str, unknown)) + missing))
        raise SourceError(f"the exporter did not keep the model's inputs and outputs: {wrong}", where=path)
    graph.inputs[:] = [have.get(spec.name) or onnx_ir.Value(name=spec.name) for spec in inputs]
    by_name = {value.name: value for value in graph.outputs}
    graph.outputs[:] = [by_name[spec.name] for spec in outputs]
    for value, spec in zip([*graph.inputs, *graph.outputs], [*inputs, *outputs], strict=True):
        value.shape = onnx_ir.Shape(spec.shape)
        value.type = onnx_ir.TensorType(onnx_ir.DataType.from_numpy(np.dtype(spec.dtype)))
    return model


def _register_constants(graph: onnx_ir.Graph) -> None:
    """Make initializers of constants that nodes read and the graph does not list; torch's exporter forgets some (torch 2.13)."""
    for node in graph.all_nodes():
        for value in node.inputs:
            if value is None or value.const_value is None or value.producer() is not None or value.graph is not None:
                continue
            base, count = value.name or "constant", 0
            while value.name is None or value.name in graph.initializers:
                count += 1
                value.name = f"{base}_{count}"
            graph.register_initializer(value)


def distinct_names(wanted: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """`wanted` as names that ONNX and file formats take, each once: other characters become `_`, a repetition gets `_1`."""
    used = set(taken)
    names = []
    for text in wanted:
        base = re.sub(r"[^\w.]", "_", text.removesuffix(":0")) or "tensor"
        name, count = base, 0
        while name in used:
            count += 1
            name = f"{base}_{count}"
        used.add(name)
        names.append(name)
    return names


def first_line(error: BaseException) -> str:
    """What an exception says, in one line that fits into a message."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in str(error).splitlines()]
    text = next((line for line in lines if line), type(error).__name__)
    return text if len(text) <= 300 else f"{text[:300]}…"
