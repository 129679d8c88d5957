"""PyTorch sources: factories, exported programs, TorchScript, and the files that are refused."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.sources.parity import feeds_of, operators, worst_error

torch = pytest.importorskip("torch")

from edgekit.contract import TensorSpec  # noqa: E402
from edgekit.errors import InputError, SourceError, UntrustedSource  # noqa: E402
from edgekit.sources import Source, open_source  # noqa: E402
from tests.sources import factories  # noqa: E402  (needs torch)

FACTORIES = Path(__file__).with_name("factories.py")
IMAGE = TensorSpec("image", (1, 3, 8, 8))


def factory(name: str, *inputs: TensorSpec, dynamic: tuple[str, ...] = ()) -> Source:
    return open_source(f"{FACTORIES}:{name}", inputs=inputs, dynamic=dynamic)


def names(source: Source) -> list[str]:
    return [spec.name for spec in source.outputs]


def test_a_factory_with_input_specs() -> None:
    source = factory("classifier", IMAGE)
    assert source.inputs == (IMAGE,)
    assert source.outputs == (TensorSpec("output", (1, 5)),)
    assert worst_error(source) <= 1e-5
    assert "edgekit.notes" not in source.to_onnx().metadata_props  # the first exporter took it


@pytest.mark.parametrize("name", ["with_tensor", "with_numpy"])
def test_example_inputs_give_the_shapes(name: str) -> None:
    assert factory(name).inputs == (IMAGE,)
    assert factory(name, TensorSpec("image", (4, 3, 8, 8))).outputs[0].shape == (4, 5)


def test_an_optional_parameter_is_an_input_where_it_is_asked_for() -> None:
    source = factory("classifier", TensorSpec("bias", (1, 5)), IMAGE)
    assert [spec.name for spec in source.inputs] == ["image", "bias"]
    assert worst_error(source) <= 1e-5


@pytest.mark.parametrize("dynamic", [(), ("batch",), ("batch", "ids:1=length", "mask:1=length")])
def test_a_dict_names_the_outputs(dynamic: tuple[str, ...]) -> None:
    source = factory("with_dict", dynamic=dynamic)
    assert names(source) == ["tokens", "mean"]
    assert source.outputs[1].shape == ("batch" if dynamic else 1, 6)
    assert source.outputs[0].shape[1] == ("length" if len(dynamic) > 1 else 7)
    assert worst_error(source) <= 1e-5


def test_nested_tuples_are_numbered() -> None:
    source = factory("recurrent")
    assert names(source) == ["output_0", "output_1_0", "output_1_1"]
    assert "LSTM" in operators(source)
    assert worst_error(source) <= 1e-5


def test_a_named_tuple_names_the_outputs() -> None:
    assert names(factory("detector")) == ["boxes", "scores"]


def test_forward_without_parameter_names() -> None:
    source = factory("any_number")
    assert [spec.name for spec in source.inputs] == ["input_0", "input_1"]
    assert worst_error(source) == 0


def test_a_half_precision_module_is_run_in_float32() -> None:
    source = factory("half")
    assert (source.inputs[0].dtype, source.outputs[0].dtype) == ("float32", "float32")


def test_a_factory_may_return_a_keras_model() -> None:
    pytest.importorskip("keras")
    source = factory("keras_model")
    assert (source.kind, source.inputs[0].name) == ("keras", "features")


def test_a_factory_in_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FACTORIES.parent)
    assert open_source("tests.sources.factories:with_tensor").inputs == (IMAGE,)


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("missing", [], "there is no 'missing'"),
        ("broken", [], "RuntimeError: the weights are not there"),
        ("nothing", [], "returns NoneType"),
        ("text", [], "returns str"),
        ("classifier", [], "does not say which shape its input 'image' has"),
        ("classifier", [TensorSpec("picture", (1, 3, 8, 8))], "no parameter 'picture'"),
        ("classifier", [TensorSpec("image", (1, 1, 8, 8))], "expected input.* to have 3 channels"),
    ],
)
def test_what_is_wrong_with_a_factory_is_said(name: str, inputs: list[TensorSpec], message: str) -> None:
    with pytest.raises((SourceError, InputError), match=message):
        factory(name, *inputs)


def test_opening_a_factory_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "layers.py").write_text("from torch import nn\nhead = nn.Linear(4, 2)\n")
    (tmp_path / "net.py").write_text("from layers import head\n\ndef build():\n    return head\n")
    before = list(sys.path)
    open_source(f"{tmp_path}/net.py:build", inputs=[TensorSpec("input", (1, 4))])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layers.py", "net.py"]
    assert sys.path == before


def test_the_digest_is_of_code_and_weights(tmp_path: Path) -> None:
    def digest(weight: float, comment: str = "") -> str:
        (tmp_path / "net.py").write_text(
            f"import torch\n{comment}\ndef build():\n    layer = torch.nn.Linear(2, 2)\n"
            f"    torch.nn.init.constant_(layer.weight, {weight})\n    torch.nn.init.zeros_(layer.bias)\n    return layer\n"
        )
        return open_source(f"{tmp_path}/net.py:build", inputs=[TensorSpec("input", (1, 2))]).sha256

    assert digest(1.0) == digest(1.0)
    assert len({digest(1.0), digest(2.0), digest(1.0, "# another")}) == 3


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one classifier in every form in which PyTorch saves."""
    folder = tmp_path_factory.mktemp("torch")
    module, example = factories.classifier().eval(), torch.zeros(2, 3, 8, 8)
    program = torch.export.export(module, (example,))
    torch.export.save(program, folder / "program.pt2")
    dynamic = torch.export.export(module, (example,), dynamic_shapes={"image": {0: torch.export.Dim("n")}})
    torch.export.save(dynamic, folder / "dynamic.pt2")
    torch.jit.trace(module, example).save(folder / "traced.pt")
    torch.jit.script(module).save(folder / "scripted.pt")
    torch.save(module, folder / "pickled.pt")
    torch.save(module.state_dict(), folder / "state.pth")
    torch.save({"epoch": 3, "model": module.state_dict()}, folder / "checkpoint.ckpt")
    return folder


