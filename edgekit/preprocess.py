"""From a picture to the tensor that a model takes: the part of the contract that is not in the model.

A `Preprocess` is data. It travels in the manifest, and everything that runs a package applies it. docs/preprocess.md gives
the arithmetic so exactly that a device which has only numpy can do the same.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

MODES = ("stretch", "shortest", "letterbox")
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
COLORS = ("rgb", "bgr", "gray")
LAYOUTS = ("nchw", "nhwc")
DTYPES = ("float32", "float16", "uint8", "int8", "int32")


@dataclass(frozen=True)
class Preprocess:
    """The steps from a decoded picture to one sample, in the order in which they are applied.

    Args:
        color: Channel order of the sample: `rgb`, `bgr` or `gray` (one channel, ITU-R 601 luma).
        resize: Width and height in pixels, or None to leave the size.
        mode: `stretch` to exactly `resize`; `shortest`: keep the aspect, the shorter side becomes `resize` (a square);
            `letterbox`: keep the aspect, fit inside `resize`, fill the rest with `pad`.
        interpolation: Pillow's filter of that name (all but `nearest` average over the covered area when shrinking).
        pad: The value from 0 to 255 that letterbox fills with.
        crop: Width and height of a centre crop after resizing, or None.
        scale, mean, std: The sample is `(pixel * scale - mean) / std`; `mean` and `std` hold one number per channel in the
            order of `color`, or a single one for all, in units of the scaled pixel.
        layout: Axes of the sample: `nchw` gives C x H x W, `nhwc` gives H x W x C.
        dtype: numpy name of the sample's dtype; integers are rounded half to even.
    """

    color: str = "rgb"
    resize: tuple[int, int] | None = None
    mode: str = "stretch"
    interpolation: str = "bilinear"
    pad: int = 0
    crop: tuple[int, int] | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: str = "nhwc"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise _bad(name, getattr(self, name), "one of " + ", ".join(allowed))
        for name in ("resize", "crop"):
            size = getattr(self, name)
            if size is not None and (len(size) != 2 or min(size) < 1):
                raise _bad(name, size, "WIDTHxHEIGHT in pixels, such as 224x224")
        if self.mode == "shortest" and self.resize and self.resize[0] != self.resize[1]:
            raise _bad("resize", f"{self.resize[0]}x{self.resize[1]}", "one number where mode=shortest, such as resize=256")
        if not 0 <= self.pad <= 255:
            raise _bad("pad", self.pad, "a whole number from 0 to 255")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.channels):
                raise _bad(name, getattr(self, name), f"1 or {self.channels} numbers, separated by ;")
        if not all(math.isfinite(x) for x in (self.scale, *self.mean, *self.std)) or 0 in (self.scale, *self.std):
            raise _bad("scale/mean/std", (self.scale, self.mean, self.std), "finite numbers, scale and std not 0")
        self._check_range()

    @property
    def channels(self) -> int:
        """1 for gray, otherwise 3."""
        return 1 if self.color == "gray" else 3

    @classmethod
    def parse(cls, text: str) -> Preprocess:
        """Read what `--preprocess` takes.

        A preset by name (`imagenet`, `tf`, `caffe`, `unit`, `none`), the path of a .toml or .json file with the same keys,
        or `key=value` pairs separated by commas; pairs may follow a preset or a file and change it:
        `imagenet,layout=nhwc` or `resize=256,crop=224,scale=1/255,mean=0.485;0.456;0.406,std=0.229;0.224;0.225`.

        Raises:
            InputError: A key, a value or the file is wrong; lists what is allowed.
        """
        first, *rest = (part.strip() for part in text.split(","))
        if "=" in first:
            return _changed(cls(), [first, *rest])
        if first in PRESETS:
            return _changed(PRESETS[first], rest)
        if first.endswith((".toml", ".json")):
            return _changed(_from_file(Path(first)), rest)
        presets = ", ".join(PRESETS)
        raise InputError(
            f"{first!r} is not a preprocessing preset",
            where="--preprocess",
            fix=f"use one of {presets}, a .toml or .json file, or pairs such as resize=256,crop=224,scale=1/255",
        )

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON values, all keys present; `from_json` gives an equal Preprocess back, bit for bit."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Preprocess:
        """Read `to_json`'s dict, or the table of a .toml or .json file; keys that are absent take their defaults.

        Raises:
            InputError: A key is unknown or a value does not have its form.
        """
        values = {key: _value(key, value) for key, value in document.items()}
        if isinstance(document.get("resize"), int) and "mode" not in values:
            values["mode"] = "shortest"
        return cls(**values)

    def apply(self, image: Image | np.ndarray) -> np.ndarray:
        """One sample, without a batch axis, from a picture.

        Args:
            image: A Pillow image (its EXIF orientation is applied), or a uint8 array H x W, H x W x 1 or H x W x 3 in RGB.

        Returns:
            An array C x H x W (`nchw`) or H x W x C (`nhwc`) of `dtype`.

        Raises:
            InputError: The picture has more than 8 bits per channel, or is smaller than `crop`.
        """
        import numpy as np

        picture = _resized(_decoded(image, self.color), self)
        if self.crop is not None:
            picture = _center_cropped(picture, self.crop)
        pixels = np.asarray(picture, dtype=np.uint8).reshape(picture.height, picture.width, self.channels)
        if self.color == "bgr":
            pixels = pixels[:, :, ::-1]
        table = self._table()
        sample = np.stack([table[c][pixels[:, :, c]] for c in range(self.channels)], axis=-1)
        return np.ascontiguousarray(sample.transpose(2, 0, 1) if self.layout == "nchw" else sample)

    def _table(self) -> np.ndarray:
        """Every pixel value's result, channels x 256: computed in double precision, rounded once to `dtype`."""
        import numpy as np

        pixel = np.arange(256, dtype=np.float64)
        mean = np.broadcast_to(np.array(self.mean, dtype=np.float64), (self.channels,))[:, None]
        std = np.broadcast_to(np.array(self.std, dtype=np.float64), (self.channels,))[:, None]
        result = (pixel * self.scale - mean) / std
        return (np.rint(result) if "int" in self.dtype else result).astype(self.dtype)

    def _check_range(self) -> None:
        lowest, highest = _RANGES.get(self.dtype, (-math.inf, math.inf))
        for c in range(self.channels):
            mean, std = self.mean[c % len(self.mean)], self.std[c % len(self.std)]
            ends = [round((pixel * self.scale - mean) / std) for pixel in (0, 255)]
            if min(ends) < lowest or max(ends) > highest:
                raise _bad("dtype", self.dtype, f"one that holds {min(ends)} to {max(ends)}, which scale, mean and std give")


