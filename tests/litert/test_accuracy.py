"""Where a kernel's own arithmetic costs accuracy, the compiler writes what costs less."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgekit import hub, litert

from .running import artifact_results, model, operators


@pytest.mark.parametrize("size", [64, 80, 160])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_the_mean_of_a_large_map_is_taken_row_by_row(keepdims: int, size: int) -> None:
    """XNNPACK adds 25,600 numbers one after another, and is off by 2e-5 or more; 160 sums of 160 are not."""
    shape = "1,1,1,8" if keepdims else "1,8"
    source = model(
        f"""net (float[1,{size},{size},8] x) => (float[{shape}] y) {{
            r = Relu(x)
            y = ReduceMean<keepdims={keepdims}>(r, axes)
        }}""",
        axes=np.array([1, 2]),
    )
    compiled = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(source)))
    assert operators(compiled.data)["MEAN"] == 2
    x = (np.random.default_rng(0).standard_normal((1, size, size, 8)) * 5 + 3).astype(np.float32)
    exact = np.maximum(x, 0).mean((1, 2), dtype=np.float64, keepdims=bool(keepdims))
    assert np.abs(artifact_results(compiled, {"x": x})["y"] / exact - 1).max() < 1e-6
