"""Linear classifiers of CIFAR-10 on the features of an ImageNet network: a task with ten thousand labelled test pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgekit.preprocess import Preprocess
from real_models import data
from real_models.registry import cache_folder, write_once

# Twenty thousand training pictures give a linear classifier of 1,280 features what it can learn from them.
PICTURES = 20_000
BATCH = 50


def cifar10_head(name: str, features: Callable[[np.ndarray], np.ndarray], preprocess: str) -> tuple[np.ndarray, np.ndarray]:
    """Weights (10 x channels) and biases (10) of a logistic regression, fitted once and kept in the cache.

    Args:
        name: Of the network.
        features: From a batch of inputs to its pooled features.
        preprocess: From a picture of CIFAR-10 to an input.
    """

    def write(path: Path) -> None:
        from PIL import Image
        from sklearn.linear_model import LogisticRegression

        steps = Preprocess.parse(preprocess)
        pictures, classes = data.cifar10("train", PICTURES)
        parts = []
        for start in range(0, PICTURES, BATCH):
            batch = np.stack([steps.apply(Image.fromarray(picture)) for picture in pictures[start : start + BATCH]])
            parts.append(features(batch))
        seen = np.concatenate(parts).astype(np.float64)
        mean, spread = seen.mean(0), seen.std(0) + 1e-6
        fitted = LogisticRegression(C=0.003, max_iter=300).fit((seen - mean) / spread, classes)
        weight = fitted.coef_ / spread
        with path.open("wb") as file:
            np.savez(file, weight=weight.astype(np.float32), bias=(fitted.intercept_ - weight @ mean).astype(np.float32))

    with np.load(write_once(cache_folder() / "models" / f"{name}-cifar10-head.npz", write)) as stored:
        return stored["weight"], stored["bias"]
