"""All of keras.applications, with seeded random weights."""

from __future__ import annotations

import zlib

import numpy as np

from edgekit.sources.keras_model import import_keras, keras_source
from zoo_models import Built, Entry

SMALLEST = {"NASNetLarge": 331, "InceptionV3": 96, "InceptionResNetV2": 96, "Xception": 96, "NASNetMobile": 96}
"""Input sizes other than 64."""
NAMES = """MobileNet MobileNetV2 MobileNetV3Small MobileNetV3Large EfficientNetB0 EfficientNetV2B0 ResNet50 ResNet50V2 DenseNet121
           NASNetMobile Xception InceptionV3 VGG16 ConvNeXtTiny InceptionResNetV2 EfficientNetV2S EfficientNetB1 EfficientNetV2B1
           EfficientNetB2 EfficientNetV2B2 EfficientNetB3 EfficientNetV2B3 DenseNet169 DenseNet201 ResNet101 ResNet101V2 VGG19
           ResNet152 ResNet152V2 ConvNeXtSmall EfficientNetB4 EfficientNetB5 EfficientNetV2M EfficientNetB6 EfficientNetB7
           EfficientNetV2L ConvNeXtBase NASNetLarge ConvNeXtLarge ConvNeXtXLarge""".split()


def entries() -> list[Entry]:
    return [Entry(f"keras/{name}", lambda name=name: _build(name)) for name in NAMES]


def _build(name: str) -> Built:
    keras = import_keras()
    keras.utils.set_random_seed(zlib.crc32(name.encode()))
    size = SMALLEST.get(name, 64)
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None)
    image = np.random.default_rng(7).standard_normal((1, size, size, 3), np.float32)
    _randomize(keras, model, image)
    source = keras_source(model, name, "")
    return Built(source, {source.inputs[0].name: image}, lambda folder: model.save(folder / "model.keras"))


def _randomize(keras, model, image: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    """Constant weights drawn anew; BatchNorm statistics those of the image, layer by layer, and not quite."""
    random = np.random.default_rng(7)
    norms = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            continue
        if isinstance(layer, keras.layers.BatchNormalization):
            norms.append(layer)
        for weight in layer.trainable_weights:
            value = np.asarray(weight)
            first = float(value.flat[0])
            if (value == first).all():
                scale = 0.05 if first == 0 else 0.15 * max(abs(first), 0.5)
                weight.assign(max(abs(first), 0.1) * (first != 0) + scale * random.standard_normal(value.shape))
    if norms:  # in training mode a layer normalizes by what it sees, and with momentum 0 that becomes its statistics
        momenta = [layer.momentum for layer in norms]
        for layer in norms:
            layer.momentum = 0.0
        model(np.concatenate([image, -image[:, ::-1]]), training=True)
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
            spread = np.asarray(layer.moving_variance)
            layer.moving_variance.assign((spread + 0.05 * spread.mean() + 1e-6) * random.uniform(0.7, 1.4, spread.shape))
