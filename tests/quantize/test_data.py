"""From what a user has to what a model takes."""

import numpy as np
import pytest
from PIL import Image

from edgekit.contract import TensorSpec
from edgekit.errors import InputError
from edgekit.preprocess import Preprocess
from edgekit.quantize import data as data_module
from edgekit.quantize import load_data

IMAGE = TensorSpec("image", (1, 3, 8, 8))
RANDOM = np.random.default_rng(0)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pictures(here):
    for i in range(10):
        folder = here / "pictures" / ("cats" if i < 4 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((10, 12, 3), i * 20, np.uint8)).save(folder / f"{i}.png")
    (here / "pictures" / "notes.txt").write_text("not a picture")
    return "pictures"


def refused(*arguments, **options):
    with pytest.raises(InputError) as error:
        load_data(*arguments, **options)
    assert error.value.fix, "an error says what to do"
    return " ".join(str(error.value).split())


def test_an_array_becomes_one_feed_per_sample(here):
    array = RANDOM.normal(size=(5, 3, 8, 8)).astype(np.float32)
    np.save("x.npy", array)
    found = load_data("x.npy", [IMAGE])
    assert (found.kind, found.total, found.indices, len(found.feeds)) == ("npy", 5, (0, 1, 2, 3, 4), 5)
    np.testing.assert_array_equal(found.feeds[3]["image"], array[3:4])


@pytest.mark.parametrize(
    ("shape", "batch", "stored", "runs"),
    [
        ((1, 3, 8, 8), 1, (6, 3, 8, 8), 6),
        ((1, 3, 8, 8), 1, (6, 1, 3, 8, 8), 6),
        (("batch", 3, 8, 8), 1, (6, 3, 8, 8), 6),
        ((4, 3, 8, 8), 4, (9, 3, 8, 8), 2),
        ((4, 3, 8, 8), 4, (2, 4, 3, 8, 8), 2),
        (("batch", "time"), 1, (6, 7), 6),
        ((16,), 16, (3, 16), 3),
    ],
)
def test_a_sample_comes_with_or_without_the_batch_axis(here, shape, batch, stored, runs):
    np.save("x.npy", RANDOM.normal(size=stored).astype(np.float32))
    found = load_data("x.npy", [TensorSpec("x", shape)])
    assert len(found.feeds) == runs
    assert found.feeds[0]["x"].shape[0] == batch


def test_a_limit_takes_samples_evenly_over_the_set(here):
    np.save("x.npy", np.arange(100, dtype=np.float32).reshape(100, 1))
    found = load_data("x.npy", [TensorSpec("x", (1, 1))], limit=4)
    assert [feed["x"].item() for feed in found.feeds] == [0, 25, 50, 75]
    assert found.indices == (0, 25, 50, 75)


def test_several_inputs_come_from_an_npz(here):
    inputs = [TensorSpec("ids", (1, 4), "int64"), TensorSpec("rate", (), "int64"), TensorSpec("state", (2, 1, 8))]
    np.savez("x.npz", ids=np.ones((3, 4), np.int32), rate=np.full(3, 16000), state=np.zeros((3, 2, 1, 8)))
    feed = load_data("x.npz", inputs).feeds[0]
    assert {name: (array.shape, str(array.dtype)) for name, array in feed.items()} == {
        "ids": ((1, 4), "int64"),
        "rate": ((), "int64"),
        "state": ((2, 1, 8), "float32"),
    }


def test_a_lone_array_of_an_npz_feeds_the_only_input(here):
    np.savez("x.npz", whatever=np.zeros((2, 3, 8, 8), np.float32))
    assert list(load_data("x.npz", [IMAGE]).feeds[0]) == ["image"]


def test_pictures_are_found_sorted_and_preprocessed(pictures):
    found = load_data(pictures, [IMAGE], Preprocess.parse("unit,resize=8x8,layout=nchw"), limit=5)
    assert found.files == ("cats/0.png", "cats/2.png", "dogs/4.png", "dogs/6.png", "dogs/8.png")
    np.testing.assert_allclose(found.feeds[2]["image"], np.full((1, 3, 8, 8), 80 / 255), rtol=1e-6)


def test_uint8_arrays_are_pictures_too(here):
    np.save("x.npy", RANDOM.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8))
    found = load_data("x.npy", [IMAGE], Preprocess.parse("unit,layout=nchw"))
    assert (found.feeds[0]["image"].dtype, found.feeds[0]["image"].shape) == (np.float32, (1, 3, 8, 8))
    assert "say with --preprocess" in refused("x.npy", [TensorSpec("x", (1, 8, 8, 3))])


