"""Indices that count from the end, where they are computed; and none of the cost where they cannot be negative."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgekit import litert

from .running import WITHOUT_DELEGATES, model, operators, source_results

CONSTANTS = {
    "table": np.arange(12, dtype=np.float32).reshape(4, 3),
    "last": np.array(-1),
    "three": np.array(3),
    "zero": np.array(0),
}
MAY_BE_NEGATIVE = {
    "below a constant": "(int64[2,3] x) => (float[2,3,3] y) { i = Sub(x, three) y = Gather(table, i) }",
    "turned around": "(int64[2,3] x) => (float[2,3,3] y) { i = Neg(x) y = Gather(table, i) }",
    "the smaller one": "(int64[2,3] x) => (float[2,3,3] y) { i = Min(x, last) y = Gather(table, i) }",
    "chosen": "(int64[2,3] x) => (float[2,3,3] y) { c = Less(x, three) i = Where(c, x, last) y = Gather(table, i) }",
    "in computed data": "(int64[2,3] x, float[4,3] z) => (float[2,3,3] y) { e = Exp(z) i = Sub(x, three) y = Gather(e, i) }",
    "in rows of any number": "(int64[2,3] x, float[n,3] z) => (float[2,3,3] y) { e = Exp(z) i = Sub(x, three) y = Gather(e, i) }",
    "the last of any number": "(float[n,3] z) => (float[3] y) { e = Exp(z) y = Gather(e, last) }",
    "of elements": "(int64[2,3] x, float[4,3] z) => (float[2,3] y) { i = Sub(x, three) y = GatherElements(z, i) }",
    "of elements, fed": "(int64[2,3] x, float[4,3] z) => (float[2,3] y) { y = GatherElements(z, x) }",
}
NEVER_NEGATIVE = {
    "fed": "(int64[2,3] x) => (float[2,3,3] y) { y = Gather(table, x) }",
    "fed, as another type": "(int32[2,3] x) => (float[2,3,3] y) { i = Cast<to=7>(x) y = Gather(table, i) }",
    "the largest": "(float[2,3] z) => (float[2,1,3] y) { i = ArgMax<axis=1>(z) y = Gather(table, i) }",
    "the rest of a division": "(int64[2,3] x) => (float[2,3,3] y) { j = Neg(x) i = Mod(j, three) y = Gather(table, i) }",
    "bounded": "(int64[2,3] x) => (float[2,3,3] y) { j = Sub(x, three) i = Clip(j, zero, three) y = Gather(table, i) }",
    "a distance": "(int64[2,3] x) => (float[2,3,3] y)"
    " { j = Sub(x, three) k = Min(j, zero) l = Neg(k) i = Min(l, three) y = Gather(table, i) }",
    "a comparison": "(float[2,3] z) => (float[2,3,3] y) { c = Greater(z, z) i = Cast<to=7>(c) y = Gather(table, i) }",
    "of elements": "(float[4,3] z) => (float[4,3] y) { c = Greater(z, z) i = Cast<to=7>(c) y = GatherElements(z, i) }",
}


def agrees(text: str, lowest: int) -> bytes:
    source = model(f"net {text}", **{name: array for name, array in CONSTANTS.items() if name in re.findall(r"\w+", text)})
    generator = np.random.default_rng(5)
    feeds = {}
    for value in source.graph.input:
        shape = [d.dim_value or 4 for d in value.type.tensor_type.shape.dim]
        integers = generator.integers(lowest, 4, shape)
        dtype = {1: np.float32, 6: np.int32, 7: np.int64}[value.type.tensor_type.elem_type]
        feeds[value.name] = generator.normal(size=shape).astype(dtype) if dtype is np.float32 else integers.astype(dtype)
    data = litert.compile(source)
    for kernels in ({}, {"experimental_op_resolver_type": WITHOUT_DELEGATES}):
        results = Interpreter(model_content=data, **kernels).get_signature_runner()(**feeds)
        for name, want in source_results(source, feeds).items():
            np.testing.assert_allclose(results[name], want, rtol=1e-6)
    return data


@pytest.mark.parametrize("case", MAY_BE_NEGATIVE)
def test_a_computed_index_may_count_from_the_end(case: str) -> None:
    agrees(MAY_BE_NEGATIVE[case], -4 if "fed" in case else 0)


@pytest.mark.parametrize("case", NEVER_NEGATIVE)
def test_what_cannot_be_negative_costs_nothing(case: str) -> None:
    counted = operators(agrees(NEVER_NEGATIVE[case], 0))
    assert counted["FLOOR_MOD"] == ("Mod(" in NEVER_NEGATIVE[case])
    assert counted["SHAPE"] == 0


def test_a_negative_token_id_is_refused_by_the_interpreter() -> None:
    runner = Interpreter(model_content=litert.compile(model(f"net {NEVER_NEGATIVE['fed']}", table=CONSTANTS["table"])))
    with pytest.raises(RuntimeError, match="out of bounds"):
        runner.get_signature_runner()(x=np.full((2, 3), -1, np.int64))