def test_an_exported_program(saved: Path) -> None:
    source = open_source(str(saved / "program.pt2"))
    assert source.inputs == (TensorSpec("image", (2, 3, 8, 8)),)
    assert worst_error(source) <= 1e-5
    with pytest.raises(InputError, match="is 2x3x8x8"):
        open_source(str(saved / "program.pt2"), inputs=[IMAGE])


def test_an_exported_program_with_an_open_dimension(saved: Path) -> None:
    assert open_source(str(saved / "dynamic.pt2")).outputs[0].shape == (1, 5)
    source = open_source(str(saved / "dynamic.pt2"), dynamic=["batch"])
    assert source.outputs[0].shape == ("batch", 5)
    assert worst_error(source) <= 1e-5


@pytest.mark.parametrize("file", ["traced.pt", "scripted.pt"])
@pytest.mark.parametrize("dynamic", [(), ("batch",)])
def test_torchscript(saved: Path, file: str, dynamic: tuple[str, ...]) -> None:
    source = open_source(str(saved / file), inputs=[IMAGE], dynamic=dynamic)
    assert worst_error(source) <= 1e-5
    assert "If" not in operators(source)


def test_torchscript_says_nothing_about_shapes(saved: Path) -> None:
    with pytest.raises(InputError, match="which shape its input 'image' has"):
        open_source(str(saved / "scripted.pt"))


def test_torchscript_that_touches_files_is_refused(tmp_path: Path) -> None:
    class Writer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.save(x, "stolen")
            return x

    torch.jit.script(Writer()).save(tmp_path / "writer.pt")
    with pytest.raises(UntrustedSource, match="reads or writes files"):
        open_source(str(tmp_path / "writer.pt"), inputs=[TensorSpec("x", (1,))])


