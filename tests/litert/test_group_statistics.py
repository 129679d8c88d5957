"""Statistics of groups of channels are computed on the channels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgekit import hub, litert

from .running import artifact_results, model, operators, relative_error, source_results
from .test_graph_passes import weights

POOL = "k = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)"
"""Holds what comes after it channels-last."""
VARIANCE = """r = Reshape(k, split) m = ReduceMean<keepdims=1>(r, axes) d = Sub(r, m) q = Mul(d, d)
              v = ReduceMean<keepdims=0>(q, axes) c = Reshape(v, column)"""
DEVIATION = f"{VARIANCE} e = Add(c, epsilon) s = Sqrt(e) b = Expand(s, split) u = Reshape(b, whole)"


def compiled(body: str, results: str, groups: int) -> tuple[litert.Compiled, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The artifact, and what it and the source compute."""
    proto = model(
        f"net (float[2,8,6,6] x) => ({results}) {{ {POOL} {body} }}",
        split=np.array([2, groups, 8 // groups, 6, 6]), axes=np.array([2, 3, 4]), column=np.array([2, groups, 1, 1, 1]),
        whole=np.array([2, 8, 6, 6]), epsilon=np.float32(1e-3), scale=weights(8, 1, 1), flat=np.array([2, 8, 36]),
    )  # fmt: skip
    made = litert.compile_hub(hub.prepare(ir.serde.deserialize_model(proto)), input_layout="nhwc", output_layout="nhwc")
    feeds = {"x": weights(2, 8, 6, 6)}
    return made, artifact_results(made, feeds), source_results(proto, feeds)


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_a_standard_deviation_of_groups_divides_the_map(groups: int) -> None:
    """EvoNorm-S0: nothing of the size of the map has more axes than it."""
    artifact, got, wanted = compiled(f"{DEVIATION} y = Div(k, u)", "float[2,8,6,6] y", groups)
    found = operators(artifact.data)
    assert not {"BROADCAST_TO", "TRANSPOSE", "RESHAPE"} & set(found)
    assert found["MEAN"] == 2
    assert relative_error(wanted["y"], got["y"]) < 1e-5


@pytest.mark.parametrize(
    ("body", "results"),
    [
        (f"{VARIANCE} e = Add(c, epsilon) s = Sqrt(e) n = Div(d, s) y = Reshape(n, whole)", "float[2,8,6,6] y"),
        (f"{DEVIATION} p = Mul(u, scale) y = Exp(u) z = Add(k, p)", "float[2,8,6,6] y, float[2,8,6,6] z"),
        (f"{DEVIATION} y = Sub(u, u)", "float[2,8,6,6] y"),
    ],
    ids=["normalized", "read as a whole", "beside itself"],
)
def test_what_is_made_of_the_statistics(body: str, results: str) -> None:
    artifact, got, wanted = compiled(body, results, 4)
    assert "TRANSPOSE" not in operators(artifact.data)
    for name, array in wanted.items():
        assert relative_error(array, got[name]) < 1e-5


@pytest.mark.parametrize(
    ("body", "results"),
    [
        (f"{DEVIATION} y = Div(k, u)", "float[2,8,6,6] y, float[2,4,1,1,1] e"),
        (f"{DEVIATION} y = Div(k, u) z = Exp(d)", "float[2,8,6,6] y, float[2,4,2,6,6] z"),
        ("r = Reshape(k, split) t = Mul(r, r) y = Reshape(t, whole)", "float[2,8,6,6] y"),
        ("r = Reshape(k, split) t = Transpose<perm=[0,2,1,3,4]>(r) y = Reshape(t, whole)", "float[2,8,6,6] y"),
        ("r = Reshape(k, split) m = ReduceMean<keepdims=1>(r, axes) d = Sub(r, m) y = Reshape(d, flat)", "float[2,8,36] y"),
    ],
    ids=["a statistic is a result", "the groups are read", "no statistic", "shuffle", "another shape"],
)
def test_the_rest_is_as_it_was(body: str, results: str) -> None:
    _, got, wanted = compiled(body, results, 4)
    for name, array in wanted.items():
        assert relative_error(array, got[name]) < 1e-5