def test_a_function_gives_samples_as_arrays_tuples_or_dicts(here):
    (here / "source.py").write_text(
        "import numpy as np\n"
        "def arrays():\n    yield from np.ones((10, 3, 8, 8), np.float32)\n"
        "def endless():\n    while True: yield np.ones((1, 4), np.int64), np.zeros(8, np.float32)\n"
        "def dicts():\n    return [{'ids': np.ones(4, np.int64), 'state': np.zeros(8)}]\n"
    )
    two = [TensorSpec("ids", (1, 4), "int64"), TensorSpec("state", (1, 8))]
    assert len(load_data("source.py:arrays", [IMAGE]).feeds) == 10
    assert len(load_data("source.py:endless", two, limit=3).feeds) == 3
    assert load_data("source.py:dicts", two).feeds[0]["state"].dtype == np.float32


def test_the_hash_is_of_what_the_model_sees(here, pictures):
    steps = Preprocess.parse("unit,resize=8x8,layout=nchw")
    first = load_data(pictures, [IMAGE], steps)
    np.save("same.npy", np.concatenate([feed["image"] for feed in first.feeds]))
    assert load_data("same.npy", [IMAGE]).sha256 == first.sha256 == load_data(pictures, [IMAGE], steps).sha256
    assert load_data(pictures, [IMAGE], steps, limit=5).sha256 != first.sha256


def test_a_set_larger_than_memory_is_read_again_each_time(here, monkeypatch):
    array = RANDOM.normal(size=(20, 3, 8, 8)).astype(np.float32)
    np.save("x.npy", array)
    kept = load_data("x.npy", [IMAGE])
    monkeypatch.setattr(data_module, "KEEP_BYTES", 5 * array[0].nbytes)
    reread = load_data("x.npy", [IMAGE])
    assert not isinstance(reread.feeds, tuple)
    assert reread.sha256 == kept.sha256
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate([feed["image"] for feed in reread.feeds]), array)


def test_numbers_that_would_change_are_refused(here):
    ids = TensorSpec("ids", (1, 2), "int32")
    np.save("fits.npy", np.array([[1, 2]], np.int64))
    np.save("large.npy", np.array([[1, 2**40]], np.int64))
    np.save("float.npy", np.array([[1.5, 2.0]]))
    assert load_data("fits.npy", [ids]).feeds[0]["ids"].dtype == np.int32
    assert "are int64, the model takes int32" in refused("large.npy", [ids])
    assert "are float64, the model takes int32" in refused("float.npy", [ids])


def test_what_does_not_fit_is_named(here, pictures):
    np.save("nan.npy", np.array([[0.0, 1.0], [np.nan, 0.0]]))
    np.save("nhwc.npy", np.zeros((4, 8, 8, 3)))
    np.save("pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez("uneven.npz", ids=np.zeros((3, 4), np.int64), state=np.zeros((2, 8)))
    (here / "broken.npz").write_bytes(b"PK\x03\x04 and then nothing")
    (here / "bad.py").write_text("def fails():\n    raise RuntimeError('no disk')\ndef empty():\n    return []\n")
    (here / "pictures" / "dogs" / "9.png").write_bytes(b"\x89PNG torn")
    (here / "empty").mkdir()
    two = [TensorSpec("ids", (1, 4), "int64"), TensorSpec("state", (1, 8))]
    steps = Preprocess.parse("unit,resize=8x8,layout=nchw")

    assert "hold NaN or infinity where: nan.npy, sample 1" in refused("nan.npy", [TensorSpec("x", (1, 2))])
    assert "is 8x8x3, the model takes 1x3x8x8:float32" in refused("nhwc.npy", [IMAGE])
    assert "channels are last here and first in the model" in refused("nhwc.npy", [IMAGE])
    assert "Python objects" in refused("pickled.npy", [IMAGE])
    assert "ids: 3, state: 2" in refused("uneven.npz", two)
    assert "no array for the input 'image'" in refused("uneven.npz", [IMAGE])
    assert "feeds models of one input, this one has 2" in refused("nan.npy", two)
    assert "cannot be read" in refused("broken.npz", [IMAGE])
    assert "RuntimeError: no disk" in refused("bad.py:fails", [IMAGE])
    assert "gave no samples" in refused("bad.py:empty", [IMAGE])
    assert "it defines fails, empty" in refused("bad.py:absent", [IMAGE])
    assert "pictures/dogs/9.png" in refused(pictures, [IMAGE], steps)
    assert "--preprocess unit,resize=8x8,layout=nchw" in refused(pictures, [IMAGE])
    assert "holds no pictures" in refused("empty", [IMAGE], steps)
    assert "do not exist" in refused("nowhere.npy", [IMAGE])
    assert "batches of 64, the data are 4 samples" in refused("nhwc.npy", [TensorSpec("x", (64, 8, 8, 3))])
