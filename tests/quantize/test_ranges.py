"""Calibration: what is seen of values in one pass, and the ranges made from it."""

import numpy as np
import onnx
import onnx.parser
import pytest

from edgekit.quantize import Calibration
from edgekit.quantize.calibration_cache import folder, observed
from edgekit.quantize.histogram import BINS, Histogram
from edgekit.quantize.observe import Observed, observe
from edgekit.quantize.ranges import METHODS, ranges_of, squared_error

RNG = np.random.default_rng(5)


def seen(samples):
    """What is observed of the input of a network that these samples are fed to."""
    size = samples[0].size
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 20]> g (float[1, {size}] x) => (float[1, {size}] y) {{ y = Neg(x) }}""")
    feeds = [{"x": sample.reshape(1, -1).astype(np.float32)} for sample in samples]
    return observe(model, feeds)["x"]


def one_value(elements):
    value = Observed(Histogram(), float(elements.min()), float(elements.max()))
    for held in (False, True):
        value.histogram.add(elements.astype(np.float32), float(elements.min()), float(elements.max()), 1.0, held=held)
    return value


def test_a_histogram_that_grows_counts_as_one_that_knew_its_range():
    parts = [np.maximum(RNG.normal(size=3000) * 1.3**i, -0.4).astype(np.float32) for i in range(30)]
    grown = Histogram()
    for part in parts:
        grown.add(part, float(part.min()), float(part.max()), 1.0, held=False)
    everything = np.concatenate(parts)
    at_once = Histogram()
    at_once.add(everything, float(everything.min()), float(everything.max()), 1.0, held=False)
    assert grown.width == at_once.width
    np.testing.assert_array_equal(grown.seen, at_once.seen)
    assert (grown.low, grown.high) == (everything.min(), everything.max())
    assert (everything.max() - everything.min()) / grown.width > BINS / 2 - 1


def test_every_sample_is_seen_however_it_is_counted():
    samples = [RNG.normal(size=50_000) for _ in range(10)]
    samples[7][12_345] = 99.0  # counted or not, it is the extreme
    value = seen(samples)
    assert value.extremes == (pytest.approx(np.min(samples)), 99.0)


def test_a_value_that_reaches_infinity_has_no_range():
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 20]> g (float[1, 2] x) => (float[1, 2] y) { m = Log(x) y = Exp(m) }""")
    feeds = [{"x": np.array([[1.0, 0.0]], np.float32)}]
    assert observe(model, feeds).keys() == {"x", "y"}


def test_a_range_leaves_out_a_lone_outlier():
    value = one_value(np.append(RNG.uniform(0, 1, 256_000), 8.0))
    assert METHODS["minmax"](value) == (0.0, 8.0)
    for method in ("percentile", "mse", "entropy"):
        low, high = METHODS[method](value)
        assert low == 0.0
        assert 0.9 < high < 7.9, method
    evenly = one_value(np.linspace(-1, 1, 100_000))
    assert METHODS["mse"](evenly) == (-1.0, 1.0)


@pytest.mark.parametrize("shape", ["normal", "exponential", "uniform", "one outlier"])
def test_the_least_error_is_that_of_really_rounding(shape):
    """No range of a fine grid rounds to 256 steps with less error than the one found."""
    elements = {
        "normal": RNG.normal(size=50_000),
        "exponential": RNG.exponential(size=50_000),
        "uniform": RNG.uniform(-2, 1, 50_000),
        "one outlier": np.append(RNG.normal(size=50_000), 30.0),
    }[shape]

    def error(low, high):
        step = (high - low) / 255
        return float(np.square(np.clip(np.round(elements / step) * step, low, high) - elements).mean())

    low, high = METHODS["mse"](one_value(elements))
    best = min(error(elements.min() * i / 20, elements.max() * j / 20) for i in range(1, 21) for j in range(1, 21))
    assert error(low, high) < 1.05 * best


def test_the_best_way_is_found_for_each_value():
    tame, wild = RNG.uniform(-1, 1, 50_000), np.append(RNG.normal(size=50_000), 400.0)
    values = {"tame": one_value(tame), "wild": one_value(wild)}
    found = ranges_of(values)
    for name, value in values.items():
        errors = [squared_error(value.histogram, value.histogram.held, *method(value)) for method in METHODS.values()]
        assert squared_error(value.histogram, value.histogram.held, *found[name]) == min(errors)
    assert found["tame"] == pytest.approx((-1, 1), abs=1e-3)


def test_one_sample_of_another_size_does_not_set_the_steps_of_all():
    """Squared errors count relative to the sample that they disturb."""
    samples = [RNG.uniform(0, 10, 4096) for _ in range(50)]
    samples[20][:64] = RNG.uniform(100, 400, 64)
    assert METHODS["mse"](seen(samples))[1] < 300
    assert METHODS["mse"](one_value(np.concatenate(samples)))[1] > 350


def test_a_moving_average_follows_the_last_samples():
    value = seen([np.full(8, 100.0)] + [np.full(8, 1.0)] * 200)
    assert METHODS["moving-average"](value)[1] == pytest.approx(1.0, abs=0.01)
    assert METHODS["minmax"](value)[1] == 100.0


def test_what_was_seen_is_kept_for_the_next_time(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 20]> g (float[1, 4] x) => (float[1, 4] y) { y = Neg(x) }""")
    feeds = [{"x": RNG.normal(size=(1, 4)).astype(np.float32)} for _ in range(20)]
    runs = []
    first = observed(model, Calibration(feeds, "npy", "here", "digest"), 20, lambda done, total: runs.append(done))
    again = observed(model, Calibration(feeds, "npy", "here", "digest"), 20, lambda done, total: runs.append(done))
    assert len(runs) == 20
    assert {name: value.extremes for name, value in first.items()} == {name: value.extremes for name, value in again.items()}
    assert ranges_of(first) == ranges_of(again)
    other = observed(model, Calibration(feeds[:5], "npy", "here", "other digest"), 20)
    assert other["x"].extremes != first["x"].extremes
    for file in folder().iterdir():
        file.write_bytes(file.read_bytes()[:100])  # a damaged file is as good as none
    damaged = observed(model, Calibration(feeds, "npy", "here", "digest"), 20)
    assert damaged["x"].extremes == first["x"].extremes
