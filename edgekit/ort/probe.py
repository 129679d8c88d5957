"""How large the values inside a model get on real inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from edgekit.ort.session import open_session

if TYPE_CHECKING:
    import onnx

    from edgekit.contract import Feeds

# Feeds that tell enough about magnitudes.
PROBES = 16

# A finite number of this size stands for infinity (attention masks, open clips); no range of real activations reaches it.
INFINITE = 1e9


def largest_magnitudes(model: onnx.ModelProto, feeds: Iterable[Feeds]) -> dict[str, float]:
    """The largest finite magnitude of every float32 value of known type, by name, over all feeds. `model` is not changed."""
    import onnx

    probe = onnx.ModelProto()
    probe.CopyFrom(onnx.shape_inference.infer_shapes(model))
    have = {value.name for value in probe.graph.output}
    made = {name for node in probe.graph.node for name in node.output}  # optimizations leave declarations of values that are gone
    for value in list(probe.graph.value_info):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.name in made - have:
            probe.graph.output.add().CopyFrom(value)
    session = open_session(probe.SerializeToString(), optimize="none")
    names = [value.name for value in session.get_outputs()]
    largest = dict.fromkeys(names, 0.0)
    for feed in feeds:
        for name, array in zip(names, session.run(None, dict(feed)), strict=True):
            finite = array[np.isfinite(array)] if array.dtype == np.float32 else array[:0]
            largest[name] = max(largest[name], float(np.abs(finite).max(initial=0.0)))
    return largest
