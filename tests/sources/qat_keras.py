"""A small Keras network really trained with quantization on scikit-learn's digits, for test_qat.py.

Keras 3 has no training with quantization of its own. These layers are what people write, with TensorFlow's operators for it,
which tensorflow-model-optimization's layers are made of as well: weights symmetric per output channel, activations by a moving
range.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

CHANNELS = 12
TRAINING = 1400


def rounded(kernel: Any) -> Any:
    """To 255 steps around zero, for each place along the last axis."""
    highest = tf.stop_gradient(tf.reduce_max(tf.abs(kernel), axis=list(range(len(kernel.shape) - 1))))
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(kernel, -highest, highest, narrow_range=True)


class RoundedConv2D(keras.layers.Conv2D):
    @property
    def kernel(self) -> Any:
        return rounded(tf.convert_to_tensor(super().kernel))


class RoundedDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """One scale for all: the last axis of its kernel is that of the multiplier."""

    def call(self, inputs: Any) -> Any:
        kernel = rounded(tf.convert_to_tensor(self.kernel))
        return tf.nn.depthwise_conv2d(inputs, kernel, [1, *self.strides, 1], self.padding.upper())


class RoundedDense(keras.layers.Dense):
    @property
    def kernel(self) -> Any:
        return rounded(tf.convert_to_tensor(super().kernel))


class Rounded(keras.layers.Layer):
    """Rounds activations to 256 steps of the range that they had in training."""

    def build(self, shape: Any) -> None:
        self.low = self.add_weight(shape=(), initializer="zeros", trainable=False, name="low")
        self.high = self.add_weight(shape=(), initializer="ones", trainable=False, name="high")

    def call(self, values: Any, training: bool = False) -> Any:
        if training:
            self.low.assign(0.95 * self.low + 0.05 * tf.minimum(tf.reduce_min(values), 0.0))
            self.high.assign(0.95 * self.high + 0.05 * tf.maximum(tf.reduce_max(values), 0.1))
        return tf.quantization.fake_quant_with_min_max_vars(
            values, tf.convert_to_tensor(self.low), tf.convert_to_tensor(self.high)
        )


@functools.cache
def network() -> Any:
    keras.utils.set_random_seed(7)
    layers = keras.layers
    image = keras.Input((8, 8, 1), name="image")
    first = layers.BatchNormalization()(RoundedConv2D(CHANNELS, 3, padding="same", use_bias=False)(Rounded()(image)))
    first = Rounded()(layers.ReLU()(first))
    value = layers.BatchNormalization()(RoundedDepthwiseConv2D(3, padding="same", use_bias=False)(first))
    value = layers.BatchNormalization()(RoundedConv2D(CHANNELS, 1, use_bias=False)(Rounded()(layers.ReLU()(value))))
    value = Rounded()(layers.ReLU()(layers.Add()([first, Rounded()(value)])))
    value = RoundedConv2D(20, 3, strides=2, padding="same", activation="relu")(layers.MaxPooling2D(2)(value))
    value = Rounded()(layers.GlobalAveragePooling2D()(Rounded()(value)))
    model = keras.Model(image, Rounded()(RoundedDense(10)(value)))
    model.compile(keras.optimizers.Adam(5e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = load_digits()
    pictures = (data.images[:TRAINING, ..., None] / 16).astype(np.float32)
    model.fit(pictures, data.target[:TRAINING], batch_size=32, epochs=6, verbose=0)
    return model
