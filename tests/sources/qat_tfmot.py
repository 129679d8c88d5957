"""Trains a small network with tensorflow-model-optimization: `python qat_tfmot.py SAVED_MODEL KERNELS.npz`.

The second file gets the integers that the kernels are rounded to.
"""

from __future__ import annotations

import sys

import numpy as np
import tensorflow_model_optimization
import tf_keras as keras
from sklearn.datasets import load_digits

CHANNELS = 12
TRAINING = 1400


def main(folder: str, kernels: str) -> None:
    keras.utils.set_random_seed(7)
    layers = keras.layers
    image = keras.Input((8, 8, 1), name="image")
    first = layers.BatchNormalization()(layers.Conv2D(CHANNELS, 3, padding="same", use_bias=False)(image))
    first = layers.ReLU()(first)
    value = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(first))
    value = layers.Conv2D(CHANNELS, 1, use_bias=False)(layers.ReLU()(value))
    value = layers.ReLU()(layers.Add()([first, layers.BatchNormalization()(value)]))
    value = layers.Conv2D(20, 3, strides=2, padding="same", activation="relu")(layers.MaxPooling2D(2)(value))
    model = keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(value)))
    data = load_digits()
    pictures = (data.images[:TRAINING, ..., None] / 16).astype(np.float32)
    for epochs in (6, 2):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(5e-3), loss)
        model.fit(pictures, data.target[:TRAINING], batch_size=32, epochs=epochs, verbose=0)
        if epochs == 6:
            model = tensorflow_model_optimization.quantization.keras.quantize_model(model)
    values = {weight.name: weight.numpy() for weight in model.weights}
    names = [name for name in values if name.endswith(("/kernel:0", "/depthwise_kernel:0"))]
    highest = {name: values[f"quant_{name}".replace("kernel:0", "kernel_max:0")] for name in names}
    np.savez(kernels, **{str(i): np.rint(values[name] / highest[name] * 127).clip(-127, 127) for i, name in enumerate(names)})
    model.export(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