def test_a_part_of_a_module_that_keeps_state(tmp_path: Path) -> None:
    class Cell(torch.nn.Module):
        def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + state, state * 2

    class Counter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = Cell()
            self.state = torch.ones(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y, self.state = self.cell(x, self.state)
            return y

    path = tmp_path / "counter.pt"
    torch.jit.script(Counter()).save(path)
    inputs = [TensorSpec("x", (1,)), TensorSpec("state", (1,))]
    with pytest.raises(SourceError, match="keeps state") as error:
        open_source(str(path), inputs=inputs[:1])
    assert "it has: cell" in str(error.value)
    assert worst_error(open_source(f"{path}:cell", inputs=inputs)) == 0
    with pytest.raises(SourceError, match="no part 'cel'"):
        open_source(f"{path}:cel", inputs=inputs)


def test_a_pickled_module_opens_only_when_trusted(saved: Path) -> None:
    with pytest.raises(UntrustedSource, match="runs code that it carries"):
        open_source(str(saved / "pickled.pt"), inputs=[IMAGE])
    assert worst_error(open_source(str(saved / "pickled.pt"), inputs=[IMAGE], trust=True)) <= 1e-5


class Payload:
    """Unpickles into a call that leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.mark,)


def test_refused_pickles_have_not_run(saved: Path, tmp_path: Path) -> None:
    torch.save(Payload(tmp_path / "ran"), tmp_path / "evil.pt")
    with pytest.raises(UntrustedSource):
        open_source(str(tmp_path / "evil.pt"))

    with zipfile.ZipFile(saved / "program.pt2") as good, zipfile.ZipFile(tmp_path / "evil.pt2", "w") as evil:
        for entry in good.namelist():
            replaced = entry.endswith("sample_inputs/model.pt")
            evil.writestr(entry, (tmp_path / "evil.pt").read_bytes() if replaced else good.read(entry))
    with pytest.raises(UntrustedSource, match="more than tensors"):
        open_source(str(tmp_path / "evil.pt2"))
    assert not (tmp_path / "ran").exists()


def test_a_size_that_is_code_is_refused(saved: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(saved / "dynamic.pt2") as good, zipfile.ZipFile(tmp_path / "evil.pt2", "w") as evil:
        for entry in good.namelist():
            data = good.read(entry)
            if entry.endswith("model.json"):
                assert b"\"Symbol('" in data
                data = data.replace(b"\"Symbol('", b"\"exit(3) + Symbol('")
            evil.writestr(entry, data)
    with pytest.raises(UntrustedSource, match=r"exit\(3\)"):
        open_source(str(tmp_path / "evil.pt2"))


@pytest.mark.parametrize(("file", "content"), [("state.pth", "9 tensors"), ("checkpoint.ckpt", "a dict with epoch, model")])
def test_weights_alone_are_refused(saved: Path, file: str, content: str) -> None:
    with pytest.raises(SourceError, match="without an architecture") as error:
        open_source(str(saved / file))
    assert content in str(error.value)
    assert "file.py:function" in str(error.value)


def test_safetensors_are_weights_alone(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"whatever")
    with pytest.raises(SourceError, match="without an architecture"):
        open_source(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("file", ["program.pt2", "scripted.pt", "state.pth"])
def test_a_truncated_file(saved: Path, tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes((saved / file).read_bytes()[:-400])
    with pytest.raises(SourceError):
        open_source(str(tmp_path / file))


def test_garbage(tmp_path: Path) -> None:
    (tmp_path / "garbage.pt").write_bytes(b"\x80\x02 nothing that unpickles")
    with pytest.raises(SourceError):
        open_source(str(tmp_path / "garbage.pt"))


def test_the_older_exporter_steps_in_with_a_note(tmp_path: Path) -> None:
    # A branch on a value stops torch.export; tracing follows the example through it.
    (tmp_path / "branch.py").write_text(
        "import torch\nclass Branch(torch.nn.Module):\n    def forward(self, x):\n"
        "        return x * 2 if x.sum() > 1e9 else x + 1\n"
        "def build():\n    return Branch(), torch.zeros(1, 3)\n"
    )
    source = open_source(f"{tmp_path}/branch.py:build")
    assert worst_error(source) == 0
    assert "TorchScript exporter" in source.to_onnx().metadata_props["edgekit.notes"]


def test_the_reference_is_deterministic() -> None:
    source = factory("with_tensor")
    feeds = feeds_of(source)
    np.testing.assert_array_equal(source.run(feeds)["output"], source.run(feeds)["output"])
