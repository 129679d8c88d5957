"""Trains the samples on scikit-learn's digits: 1,797 real 8x8 scans of handwriting. Half a minute on a CPU.

    python samples/make_samples.py

Writes beside itself, from one seeded, stratified split of the scans:

    digits.keras                  Keras CNN: image 1x8x8x1 in [0, 1] to ten probabilities
    digits_torch.safetensors      state of the PyTorch CNN that digits_torch.py builds: image 1x1x8x8 to ten logits
    digits.onnx                   the PyTorch CNN as ONNX
    digits_calibration.npz        200 of the 1,197 training scans for INT8 calibration, in Keras' layout (NHWC)
    digits_test.npz               600 held-out scans, NHWC
    digits_nchw_calibration.npz   the same scans in PyTorch's and ONNX' layout
    digits_nchw_test.npz
    digits_labels.npy             what the 600 held-out scans show
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

SAMPLES = Path(__file__).resolve().parent
SEED = 7
EPOCHS = 40
BATCH = 32
LEAST_ACCURACY = 0.97


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    train, train_labels, test, test_labels = split_digits()
    np.save(SAMPLES / "digits_labels.npy", test_labels)
    write_data("digits_calibration.npz", train[:200])
    write_data("digits_test.npz", test)
    write_data("digits_nchw_calibration.npz", train[:200].transpose(0, 3, 1, 2))
    write_data("digits_nchw_test.npz", test.transpose(0, 3, 1, 2))
    accuracies = {
        "Keras": train_keras(train, train_labels, test, test_labels),
        "PyTorch": train_torch(train, train_labels, test, test_labels),
    }
    for framework, accuracy in accuracies.items():
        print(f"{framework}: {accuracy:.2%} of {len(test)} held-out digits")
    if min(accuracies.values()) < LEAST_ACCURACY:
        sys.exit(f"a sample is below {LEAST_ACCURACY:.0%}")


def split_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, held-out images and labels; images are float32 Nx8x8x1 in [0, 1], labels int64 N."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    scans = load_digits()
    images = (scans.images / 16.0).astype(np.float32)[..., None]
    train, test, train_labels, test_labels = train_test_split(
        images, scans.target.astype(np.int64), test_size=600, random_state=SEED, stratify=scans.target
    )
    return train, train_labels, test, test_labels


def write_data(name: str, images: np.ndarray) -> None:
    np.savez_compressed(SAMPLES / name, image=np.ascontiguousarray(images))


def train_keras(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Writes digits.keras; returns its accuracy on the held-out scans."""
    import keras
    import tensorflow as tf
    from keras import layers

    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()

    image = keras.Input((8, 8, 1), name="image")
    value = image
    for layer in (
        layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem"),
        layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise1"),
        layers.Conv2D(32, 1, use_bias=False, name="pointwise1"),
        layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False, name="depthwise2"),
        layers.Conv2D(64, 1, use_bias=False, name="pointwise2"),
    ):
        value = layer(value)
        value = layers.BatchNormalization(name=f"{layer.name}_bn")(value)
        value = layers.ReLU(6.0, name=f"{layer.name}_relu")(value)
    value = layers.GlobalAveragePooling2D(name="pool")(value)
    digit = layers.Dense(10, activation="softmax", name="digit")(value)
    model = keras.Model(image, digit, name="digits")

    steps = EPOCHS * -(-len(train) // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(5e-3, steps)
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train, train_labels, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    # Saved without the optimizer's state, which nobody here reads and which triples the file.
    trained = keras.Model(image, digit, name="digits")
    trained.save(SAMPLES / "digits.keras")
    return float((trained.predict(test, verbose=0).argmax(-1) == test_labels).mean())


def train_torch(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Writes digits_torch.safetensors and digits.onnx; returns the accuracy on the held-out scans."""
    import torch
    from safetensors.torch import save_file

    sys.path.insert(0, str(SAMPLES))
    from digits_torch import Digits

    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    model = Digits()
    images, labels = torch.from_numpy(train.transpose(0, 3, 1, 2).copy()), torch.from_numpy(train_labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-len(images) // BATCH))
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    save_file(model.state_dict(), SAMPLES / "digits_torch.safetensors")

    program = torch.onnx.export(
        model, (torch.zeros(1, 1, 8, 8),), dynamo=True, input_names=["image"], output_names=["digit"], verbose=False
    )
    assert program is not None
    for node in program.model.graph:  # the exporter's stack traces name the folders of the machine
        node.metadata_props.clear()
    program.save(SAMPLES / "digits.onnx", external_data=False)
    with torch.no_grad():
        digit = model(torch.from_numpy(test.transpose(0, 3, 1, 2).copy())).argmax(-1).numpy()
    return float((digit == test_labels).mean())


if __name__ == "__main__":
    main()
