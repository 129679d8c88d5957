"""Preprocessing: what users write, what travels in the manifest, and arithmetic that numpy alone can repeat."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from edgekit.errors import InputError
from edgekit.preprocess import INTERPOLATIONS, PRESETS, Preprocess

IMAGENET = "resize=256,crop=224,scale=1/255,mean=0.485;0.456;0.406,std=0.229;0.224;0.225,color=rgb,layout=nchw"


@pytest.fixture
def photo():
    """A picture with structure at all scales: smooth colours, edges and noise."""
    y, x = np.mgrid[0:120, 0:161]
    noise = np.random.default_rng(0).integers(0, 60, (120, 161, 3))
    smooth = np.stack([x, y, (x * y) % 195], axis=-1)
    return (smooth + noise).clip(0, 255).astype(np.uint8)


def test_the_long_form_of_a_preset():
    assert Preprocess.parse(IMAGENET) == PRESETS["imagenet"] == Preprocess.parse("imagenet")


def test_a_preset_can_be_changed():
    steps = Preprocess.parse("imagenet,crop=192,layout=nhwc")
    assert (steps.crop, steps.layout, steps.resize) == ((192, 192), "nhwc", (256, 256))


@pytest.mark.parametrize(
    "text", [*PRESETS, "resize=20x30,mode=letterbox,pad=114,color=bgr,scale=1/3,mean=0.1,std=0.7,dtype=float16"]
)
def test_json_keeps_every_bit(text):
    steps = Preprocess.parse(text)
    assert Preprocess.from_json(json.loads(json.dumps(steps.to_json()))) == steps


def test_a_toml_file(tmp_path):
    path = tmp_path / "steps.toml"
    path.write_text(
        'resize = 256\ncrop = 224\nscale = "1/255"\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\nlayout = "nchw"'
    )
    assert Preprocess.parse(str(path)) == PRESETS["imagenet"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("imagnet", "presets? imagenet, tf, caffe, unit, none"),
        ("resize=224,colour=rgb", "'colour'.*color, resize, mode"),
        ("resize=big", "'big'.*WIDTHxHEIGHT"),
        ("unit,mean=1;2", "mean.*1 or 3 numbers"),
        ("unit,layout=ncwh", "'ncwh'.*nchw, nhwc"),
        ("unit,dtype=uint8,scale=2", "holds 0 to 510"),
        ("imagenet,color=gray", "mean anew as one number"),
        ("resize=20x30,mode=shortest", "one number where mode=shortest"),
        ("steps.json", "cannot read"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        Preprocess.parse(text)
    flat = " ".join(str(error.value).split())
    assert all(part in flat for part in said.replace("presets? ", "").split(".*")), flat


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("geometry", ["resize=60x90", "resize=50,crop=44x48", "resize=64x64,mode=letterbox,pad=9", "resize=200"])
def test_numpy_alone_can_repeat_it(photo, geometry, interpolation):
    """docs/preprocess.md describes the function below; the device harness may be written from it."""
    text = f"{geometry},interpolation={interpolation},color=bgr,scale=1/255,mean=0.4;0.5;0.6,std=0.2;0.3;0.4,layout=nchw"
    steps = Preprocess.parse(text)
    np.testing.assert_array_equal(steps.apply(photo), as_documented(photo, steps.to_json()))


def test_torchvision_gives_the_same_sample(photo):
    """The classic evaluation transform, against torchvision's arithmetic: uint8 / 255 in float32, then normalized."""
    sample = Preprocess.parse("imagenet,resize=100,crop=96").apply(photo)
    image = Image.fromarray(photo)
    image = image.resize((int(100 * 161 / 120), 100), Image.Resampling.BILINEAR)
    left, top = round((image.width - 96) / 2), round((image.height - 96) / 2)
    pixels = np.asarray(image.crop((left, top, left + 96, top + 96)), np.float32) / np.float32(255)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    np.testing.assert_allclose(sample, ((pixels - mean) / std).transpose(2, 0, 1), rtol=0, atol=5e-7)


def test_the_keras_modes(photo):
    np.testing.assert_array_equal(Preprocess.parse("tf").apply(photo), (photo / 127.5 - 1).astype(np.float32))
    caffe = photo[:, :, ::-1].astype(np.float64) - [103.939, 116.779, 123.68]
    np.testing.assert_array_equal(Preprocess.parse("caffe").apply(photo), caffe.astype(np.float32))
    np.testing.assert_array_equal(Preprocess.parse("none").apply(photo), photo.astype(np.float32))


def test_integer_samples_are_rounded_half_to_even():
    pixels = np.arange(6, dtype=np.uint8).reshape(1, 6)
    assert Preprocess.parse("color=gray,scale=1/2,dtype=uint8").apply(pixels).ravel().tolist() == [0, 0, 1, 2, 2, 2]
    assert Preprocess.parse("color=gray,mean=128,dtype=int8").apply(pixels).ravel().tolist() == [
        -128,
        -127,
        -126,
        -125,
        -124,
        -123,
    ]


