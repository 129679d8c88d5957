"""How far an artifact is from its source."""

import math

import numpy as np
import pytest

from edgekit.errors import ArtifactError
from edgekit.verify.metrics import Comparison, Metrics


def compared(*runs, labels=None):
    comparison = Comparison("y")
    for source, artifact in runs:
        comparison.add(np.asarray(source), np.asarray(artifact))
    return comparison.metrics(labels)


def test_equal_results():
    a = np.array([[1.0, -2.0, 0.5]], np.float32)
    found = compared((a, a.copy()))
    assert (found.max_abs_error, found.max_relative_error, found.cosine, found.top1_agreement) == (0.0, 0.0, 1.0, 1.0)
    assert found.sqnr_db == math.inf
    assert found.worst is None


def test_relative_error_is_the_largest_difference_over_the_largest_source_value():
    found = compared(([[1.0, -4.0]], [[1.0, -4.5]]))
    assert found.max_abs_error == 0.5
    assert found.max_relative_error == 0.125
    assert (found.worst.run, found.worst.index, found.worst.source, found.worst.artifact) == (0, (0, 1), -4.0, -4.5)


def test_sqnr_is_signal_over_error_in_decibels():
    assert compared(([[10.0, 0.0]], [[9.0, 0.0]])).sqnr_db == pytest.approx(20.0)


def test_numbers_do_not_depend_on_how_samples_are_batched():
    generator = np.random.default_rng(0)
    a = generator.normal(size=(12, 5)).astype(np.float32)
    b = a + generator.normal(size=a.shape).astype(np.float32) * 0.01
    labels = a.argmax(axis=1)
    whole = compared((a, b), labels=labels)
    single = compared(*((a[i : i + 1], b[i : i + 1]) for i in range(12)), labels=labels)
    for metric in ("max_abs_error", "max_relative_error", "cosine", "sqnr_db", "top1_agreement", "accuracy"):
        assert single.value(metric) == pytest.approx(whole.value(metric))


def test_one_silent_sample_does_not_make_rounding_noise_a_large_relative_error():
    assert compared(([[0.0, 0.0]], [[1e-9, 0.0]]), ([[1.0, 2.0]], [[1.0, 2.0]])).max_relative_error == pytest.approx(5e-10)


def test_cosine_of_silence():
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    assert compared((zero, zero)).cosine == 1.0
    assert compared((zero, one)).cosine == 0.0


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (np.zeros((2, 10), np.float32), "scores"),
        (np.zeros((2, 1), np.float32), "numbers"),  # one sigmoid: where it switches is not in the model
        (np.zeros((2, 7, 10), np.float32), "numbers"),
        (np.zeros((2, 8, 8, 3), np.float32), "numbers"),
        (np.zeros((2,), np.int64), "class"),
        (np.zeros((2, 1), np.int64), "class"),
        (np.zeros((2, 5), np.int64), "numbers"),
    ],
)
def test_which_outputs_are_a_classifier(source, kind):
    found = compared((source, source))
    assert found.kind == kind
    assert (found.top1_agreement is None) == (kind == "numbers")


def test_accuracy_of_source_and_artifact_on_labels():
    source = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]
    artifact = [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]]
    found = compared((source, artifact), labels=np.array([0, 1, 0, 0]))
    assert (found.source_accuracy, found.accuracy, found.accuracy_drop) == (0.75, 0.5, 0.25)
    assert found.top1_agreement == 0.75


def test_nan_in_the_artifact_alone_is_broken():
    found = compared(([[1.0, 2.0, 3.0]], [[1.0, math.nan, math.inf]]))
    assert found.broken == 2
    assert math.isnan(found.cosine)
    assert found.max_abs_error == math.inf
    assert found.worst.index == (0, 1)


def test_nan_in_the_source_is_skipped():
    found = compared(([[1.0, math.nan, -math.inf]], [[1.0, math.nan, -65504.0]]))
    assert (found.elements, found.skipped, found.broken) == (1, 2, 0)
    assert found.max_abs_error == 0.0


def test_another_shape_is_an_error_that_names_the_output():
    with pytest.raises(ArtifactError, match=r"'y' has the shape \(1, 3\), the source gives \(1, 2\)"):
        compared((np.zeros((1, 2)), np.zeros((1, 3))))


def test_a_large_difference_of_unsigned_integers_does_not_wrap():
    assert compared((np.array([[1, 2, 3]], np.uint8), np.array([[2, 2, 3]], np.uint8))).max_abs_error == 1.0


@pytest.mark.parametrize("artifact", [[[1.0, 2.0]], [[1.0, 2.5]], [[1.0, math.nan]]])
def test_json_round_trip(artifact):
    found = compared(([[1.0, 2.0]], artifact), labels=np.array([1]))
    assert repr(Metrics.from_json(found.to_json())) == repr(found)
