"""How large the values inside a model get on real inputs."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import TYPE_CHECKING

import numpy as np

from edgekit.ort.session import open_session

if TYPE_CHECKING:
    import onnx
    from onnxruntime import InferenceSession

    from edgekit.contract import Feeds

# Feeds that tell enough about magnitudes.
PROBES = 16

# A finite number of this size stands for infinity (attention masks, open clips); no range of real activations reaches it.
INFINITE = 1e9


def largest_magnitudes(model: onnx.ModelProto, feeds: Iterable[Feeds]) -> dict[str, float]:
    """The largest finite magnitude of every float32 value of known type, by name, over all feeds. `model` is not changed."""
    session = open_probe(model)
    names = [value.name for value in session.get_outputs()]
    largest = dict.fromkeys(names, 0.0)
    for feed in feeds:
        for name, array in zip(names, session.run(None, dict(feed)), strict=True):
            finite = array[np.isfinite(array)] if array.dtype == np.float32 else array[:0]
            largest[name] = max(largest[name], float(np.abs(finite).max(initial=0.0)))
    return largest


def open_probe(model: onnx.ModelProto, only: Container[str] | None = None) -> InferenceSession:
    """A session, not optimized, whose outputs are the model's and all its float32 values of known type, or `only` those."""
    import onnx

    probe = onnx.ModelProto()
    probe.CopyFrom(onnx.shape_inference.infer_shapes(model))
    have = {value.name for value in probe.graph.output}
    made = {name for node in probe.graph.node for name in node.output}  # optimizations leave declarations of values that are gone
    for value in list(probe.graph.value_info):
        if (
            value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
            and value.name in made - have
            and (only is None or value.name in only)
        ):
            probe.graph.output.add().CopyFrom(value)
    return open_session(probe.SerializeToString(), optimize="none")
