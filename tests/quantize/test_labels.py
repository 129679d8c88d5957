import numpy as np
import pytest
from PIL import Image

from edgekit.contract import TensorSpec
from edgekit.errors import InputError
from edgekit.preprocess import Preprocess
from edgekit.quantize import load_data, load_labels

PIXEL = [TensorSpec("pixel", (1, 3, 1, 1))]


@pytest.fixture
def numbers(tmp_path, monkeypatch):
    """Ten samples, of which five are used: 0, 2, 4, 6, 8."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.arange(10, dtype=np.float32)[:, None])
    return load_data("x.npy", [TensorSpec("x", (1, 1))], limit=5)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ant/a.png", "bee/b.png", "cat/c.png", "cat/d.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1, 1)).save(tmp_path / "set" / name)
    return load_data("set", PIXEL, Preprocess.parse("unit,layout=nchw"))


def test_labels_follow_the_samples_that_are_used(numbers, tmp_path):
    np.save("y.npy", np.arange(10) * 10)
    (tmp_path / "y.txt").write_text("\n".join(str(i * 10) for i in range(10)))
    (tmp_path / "y.csv").write_text("id,label\n" + "\n".join(f"s{i},{i * 10}" for i in range(10)))
    (tmp_path / "named.csv").write_text("digit\n" + "\n".join(f"{i * 10}" for i in range(10)))
    (tmp_path / "bare.csv").write_text("\n".join(f"{i * 10}" for i in range(10)))
    for spec in ("y.npy", "y.txt", "y.csv", "named.csv:digit", "bare.csv"):
        assert load_labels(spec, numbers).tolist() == [0, 20, 40, 60, 80], spec


def test_subfolders_are_classes(pictures, tmp_path):
    assert load_labels("set", pictures).tolist() == [0, 1, 2, 2]
    (tmp_path / "set" / "labels.txt").write_text("cat\nbee\nant\n")
    assert load_labels("set", pictures).tolist() == [2, 1, 0, 0]


def test_a_table_is_matched_by_file_name(pictures, tmp_path):
    (tmp_path / "y.csv").write_text("label,file\n7,cat/d.png\n5,ant/a.png\n6,bee/b.png\n4,cat/c.png\n")
    assert load_labels("y.csv", pictures).tolist() == [5, 6, 4, 7]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("y.txt", "1\n2\n3\n", "3 labels for 10 samples"),
        ("y.txt", "cat\n" * 10, "not a whole number"),
        ("y.csv", "a,b\n1,2\n", "no column 'label'"),
        ("y.csv", "label,b\n1\n", "wrong number of values"),
        ("y.json", "[]", "does not read labels of this kind"),
    ],
)
def test_labels_that_do_not_fit_are_named(numbers, tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        load_labels(name, numbers)


def test_one_hot_and_missing_labels(numbers):
    np.save("onehot.npy", np.eye(10, dtype=np.float32))
    with pytest.raises(InputError, match="one integer per sample, not 10x10:float32"):
        load_labels("onehot.npy", numbers)
    with pytest.raises(InputError, match="do not exist"):
        load_labels("nowhere.npy", numbers)
