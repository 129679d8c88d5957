"""Small networks really trained with quantization on scikit-learn's digits, as a user trains them, for test_qat.py."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

CHANNELS = 12
TRAINING = 1400


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 pictures, float32 Nx1x8x8 in [0, 1], and their digits."""
    data = load_digits()
    return (data.images[:, None] / 16).astype(np.float32), data.target


class Network(nn.Module):
    """Every kind of layer that a small CNN has: a depthwise convolution, a residual sum, a stride, two poolings."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, CHANNELS, 3, padding=1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU())
        depthwise = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS, bias=False)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(CHANNELS), nn.ReLU())
        self.pointwise = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False), nn.BatchNorm2d(CHANNELS))
        self.sum = torch.ao.nn.quantized.FloatFunctional()
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Sequential(nn.Conv2d(CHANNELS, 20, 3, stride=2, padding=1), nn.ReLU())
        self.classes = nn.Linear(20, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = self.stem(image)
        summed = self.sum.add_relu(first, self.pointwise(self.depthwise(first)))
        return self.classes(self.last(self.pool(summed)).mean((2, 3)))


class ByStubs(nn.Module):
    """The network between the stubs that eager mode wants."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.quant, self.network, self.dequant = torch.ao.quantization.QuantStub(), network, torch.ao.quantization.DeQuantStub()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.dequant(self.network(self.quant(image)))


@functools.cache
def eager() -> nn.Module:
    """Trained by torch.ao.quantization's eager mode and converted: uint8 activations, int8 weights per channel."""
    from torch.ao.quantization import convert, fuse_modules_qat, get_default_qat_qconfig, prepare_qat

    model = ByStubs(trained())
    model.qconfig = get_default_qat_qconfig("x86")  # type: ignore[assignment]
    layers = {"stem": 3, "depthwise": 3, "pointwise": 2, "last": 2}
    fuse_modules_qat(
        model.train(), [[f"network.{name}.{i}" for i in range(count)] for name, count in layers.items()], inplace=True
    )
    prepare_qat(model, inplace=True)
    train(model, steps=30)
    return convert(model.eval())


@functools.cache
def fx() -> nn.Module:
    """Trained by torch.ao.quantization's FX mode and converted."""
    from torch.ao.quantization import get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_qat_fx

    pictures = torch.from_numpy(digits()[0][:1])
    prepared = prepare_qat_fx(trained().train(), get_default_qat_qconfig_mapping("x86"), (pictures,))
    return convert_fx(train(prepared, steps=30).eval())


def export_program(path: Path) -> None:
    """Trained by torchao's flow for exported programs, converted, exported again and saved: int8, weights per channel."""
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
    from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

    pictures = torch.from_numpy(digits()[0][:32])
    batch = {0: torch.export.Dim("batch", min=2)}
    program = torch.export.export(trained(), (pictures,), dynamic_shapes=(batch,)).module()
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_qat=True))
    prepared = prepare_qat_pt2e(program, quantizer)
    train(prepared, steps=15)
    move_exported_model_to_eval(prepared)
    torch.export.save(torch.export.export(convert_pt2e(prepared), (pictures[:1],)), path)


def trained() -> Network:
    torch.manual_seed(7)
    return train(Network(), steps=120)


def train(model: Any, steps: int) -> Any:
    pictures, classes = (torch.from_numpy(array) for array in digits())
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(steps):
        chosen = torch.randint(0, TRAINING, (32,))
        loss = nn.functional.cross_entropy(model(pictures[chosen]), classes[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model