def test_gray_is_one_channel_and_a_gray_picture_keeps_its_values():
    gray = np.arange(200, dtype=np.uint8).reshape(10, 20)
    assert Preprocess.parse("color=gray").apply(gray).shape == (10, 20, 1)
    np.testing.assert_array_equal(Preprocess.parse("color=gray,layout=nchw").apply(gray), gray[None].astype(np.float32))


def test_a_phone_photo_is_turned_upright(tmp_path, photo):
    lying = Image.fromarray(photo).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held a quarter turn
    lying.save(tmp_path / "photo.png", exif=exif)
    with Image.open(tmp_path / "photo.png") as image:
        np.testing.assert_array_equal(Preprocess.parse("none").apply(image), photo.astype(np.float32))


def test_what_cannot_be_a_picture():
    with pytest.raises(InputError, match="must be uint8"):
        Preprocess().apply(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(InputError, match="more than 8 bits"):
        Preprocess().apply(Image.fromarray(np.zeros((4, 4), np.uint16)))
    with pytest.raises(InputError, match="smaller than the crop"):
        Preprocess(crop=(8, 8)).apply(np.zeros((4, 4, 3), np.uint8))


def as_documented(pixels, steps):
    """Numpy only: `pixels` is H x W x 3, uint8, RGB; `steps` is the manifest's table."""
    height, width = pixels.shape[:2]
    if steps["resize"]:
        w, h = steps["resize"]
        if steps["mode"] == "shortest":
            longer = int(w * max(width, height) / min(width, height))
            w, h = (w, longer) if width <= height else (longer, w)
        if steps["mode"] == "letterbox":
            ratio = min(w / width, h / height)
            w, h = max(1, round(width * ratio)), max(1, round(height * ratio))
        pixels = resized(pixels, w, h, steps["interpolation"])
        if steps["mode"] == "letterbox":
            canvas = np.full((steps["resize"][1], steps["resize"][0], 3), steps["pad"], np.uint8)
            top, left = (canvas.shape[0] - h) // 2, (canvas.shape[1] - w) // 2
            canvas[top : top + h, left : left + w] = pixels
            pixels = canvas
    if steps["crop"]:
        w, h = steps["crop"]
        left, top = round((pixels.shape[1] - w) / 2), round((pixels.shape[0] - h) / 2)
        pixels = pixels[top : top + h, left : left + w]
    if steps["color"] == "bgr":
        pixels = pixels[:, :, ::-1]
    values = (pixels.astype(np.float64) * steps["scale"] - np.array(steps["mean"])) / np.array(steps["std"])
    return (values.transpose(2, 0, 1) if steps["layout"] == "nchw" else values).astype(steps["dtype"])


def resized(pixels, width, height, interpolation):
    if interpolation == "nearest":
        rows, columns = nearest(pixels.shape[0], height), nearest(pixels.shape[1], width)
        return pixels[rows][:, columns]
    if width != pixels.shape[1]:
        pixels = weighted(pixels.transpose(1, 0, 2), width, interpolation).transpose(1, 0, 2)
    return weighted(pixels, height, interpolation) if height != pixels.shape[0] else pixels


def nearest(length, size):
    scale, position, indices = length / size, length / size * 0.5, []
    for _ in range(size):
        indices.append(int(position))
        position += scale  # added up, not multiplied: the last bit decides at edges between pixels
    return indices


def weighted(pixels, size, interpolation):
    """Each output row is a weighted mean of input rows, in 22-bit fixed point."""
    kernel, support = KERNELS[interpolation]
    scale = pixels.shape[0] / size
    stretch = max(scale, 1.0)
    result = np.empty((size, *pixels.shape[1:]), np.uint8)
    for i in range(size):
        center = (i + 0.5) * scale
        first = max(int(center - support * stretch + 0.5), 0)
        last = min(int(center + support * stretch + 0.5), pixels.shape[0])
        weights = [kernel((j - center + 0.5) * (1.0 / stretch)) for j in range(first, last)]
        total = 0.0
        for weight in weights:
            total += weight
        fixed = [int(w / total * 2**22 + (0.5 if w / total >= 0 else -0.5)) for w in weights]
        rows = pixels[first:last].astype(np.int64)
        summed = np.tensordot(np.array(fixed, np.int64), rows, axes=1) + 2**21
        result[i] = (summed >> 22).clip(0, 255)
    return result


def triangle(x):
    return max(1.0 - abs(x), 0.0)


def box(x):
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def hamming(x):
    x = abs(x)
    if x == 0.0:
        return 1.0
    return 0.0 if x >= 1.0 else math.sin(x * math.pi) / (x * math.pi) * (0.54 + 0.46 * math.cos(x * math.pi))


def bicubic(x, a=-0.5):
    x = abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2.0 else 0.0


def lanczos(x):
    def sinc(v):
        return 1.0 if v == 0.0 else math.sin(v * math.pi) / (v * math.pi)

    return sinc(x) * sinc(x / 3) if -3.0 <= x < 3.0 else 0.0


KERNELS = {
    "box": (box, 0.5),
    "bilinear": (triangle, 1.0),
    "hamming": (hamming, 1.0),
    "bicubic": (bicubic, 2.0),
    "lanczos": (lanczos, 3.0),
}