_CHOICES = {"color": COLORS, "mode": MODES, "interpolation": INTERPOLATIONS, "layout": LAYOUTS, "dtype": DTYPES}
_RANGES = {"uint8": (0, 255), "int8": (-128, 127), "float16": (-65504, 65504)}

# The names that users know: torchvision's ImageNet evaluation transform, and the modes of
# keras.applications.imagenet_utils.preprocess_input ("tf", "caffe"), which leave the size to the caller.
PRESETS = {
    "imagenet": Preprocess(
        resize=(256, 256),
        mode="shortest",
        crop=(224, 224),
        scale=1 / 255,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        layout="nchw",
    ),
    "tf": Preprocess(scale=1 / 127.5, mean=(1.0,)),
    "caffe": Preprocess(color="bgr", mean=(103.939, 116.779, 123.68)),
    "unit": Preprocess(scale=1 / 255),
    "none": Preprocess(),
}


def _changed(base: Preprocess, pairs: list[str]) -> Preprocess:
    values: dict[str, Any] = {}
    for pair in pairs:
        key, found, text = pair.partition("=")
        if not found:
            raise InputError(f"{pair!r} is not a key=value pair", where="--preprocess", fix=f"the keys are {_keys()}")
        values[key.strip()] = _value(key.strip(), text.strip())
        if key.strip() == "resize" and text.strip().isdigit():
            values.setdefault("mode", "shortest")
        elif key.strip() == "resize":
            values.setdefault("mode", base.mode if base.mode != "shortest" else "stretch")
    if values.get("color", base.color) == "gray" and base.channels == 3:  # per-channel numbers of the base no longer apply
        for name in ("mean", "std"):
            if name not in values and len(getattr(base, name)) == 3:
                raise _bad(name, getattr(base, name), f"{name} anew as one number, since color=gray has one channel")
    return replace(base, **values)


def _from_file(path: Path) -> Preprocess:
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise InputError(f"cannot read the preprocessing file: {error.strerror}", where=str(path), fix="check the path") from None
    except ValueError as error:  # both decoders' errors, and text that is not UTF-8
        kind = path.suffix[1:].upper()
        raise InputError(f"the preprocessing file is not {kind}: {error}", where=str(path), fix=f"correct the {kind}") from None
    if not isinstance(document, dict):
        raise InputError("the preprocessing file holds no table of keys", where=str(path), fix=f"the keys are {_keys()}")
    try:
        return Preprocess.from_json(document)
    except InputError as error:
        raise InputError(error.what, where=str(path), fix=error.fix) from None


