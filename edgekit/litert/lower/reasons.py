"""Operators that LiteRT cannot express, with the reason and what to do instead."""

from __future__ import annotations

_RANDOM = "it draws random numbers, and LiteRT's would be others than the model's", "draw them outside, and pass them as an input"
_SEQUENCE = "LiteRT has tensors only, no sequences", "stack the tensors into one with an axis more, or split the model there"
_OPTIONAL = "LiteRT has no optional values", "export the model with that input either given or left out"
_TEXT = "LiteRT's string tensors cannot be computed with", "do that on the text before the model"
_TRAINING = "it belongs to training", "export the model in inference mode"
_TREES = "trees of ONNX-ML have no form in LiteRT", "run that part with ONNX Runtime"

REASONS: dict[str, tuple[str, str]] = {
    **dict.fromkeys("Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split(), _RANDOM),
    **dict.fromkeys(
        "ConcatFromSequence SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap "
        "SplitToSequence".split(),
        _SEQUENCE,
    ),
    **dict.fromkeys("Optional OptionalGetElement OptionalHasElement".split(), _OPTIONAL),
    **dict.fromkeys("LabelEncoder RegexFullMatch StringConcat StringNormalizer StringSplit".split(), _TEXT),
    **dict.fromkeys("Adagrad Adam Gradient Momentum".split(), _TRAINING),
    **dict.fromkeys("TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor".split(), _TREES),
    "ImageDecoder": ("LiteRT decodes no image files", "decode the image before the model, and pass its pixels"),
    "MelWeightMatrix": (
        "it rounds logarithms down to bins, and in float32, which is what LiteRT has, a bin can be another one",
        "make its inputs constant in the model: it then becomes a constant",
    ),
}
"""ONNX operator → (why, what to do)."""
