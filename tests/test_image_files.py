"""Image files as `encoded` takes them: what is refused before it is decoded, and the rest."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from robust_tf.saved_models import image_files

SHAPE = (12, 16, 3)


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def decoded(files: tf.Tensor) -> tf.Tensor:
    return image_files.decoded(files, SHAPE)


def file(image: Image.Image, form: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    """A black PNG, made without its pixels ever being in memory."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    compress = zlib.compressobj(1)
    row = bytes(1 + (width * bits * (3 if colour == 2 else 1) + 7) // 8)
    content = b"".join(compress.compress(row) for _ in range(height)) + compress.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    ends = (chunk(b"IHDR", header), chunk(b"IDAT", content), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(ends)


def gif(*frames: tuple[int, int], between: bytes = b"") -> bytes:
    """A GIF that claims frames of some sizes, without their pixels."""
    blocks = (
        between + struct.pack("<cHHHHB", b",", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00"
        for width, height in frames
    )
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + b"".join(blocks) + b";"


def jpeg(width: int, height: int) -> bytes:
    """A JPEG with another size written into its header."""
    content = file(Image.new("RGB", (16, 16)), "JPEG")
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


def bmp(width: int, height: int) -> bytes:
    content = file(Image.new("RGB", (16, 16)), "BMP")
    return content[:18] + struct.pack("<ii", width, height) + content[26:]


TOO_LARGE = {
    "png": png(5001, 5000, bits=1),
    "png of one row": png(25_000_001, 1, bits=1),
    "png header": png(1, 1)[:16] + b"\x7f\xff\xff\xff" * 2 + png(1, 1)[24:],
    "jpeg": jpeg(5001, 5000),
    "jpeg, the largest": jpeg(65_500, 65_500),
    "bmp": bmp(5001, 5000),
    "bmp from top to bottom": bmp(5001, -5000),
    "gif": gif((5001, 5000)),
    "gif, second frame": gif((1, 1), (65_535, 65_535)),
    "gif of a wide and a high frame": gif((65_535, 1), (1, 65_535)),
    "gif of many frames": gif(*[(1000, 1000)] * 26),
    "gif, after a comment": gif((5001, 5000), between=b"!\xfe\x03abc\x00"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_too_many_pixels_are_refused_before_they_are_decoded(name, monkeypatch):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        decoded(tf.constant([TOO_LARGE[name]]))
    expected = r"images: expected files of at most 25000000 pixels, received"
    assert expected in caught.value.message


ODD = {
    "webp": file(Image.new("RGB", (8, 8)), "WEBP"),
    "tiff": file(Image.new("RGB", (8, 8)), "TIFF"),
    "text": b"not an image",
    "empty": b"",
    "start of a jpeg": b"\xff\xd8",
}


@pytest.mark.parametrize("name", ODD)
def test_other_files_are_an_error_that_names_the_formats(name):
    with pytest.raises(tf.errors.InvalidArgumentError, match="files of PNG, JPEG, GIF, BMP"):
        decoded(tf.constant([ODD[name]]))


def rle() -> bytes:
    content = file(Image.new("P", (8, 8)), "BMP")
    return content[:30] + struct.pack("<I", 1) + content[34:]


ILLEGIBLE = {
    "bmp of 1 bit": file(Image.new("1", (8, 8)), "BMP"),
    "bmp, compressed": rle(),
    "bmp of OS/2": file(Image.new("RGB", (8, 8)), "BMP")[:14] + b"\x0c" + bytes(60),
    "png without a header": b"\x89PNG\r\n\x1a\n",
    "png, something before the header": png(1, 1)[:8] + b"\0\0\0\0abCd\0\0\0\0" + png(1, 1)[8:],
    "gif of too many blocks": gif((8, 8), between=b"!\xfe" + b"\x01a" * 20_000 + b"\x00"),
    "gif with an empty extension": gif((8, 8), between=b"!\xfe\x00"),
}


@pytest.mark.parametrize("name", ILLEGIBLE)
def test_a_header_that_is_not_legible_is_refused(name):
    with pytest.raises(tf.errors.InvalidArgumentError, match="images: expected a legible header"):
        decoded(tf.constant([ILLEGIBLE[name]]))


def before(content: bytes, channels: int) -> np.ndarray:
    """The decoding of earlier exports, which looked at no header."""
    image = tf.cast(tf.io.decode_image(content, expand_animations=False), tf.float32) / 255.0
    if image.shape[-1] < 3:
        image = tf.repeat(image[..., :1], channels, axis=-1)
    else:
        image = image[..., :3] if channels == 3 else tf.image.rgb_to_grayscale(image[..., :3])
    return tf.clip_by_value(tf.image.resize(image, SHAPE[:2], antialias=True), 0.0, 1.0).numpy()


def pictures() -> dict[str, bytes]:
    random = np.random.default_rng(5)
    smooth = Image.fromarray(random.integers(0, 256, [5, 6, 3], np.uint8)).resize((90, 70))
    kept = {
        f"png {mode}": file(smooth.convert(mode)) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")
    }
    kept |= {f"jpeg {mode}": file(smooth.convert(mode), "JPEG") for mode in ("L", "RGB", "CMYK")}
    kept |= {f"bmp {mode}": file(smooth.convert(mode), "BMP") for mode in ("L", "RGB", "RGBA")}
    frames = [smooth.rotate(angle) for angle in (30, 60)]
    kept["gif"] = file(smooth, "GIF")
    kept["gif of frames"] = file(smooth, "GIF", save_all=True, append_images=frames)
    kept["progressive"] = file(smooth, "JPEG", progressive=True)
    kept["png, interlaced"] = tf.io.encode_png(np.asarray(smooth)).numpy()
    deep = (np.asarray(smooth.convert("L")).astype(np.uint16) << 8) + 77
    kept["png of 16 bits"] = tf.io.encode_png(deep[..., np.newaxis]).numpy()
    return kept


@pytest.mark.parametrize("channels", [1, 3])
def test_other_files_are_decoded_as_ever(channels):
    files = pictures()
    received = image_files.decoded(tf.constant(list(files.values())), (*SHAPE[:2], channels))
    for name, image in zip(files, received.numpy()):
        np.testing.assert_array_equal(image, before(files[name], channels), err_msg=name)


@pytest.mark.parametrize("colours", [2, 7, 200, 256])
def test_palettes_of_bmps_are_looked_up(colours):
    random = np.random.default_rng(colours)
    image = Image.fromarray(random.integers(0, colours, [12, 16], np.uint8), "P")
    image.putpalette(random.integers(0, 256, 3 * colours, np.uint8).tobytes())
    (received,) = decoded(tf.constant([file(image, "BMP")])).numpy()
    np.testing.assert_allclose(255 * received, np.asarray(image.convert("RGB")), atol=1e-4)


def test_a_grey_palette_makes_a_grey_image():
    values = np.random.default_rng(0).integers(0, 256, [12, 16], np.uint8)
    image = Image.fromarray(values, "P")
    image.putpalette(np.repeat(255 - np.arange(256, dtype=np.uint8), 3).tobytes())
    (grey,) = image_files.decoded(tf.constant([file(image, "BMP")]), (12, 16, 1)).numpy()
    np.testing.assert_array_equal(grey[..., 0], (255 - values) / np.float32(255))


def test_an_orientation_in_exif_is_not_followed():
    pixels = np.zeros([12, 16, 3], np.uint8)
    pixels[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(pixels)
    contents = [file(image, "JPEG"), file(image, "JPEG", exif=exif)]
    plain, turned = decoded(tf.constant(contents)).numpy()
    np.testing.assert_array_equal(plain, turned)


def test_the_memory_of_an_answer_is_bounded(exported, forks, tmp_path, tmp_path_factory):
    """In a process of its own: of files that claim gigabytes, and of the largest allowed."""
    bombs = [png(13_700, 13_700, bits=1), png(27_000, 27_000, bits=1), gif((65_535, 65_535))]
    contents = [*bombs, png(5000, 5000, colour=2)]
    for i, content in enumerate(contents):
        (tmp_path / str(i)).write_bytes(content)
    line = ["tests.image_memory", str(exported), *(str(tmp_path / str(i)) for i in range(4))]
    done = forks.run(line, tmp_path_factory.mktemp("output"), os.environ, 120)
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    assert len(lines) == 5, done.stderr  # the first of the export's own example
    for megabytes, _, answer in lines[1:4]:
        assert float(megabytes) < 50 and "of at most 25000000 pixels" in answer
    megabytes, _, answer = lines[4]
    assert float(megabytes) < 600 and answer.isdecimal()
