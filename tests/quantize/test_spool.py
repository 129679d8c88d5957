"""Samples of a function, beyond what stays in memory."""

import tracemalloc

import numpy as np
import pytest

from edgekit.contract import TensorSpec
from edgekit.quantize import data, load_data
from edgekit.quantize.spool import Spool

RNG = np.random.default_rng(0)


def samples(count):
    for i in range(count):
        shape = (i % 5 + 1, 3)
        yield {"ids": np.arange(i % 7, dtype=np.int64), "x": np.full(shape, i, np.float32).T, "flag": np.array(i % 2 == 0)}


@pytest.mark.parametrize("keep", [0, 500, 10**9])
def test_samples_come_back_as_they_were(keep):
    spool = Spool(samples(40), keep)
    assert len(spool) == 40
    for i in (39, 0, 17, 17, 3):
        expected = list(samples(i + 1))[-1]
        found = spool[i]
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
    with pytest.raises(IndexError):
        spool[40]


def test_a_function_of_many_samples_takes_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "KEEP_BYTES", 1_000_000)
    file = tmp_path / "many.py"
    file.write_text("""
import numpy as np
def many():
    for i in range(2000):
        yield np.full((1, 4096), i, np.float32)
""")
    tracemalloc.start()
    found = load_data(f"{file}:many", [TensorSpec("x", (1, 4096))])
    assert found.feeds[1999]["x"][0, 0] == 1999
    assert [feed["x"][0, 0] for feed in found.subset(4)] == [0, 500, 1000, 1500]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.feeds) == 2000
    assert peak < 8_000_000, "all of them are 33 MB"
