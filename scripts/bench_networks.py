"""Writes a network of bench_convert.py as model.onnx and, from PyTorch, model.pt2: `python bench_networks.py NAME FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from real_models.recipes import recipe

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
WARM_UP = "digits"


@dataclass(frozen=True)
class Network:
    """`write(folder)` makes the files; `layout` is what the TFLite's picture input is asked for."""

    name: str
    write: Callable[[Path], None]
    layout: str = "nhwc"


def main() -> None:
    name, folder = sys.argv[1:]
    writers = {network.name: network.write for network in NETWORKS} | {WARM_UP: _digits}
    writers[name](Path(folder))


def _digits(folder: Path) -> None:
    """The classifier of samples/: what a warm process has converted before."""
    import torch

    sys.path.insert(0, str(SAMPLES))
    from digits_torch import digits

    _write_torch(folder, digits(), (torch.ones(1, 1, 8, 8),), ["image"])


def _timm(architecture: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import torch

        _declare_vision_operators()
        import timm

        torch.manual_seed(7)
        module = timm.create_model(architecture, pretrained=False)
        # Untrained, some networks start with BatchNorm scales of zero: converters would rightly drop whole branches. As if
        # trained: scales around one, and the statistics of the batch that passes.
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
                torch.nn.init.normal_(layer.bias, std=0.1)
                layer.momentum = 1.0
        with torch.no_grad():
            module.train()(torch.randn(4, 3, 224, 224))
        _write_torch(folder, module, (torch.randn(1, 3, 224, 224),), ["image"])

    return write


def _packaged(factory: str, shapes: dict[str, tuple[int, ...]], dtype: str = "float32") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import torch
        from real_models import networks

        example = tuple(torch.ones(shape, dtype=getattr(torch, dtype)) for shape in shapes.values())
        _write_torch(folder, getattr(networks, factory)(), example, list(shapes))

    return write


def _keras(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import onnx_ir

        from edgekit.sources import open_source

        onnx_ir.save(open_source(recipe(name).prepare(4).source).to_onnx(), folder / "model.onnx")

    return write


def _write_torch(folder: Path, module, example, names: list[str]) -> None:  # type: ignore[no-untyped-def]
    import torch

    module.eval()
    torch.export.save(torch.export.export(module, example), folder / "model.pt2")
    program = torch.onnx.export(module, example, dynamo=True, input_names=names, output_names=["output"], verbose=False)
    assert program is not None
    program.save(folder / "model.onnx", external_data=False)


def _declare_vision_operators() -> None:
    """timm imports torchvision, which fails beside a torch that its own operators were not built for unless these are known."""
    import torch

    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")


MINILM_SHAPES = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (1, 128))
PICTURE = {"image": (1, 3, 224, 224)}

NETWORKS = (
    Network("mobilenetv3_large_100", _timm("mobilenetv3_large_100")),
    Network("resnet18", _timm("resnet18")),
    Network("mobilenet-v2", _packaged("mobilenet_v2", PICTURE)),
    Network("efficientnet-lite0", _packaged("efficientnet_lite0", PICTURE)),
    Network("minilm", _packaged("minilm", MINILM_SHAPES, "int64"), layout="keep"),
    Network("keras-mobilenetv3large", _keras("keras-mobilenetv3large"), layout="keep"),
)

if __name__ == "__main__":
    main()
