"""One picture file: what image it becomes, by the truth of Pillow, TensorFlow and Keras."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from robust_tf.data import picture_files
from robust_tf.data.names import RESIZES

H, W = 12, 17


def colours(seed=0, height=H, width=W):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height, width):
    """Waves, of which all ways to resize make nearly the same."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(y / height + k) * np.cos(x / width - k) for k in range(3)]
    return np.uint8(np.stack(waves, axis=-1) * 100 + 127)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def of_palette(array, transparent=False):
    image = Image.fromarray(array).quantize(7)
    seen = np.asarray(image.convert("RGB"))
    if transparent:
        image.info["transparency"] = bytes([0, 128, 255, 255, 0, 0, 9])
    return image, seen


def forms():
    """Names, and functions that write a file and say which bytes are seen in it."""
    rgb, grey = colours(), colours()[..., 0]
    alpha = colours(5)[..., 0]

    def lossless(name, image, seen, **options):
        return name, lambda path: (image.save(path / name, **options), seen)[1]

    def lossy(name, image, **options):
        def write(path):
            image.save(path / name, **options)
            with Image.open(path / name) as stored:
                return np.asarray(stored.convert("L" if image.mode == "L" else "RGB"))

        return name, write

    with_alpha = Image.fromarray(np.dstack([rgb, alpha]))
    palette, palette_seen = of_palette(rgb)
    clear, clear_seen = of_palette(rgb, transparent=True)
    deep = Image.fromarray(grey.astype(np.uint16) * 256 + alpha)
    grey_alpha = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    bits = Image.fromarray(grey > 127)
    frames = [Image.fromarray(255 - grey)]
    jpeg = Image.fromarray(rgb)

    def deep_colours(path):  # which Pillow does not write
        file = tf.io.encode_png(rgb.astype(np.uint16) * 256 + alpha[..., np.newaxis])
        (path / "deep_colours.png").write_bytes(file.numpy())
        return rgb

    return [
        lossless("colours.png", Image.fromarray(rgb), rgb),
        lossless("colours.bmp", Image.fromarray(rgb), rgb),
        lossless("colours.webp", Image.fromarray(rgb), rgb, lossless=True),
        lossless("alpha.png", with_alpha, rgb),
        lossless("alpha.webp", with_alpha, rgb, lossless=True, exact=True),
        lossless("palette.png", palette, palette_seen),
        lossless("palette.gif", palette, palette_seen),
        lossless("palette.bmp", palette, palette_seen),
        lossless("clear.png", clear, clear_seen, transparency=clear.info["transparency"]),
        lossless("grey.png", Image.fromarray(grey), grey),
        lossless("grey.bmp", Image.fromarray(grey), grey),
        lossless("grey_alpha.png", grey_alpha, grey),
        lossless("animated.webp", jpeg, rgb, save_all=True, append_images=frames, lossless=True),
        lossless("animated.png", jpeg, rgb, save_all=True, append_images=[with_alpha]),
        lossless("animated.gif", Image.fromarray(grey), grey, save_all=True, append_images=frames),
        lossless("deep.png", deep, grey),
        ("deep_colours.png", deep_colours),
        lossless("bits.png", bits, np.uint8(255) * (grey > 127)),
        lossy("colours.jpg", jpeg),
        lossy("grey.jpg", Image.fromarray(grey)),
        lossy("progressive.jpeg", jpeg, progressive=True),
        lossy("cmyk.jpg", jpeg.convert("CMYK")),
        lossy("several.jpg", jpeg, format="MPO", save_all=True, append_images=[jpeg]),
        lossy("upper.JPG", jpeg, format="JPEG"),
    ]


@pytest.mark.parametrize(("name", "write"), forms(), ids=[name for name, _ in forms()])
def test_a_picture_of_any_form_is_as_it_is_seen(tmp_path, name, write):
    seen = write(tmp_path)
    header = picture_files.header(tmp_path / name)
    assert header == picture_files.Header((H, W), seen.ndim == 2)
    in_colour = seen if seen.ndim == 3 else np.repeat(seen[..., np.newaxis], 3, axis=-1)
    read = functools.partial(picture_files.read, tmp_path / name, resize="crop")
    np.testing.assert_array_equal(read(shape=(H, W, 3)), in_colour)
    in_grey = seen[..., np.newaxis] if seen.ndim == 2 else in_colour @ [[0.299], [0.587], [0.114]]
    assert np.abs(read(shape=(H, W, 1)) - in_grey).max() <= 0.51


