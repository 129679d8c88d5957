"""torchvision's classification, segmentation and detection networks, without the boxes' postprocessing (NMS, RoIAlign)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo_models import Built, Entry

CLASSIFIERS = {
    "alexnet": 96,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "efficientnet_v2_s": 64,
    "googlenet": 96,
    "inception_v3": 128,
    "maxvit_t": 224,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_large": 64,
    "mobilenet_v3_small": 64,
    "regnet_x_400mf": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "resnext50_32x4d": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 96,
    "swin_t": 224,
    "swin_v2_t": 256,
    "vgg11_bn": 64,
    "vit_b_32": 224,
    "wide_resnet50_2": 64,
}
SEGMENTERS = ("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large", "fcn_resnet50", "deeplabv3_resnet50")
DETECTORS = {
    "ssdlite320_mobilenet_v3_large": 320,
    "ssd300_vgg16": 300,
    "retinanet_resnet50_fpn": 128,
    "retinanet_resnet50_fpn_v2": 128,
    "fcos_resnet50_fpn": 128,
    "fasterrcnn_mobilenet_v3_large_320_fpn": 128,
    "fasterrcnn_resnet50_fpn_v2": 128,
    "maskrcnn_resnet50_fpn": 128,
    "keypointrcnn_resnet50_fpn": 128,
}
REGION_HEADS = ("box", "mask", "keypoint")


def entries() -> list[Entry]:
    def entry(name: str, build: Callable[[], Built]) -> Entry:
        return Entry(f"torchvision/{name}", build)

    return [
        *(entry(name, lambda name=name: _detector(name)) for name in DETECTORS),
        *(entry(f"{name}_region_head", lambda name=name: _region_head(name)) for name in REGION_HEADS),
        *(entry(name, lambda name=name: _segmenter(name)) for name in SEGMENTERS),
        *(entry(name, lambda name=name: _classifier(name)) for name in CLASSIFIERS),
    ]


def _classifier(name: str) -> Built:
    models, torch_built, image = _import()
    size = CLASSIFIERS[name]
    options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torch_built(name, models.get_model(name, weights=None, **options), {"x": image(1, 3, size, size)})


def _segmenter(name: str) -> Built:
    models, torch_built, image = _import()
    model = models.get_model(name, weights=None, weights_backbone=None, num_classes=21)
    return torch_built(name, _module(model, model), {"x": image(1, 3, 128, 128)})


def _detector(name: str) -> Built:
    """Backbone and head: what the network gives before boxes are decoded."""
    models, torch_built, image = _import()
    size = DETECTORS[name]
    model = models.get_model(name, weights=None, weights_backbone=None)

    def head(features: dict[str, Any]) -> Any:
        if hasattr(model, "rpn"):
            return model.rpn.head(list(features.values()))
        return model.head(list(features.values()))

    return torch_built(name, _module(model, lambda x: head(model.backbone(x))), {"x": image(1, 3, size, size)})


def _region_head(name: str) -> Built:
    """What Mask R-CNN and its kin do with eight regions that RoIAlign has cut out."""
    models, torch_built, image = _import()
    network = "keypointrcnn_resnet50_fpn" if name == "keypoint" else "maskrcnn_resnet50_fpn"
    heads = models.get_model(network, weights=None, weights_backbone=None).roi_heads
    first, second = getattr(heads, f"{name}_head"), getattr(heads, f"{name}_predictor")
    size = 7 if name == "box" else 14
    return torch_built(name, _module(heads, lambda x: second(first(x))), {"x": image(8, 256, size, size)})


def _import() -> tuple[Any, Any, Any]:
    from zoo_models.random_weights import SEED, allow_torchvision, image, torch_built

    allow_torchvision()
    import torch
    import torchvision.models

    torch.manual_seed(SEED)
    return torchvision.models, torch_built, image


def _module(held: Any, forward: Callable[[Any], Any]) -> Any:
    import torch

    class Part(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.held = held

        def forward(self, x: Any) -> Any:
            return forward(x)

    return Part()
