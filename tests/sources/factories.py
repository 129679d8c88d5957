"""Factories as a user writes them, for test_torch.py and test_keras.py."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 6 * 6, 5)

    def forward(self, image: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.conv(image))).flatten(1)
        return self.head(hidden) if bias is None else self.head(hidden) + bias


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 6)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor | None]:
        embedded = self.embedding(ids)
        weight = mask.unsqueeze(-1).float()
        return {"tokens": embedded, "mean": (embedded * weight).sum(1) / weight.sum(1).clamp(min=1), "cache": None}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        return self.lstm(x)


Detection = namedtuple("Detection", ["boxes", "scores"])


class Detector(nn.Module):
    def forward(self, x: torch.Tensor) -> Detection:
        return Detection(x * 2, x.mean(1))


class AnyNumber(nn.Module):
    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return torch.cat(tensors, 1)


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3).half()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


class Text(nn.Module):
    def forward(self, x: torch.Tensor) -> str:
        return "a cat"


def seeded(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module


def classifier() -> nn.Module:
    return seeded(Classifier())


def with_tensor() -> tuple[nn.Module, torch.Tensor]:
    return seeded(Classifier()), torch.zeros(1, 3, 8, 8)


def with_numpy() -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    return seeded(Classifier()), (np.zeros((1, 3, 8, 8), np.float32),)


def with_dict() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    return seeded(Tokens()), {"ids": torch.zeros(1, 7, dtype=torch.int64), "mask": torch.zeros(1, 7, dtype=torch.int64)}


def recurrent() -> tuple[nn.Module, torch.Tensor]:
    return seeded(Recurrent()), torch.zeros(1, 9, 6)


def detector() -> tuple[nn.Module, torch.Tensor]:
    return Detector(), torch.zeros(2, 4)


def any_number() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return AnyNumber(), (torch.zeros(1, 3), torch.zeros(1, 4))


def half() -> tuple[nn.Module, torch.Tensor]:
    return seeded(Half()), torch.zeros(1, 8, dtype=torch.float16)


def text() -> tuple[nn.Module, torch.Tensor]:
    return Text(), torch.zeros(1)


def broken() -> nn.Module:
    raise RuntimeError("the weights are not there")


def nothing() -> None:
    return None


def keras_model():  # type: ignore[no-untyped-def]
    import keras

    return keras.Sequential([keras.layers.Input((4,), name="features"), keras.layers.Dense(3, name="scores")])