# What each orientation does to the stored picture, by the EXIF standard.
ORIENTATIONS = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image.swapaxes(0, 1)[:, ::-1],
    7: lambda image: image.swapaxes(0, 1)[::-1, ::-1],
    8: lambda image: image.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("form", ["png", "webp", "jpg"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_orientation_is_followed(tmp_path, orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{form}"
    options = {"lossless": True} if form == "webp" else {}
    Image.fromarray(colours()).save(path, exif=exif, **options)
    with Image.open(path) as image:
        stored = np.asarray(image)
    seen = ORIENTATIONS[orientation](stored)
    assert picture_files.header(path).size == seen.shape[:2]
    np.testing.assert_array_equal(picture_files.read(path, seen.shape, "crop"), seen)


def test_a_damaged_orientation_is_none(tmp_path):
    save(tmp_path / "a.jpg", smooth(H, W), exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xffgarbage")
    assert picture_files.header(tmp_path / "a.jpg").size == (H, W)
    assert picture_files.read(tmp_path / "a.jpg", (H, W, 3), "crop") is not None


SHAPES = [(40, 60), (60, 40), (33, 97), (8, 16), (5, 7), (1, 50), (64, 1)]


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_squashing_is_tensorflows_antialiased_resizing(tmp_path, height, width):
    array = colours(height, height, width)
    save(tmp_path / "a.png", array)
    truth = tf.image.resize(array, (16, 16), antialias=True)
    own = picture_files.read(tmp_path / "a.png", (16, 16, 3), "squash")
    assert np.abs(own - truth.numpy()).max() <= 1.5  # Pillow rounds after either axis


@pytest.mark.parametrize("resize", ["crop", "pad"])
@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (33, 97), (32, 32), (9, 30)])
def test_cropping_and_padding_are_keras_own(tmp_path, resize, height, width):
    save(tmp_path / "a.png", smooth(height, width))
    ours = picture_files.read(tmp_path / "a.png", (16, 24, 3), resize).astype(float)
    how = {"crop": "crop_to_aspect_ratio", "pad": "pad_to_aspect_ratio"}[resize]
    layer = keras.layers.Resizing(16, 24, antialias=True, **{how: True})
    theirs = np.asarray(layer(smooth(height, width)[np.newaxis].astype("float32")))[0]
    shown = ours.min(axis=-1) > 0
    scale = min(16 / height, 24 / width)
    sides = (16, 24) if resize == "crop" else (round(scale * height), round(scale * width))
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    assert (len(rows), len(columns)) == sides and shown.sum() == sides[0] * sides[1]
    for found, side in ((rows, 16), (columns, 24)):
        assert abs(found.mean() - (side - 1) / 2) <= 0.5  # as much black on either side
    # Keras pads first and takes fractions of pixels.
    inner = np.s_[rows[1] : rows[-1], columns[1] : columns[-1]]
    assert np.abs(ours - theirs)[inner].max() <= 10
    assert np.abs(ours - theirs)[inner].mean() <= 4


@pytest.mark.parametrize("resize", RESIZES)
def test_all_ways_to_resize_keep_what_fits(tmp_path, resize):
    save(tmp_path / "a.png", colours())
    own = picture_files.read(tmp_path / "a.png", (H, W, 3), resize)
    np.testing.assert_array_equal(own, colours())
    for height, width in ((1, 500), (500, 1)):  # no side becomes nothing
        save(tmp_path / "b.png", colours(1, height, width))
        assert picture_files.read(tmp_path / "b.png", (8, 8, 1), resize).shape == (8, 8, 1)


@pytest.mark.parametrize("form", ["JPEG", "MPO"])
def test_large_jpegs_are_decoded_smaller_and_look_the_same(tmp_path, form):
    array = smooth(600, 900)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a.jpg", array, format=form, exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        whole = ImageOps.exif_transpose(image).resize((32, 48), Image.Resampling.BILINEAR)
    own = picture_files.read(tmp_path / "a.jpg", (48, 32, 3), "squash").astype(float)
    assert np.abs(own - np.asarray(whole)).max() <= 6
    assert np.abs(own - np.asarray(whole)).mean() <= 1
