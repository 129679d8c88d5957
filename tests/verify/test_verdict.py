"""From metrics and gates to a verdict."""

import math

import numpy as np
import pytest

from edgekit.verify.gates import Gate, Gates
from edgekit.verify.metrics import Comparison
from edgekit.verify.verdict import Evidence, Verification, judge

REAL = Evidence("npy", "test.npy", "0" * 64, 4, 4, real=True, labeled=False)
LABELED = Evidence("npy", "test.npy", "0" * 64, 4, 4, real=True, labeled=True)
RANDOM = Evidence("random", "seed 0", "0" * 64, 4, 4, real=False, labeled=False)
GOLDEN = Evidence("golden", "golden.npz", "0" * 64, 4, 4, real=True, labeled=False)


def verdict(source, artifact, *gates, evidence=REAL, labels=None):
    comparison = Comparison("y")
    comparison.add(np.asarray(source), np.asarray(artifact))
    return judge("m.onnx", "int8", [comparison.metrics(labels)], gates, evidence)


SCORES = np.array([[0.1, 0.9], [0.8, 0.2]])


def test_within_the_gate():
    found = verdict(SCORES, SCORES, Gate("cosine", 0.99), Gate("top1_agreement", 0.98))
    assert found.verdict == "pass"
    assert [j.outcome for j in found.judgements] == ["pass", "pass"]


def test_outside_of_a_gate_says_output_value_and_threshold():
    found = verdict(SCORES, SCORES[::-1], Gate("top1_agreement", 0.98))
    assert found.verdict == "fail"
    assert found.reasons == ("y: top1_agreement is 0.0, the gate is top1_agreement >= 0.98",)


def test_random_inputs_never_pass():
    assert verdict(SCORES, SCORES, Gate("cosine", 0.99), evidence=RANDOM).verdict == "unverified"


def test_random_inputs_can_fail():
    assert verdict(SCORES, -SCORES, Gate("cosine", 0.99), evidence=RANDOM).verdict == "fail"


def test_no_gate_is_no_pass():
    assert verdict(SCORES, SCORES).verdict == "unverified"


@pytest.mark.parametrize("artifact", [[[0.1, math.nan]], [[0.1, math.inf]]])
def test_nan_fails_without_any_gate(artifact):
    found = verdict([[0.1, 0.9]], artifact)
    assert found.verdict == "fail"
    assert "NaN or infinite" in found.reasons[0]


def test_a_source_that_gives_only_nan_proves_nothing():
    assert verdict([[math.nan, math.nan]], [[math.nan, math.nan]]).verdict == "fail"


@pytest.mark.parametrize(
    ("source", "gate", "evidence", "reason"),
    [
        (np.ones((1, 4, 4)), Gate("top1_agreement", 0.9), REAL, "not a classifier"),
        (SCORES, Gate("accuracy_drop", 0.01), REAL, "no labels"),
        (SCORES, Gate("top1_agreement", 0.9), GOLDEN, "4 golden samples are too few for a share"),
        (np.array([3]), Gate("cosine", 0.9), REAL, "the output is a class, distances between classes mean nothing"),
    ],
)
def test_a_gate_that_does_not_apply_is_said_not_passed(source, gate, evidence, reason):
    found = verdict(source, source, gate, evidence=evidence)
    assert [(j.outcome, j.reason) for j in found.judgements] == [("not applicable", reason)]
    assert found.verdict == "unverified"


def test_accuracy_drop_is_judged_on_labels():
    artifact = np.array([[0.9, 0.1], [0.8, 0.2]])
    found = verdict(SCORES, artifact, Gate("accuracy_drop", 0.1), evidence=LABELED, labels=np.array([1, 0]))
    assert found.verdict == "fail"
    assert "accuracy_drop is 0.5" in found.reasons[0]


def test_one_failure_fails_the_package_and_sets_the_exit_code():
    good, bad = verdict(SCORES, SCORES, Gate("cosine", 0.9)), verdict(SCORES, -SCORES, Gate("cosine", 0.9))
    assert Verification(REAL, Gates(), (good, good)).exit_code == 0
    assert Verification(REAL, Gates(), (good, bad)).exit_code == 2


def test_json_round_trip():
    found = Verification(REAL, Gates({"int8": (Gate("cosine", 0.9),)}), (verdict(SCORES, -SCORES, Gate("cosine", 0.9)),))
    assert repr(Verification.from_json(found.to_json())) == repr(found)
