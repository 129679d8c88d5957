"""The PyTorch digit classifier of the samples: `edgekit export samples/digits_torch.py:digits --input image=1x1x8x8`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn


class Digits(nn.Module):
    """A small MobileNet-like network: 1x8x8 pixels in [0, 1] to ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(1, 16, kernel=3),
            *_conv(16, 16, kernel=3, groups=16),
            *_conv(16, 32, kernel=1),
            *_conv(32, 32, kernel=3, stride=2, groups=32),
            *_conv(32, 64, kernel=1),
        )
        self.classifier = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(image).mean(dim=(2, 3)))


def digits() -> nn.Module:
    """The trained network, in evaluation mode."""
    from safetensors.torch import load_file

    model = Digits()
    model.load_state_dict(load_file(Path(__file__).with_name("digits_torch.safetensors")))
    return model.eval()


def _conv(inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU6()]