def _value(key: str, value: Any) -> Any:
    """A key's value from text (`--preprocess`) or from JSON or TOML, as the dataclass holds it."""
    if key not in {f.name for f in fields(Preprocess)}:
        raise InputError(f"{key!r} is not a preprocessing key", where="--preprocess", fix=f"the keys are {_keys()}")
    try:
        if key in ("resize", "crop"):
            return _size(value)
        if key == "scale":
            return _number(value)
        if key in ("mean", "std"):
            parts = value.split(";") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
            return tuple(_number(part) for part in parts)
        if key == "pad":
            return int(value)
        return _SPELLINGS.get(str(value).lower(), str(value).lower())
    except (TypeError, ValueError, ZeroDivisionError):
        raise _bad(key, value, _FORMS.get(key, "a word")) from None


_SPELLINGS = {"grey": "gray", "grayscale": "gray", "l": "gray", "chw": "nchw", "hwc": "nhwc", "shortest-side": "shortest"}
_FORMS = {
    "resize": "WIDTHxHEIGHT in pixels, or one number for the shorter side",
    "crop": "WIDTHxHEIGHT in pixels, or one number for a square",
    "scale": "a number or a fraction such as 1/255",
    "mean": "numbers separated by ;",
    "std": "numbers separated by ;",
    "pad": "a whole number from 0 to 255",
}


def _size(value: Any) -> tuple[int, int] | None:
    if value is None or value == "none":
        return None
    parts = value.lower().split("x") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    numbers = [int(part) for part in parts]
    width, height = numbers * 2 if len(numbers) == 1 else numbers
    return width, height


def _number(value: Any) -> float:
    if isinstance(value, str):
        dividend, slash, divisor = value.partition("/")
        return float(dividend) / float(divisor) if slash else float(dividend)
    return float(value)


def _keys() -> str:
    return ", ".join(f.name for f in fields(Preprocess))


def _bad(key: str, value: object, form: str) -> InputError:
    return InputError(f"{value!r} does not fit the preprocessing key {key!r}", where="--preprocess", fix=f"give {form}")


def _decoded(image: Image | np.ndarray, color: str) -> Image:
    import numpy as np
    from PIL import Image as pillow
    from PIL import ImageOps

    if isinstance(image, np.ndarray):
        shape = image.shape
        if image.dtype != np.uint8 or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
            raise InputError(
                f"a picture must be uint8 H x W, H x W x 1 or H x W x 3, not {'x'.join(map(str, shape))}:{image.dtype}",
                fix="give 8-bit pixels, or data that are already what the model takes and no --preprocess",
            )
        image = pillow.fromarray(image[:, :, 0] if len(shape) == 3 and shape[2] == 1 else image)
    if image.mode.startswith(("I", "F")):
        raise InputError(
            f"the picture has more than 8 bits per channel (Pillow mode {image.mode})",
            fix="convert it to 8 bits, or give arrays as .npy",
        )
    upright = ImageOps.exif_transpose(image)
    rgb = upright.convert("RGB")  # alpha is dropped, palettes are looked up
    return rgb.convert("L") if color == "gray" else rgb


def _resized(image: Image, steps: Preprocess) -> Image:
    from PIL import Image as pillow

    if steps.resize is None:
        return image
    filter_ = pillow.Resampling[steps.interpolation.upper()]
    width, height = steps.resize
    if steps.mode == "stretch":
        return image.resize((width, height), filter_)
    if steps.mode == "shortest":  # torchvision.transforms.functional.resize with one number
        short, long = sorted(image.size)
        longer = int(width * long / short)
        return image.resize((width, longer) if image.width <= image.height else (longer, width), filter_)
    ratio = min(width / image.width, height / image.height)
    fitted = image.resize((max(1, round(image.width * ratio)), max(1, round(image.height * ratio))), filter_)
    canvas = pillow.new(image.mode, (width, height), steps.pad if image.mode == "L" else (steps.pad,) * 3)
    canvas.paste(fitted, ((width - fitted.width) // 2, (height - fitted.height) // 2))
    return canvas


def _center_cropped(image: Image, crop: tuple[int, int]) -> Image:
    width, height = crop
    if image.width < width or image.height < height:
        raise InputError(
            f"the picture is {image.width}x{image.height}, smaller than the crop {width}x{height}",
            fix="add resize= to --preprocess, or use mode=letterbox",
        )
    left = round((image.width - width) / 2)  # as torchvision.transforms.CenterCrop
    top = round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
