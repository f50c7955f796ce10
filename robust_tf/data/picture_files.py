"""Picture files of any size and mode as bytes of one size, one file at a time; Pillow decodes them.

Which files make a dataset is unknown here.
"""

import contextlib
import dataclasses
import math
import os
import threading
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

FORMATS = "PNG, JPEG, BMP, GIF or WebP"
# Pixels of the largest picture that is read, which takes 4 GiB meanwhile.
MAX_PIXELS = 2**29
# Pictures of more pixels are decoded one at a time, so that they take no more together.
_LARGE, _alone = 2**26, threading.Lock()
# Why a file is left out.
DAMAGED = f"which are no {FORMATS} or are damaged"
_TOO_LARGE = "which have more than {:,} pixels"
# Pillow's names of them; of a JPEG with others behind it (MPO) the first is read.
_PLUGINS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_ORIENTATION = 0x0112
# Values of it where height and width change places.
_ON_ITS_SIDE = range(5, 9)


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says before its pixels are decoded.

    Attributes:
        size: (H, W) as it is seen, its orientation followed.
        is_grey: whether it has no colours: by its mode, or those of its palette.
    """

    size: tuple[int, int]
    is_grey: bool


def header(path: os.PathLike) -> Header | str:
    """What a picture file says of itself, or in words why it is left out."""
    try:
        if not os.path.isfile(path):  # opening a pipe would wait for ever
            return DAMAGED
        with _opened(path) as image:
            size = image.height, image.width
            if math.prod(size) > MAX_PIXELS:
                return _TOO_LARGE.format(MAX_PIXELS)
            # A PNG without it would be decoded to look for it behind the pixels.
            if image.format != "PNG" or "exif" in image.info:
                turned = image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
                size = size[::-1] if turned else size
            return Header(size, _is_grey(image))
    except Image.DecompressionBombError:  # Pillow's reader of WebP has a limit of its own
        return _TOO_LARGE.format(2 * (Image.MAX_IMAGE_PIXELS or 0))
    except Exception:  # whatever a damaged file makes Pillow raise
        return DAMAGED


@contextlib.contextmanager
def _opened(path: os.PathLike) -> Iterator[Image.Image]:
    """Opens a picture as `Image.open` does, but for its limit and warning, which name no file."""
    Image.init()
    with open(path, "rb") as file:
        start = file.read(16)
        file.seek(0)
        for factory, accepts in map(Image.OPEN.__getitem__, _PLUGINS):
            if accepts and accepts(start) is True:  # a text says that Pillow was built without
                with factory(file, os.fspath(path)) as image:
                    yield image
                return
    raise ValueError(f"no {FORMATS}")


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        colours = np.reshape(image.getpalette() or [], (-1, 3))
        return bool((colours == colours[:, :1]).all())
    return image.mode in ("1", "L", "LA") or image.mode.startswith("I")


def read(path: os.PathLike, shape: tuple[int, int, int], resize: str) -> np.ndarray | None:
    """A picture as it is seen: its EXIF orientation is followed, and of several it is the first.

    16 bits become their upper eight. An alpha channel is dropped, as `encoded` of an export
    does: what is transparent has the colour that the file has there. Sizes are changed with a
    triangle filter as wide as the change needs (Pillow's `BILINEAR`, TensorFlow's bilinear
    with `antialias`); of a JPEG far larger than the image, libjpeg decodes a half, a quarter
    or an eighth of each side first, never less than twice what is needed.

    Args:
        path: the file.
        shape: (H, W, C) of the image to make; C is 1 or 3.
        resize: one of `names.RESIZES`. crop: its centre, with the aspect ratio of the image;
            pad: all of it, with black beside or above and below; squash: all of it, distorted.

    Returns:
        uint8 array of that shape; None if the file is no picture, or damaged.
    """
    height, width, channels = shape
    try:
        with contextlib.ExitStack() as stack:
            image = stack.enter_context(_opened(path))
            if math.prod(image.size) > _LARGE:
                stack.enter_context(_alone)
            image.draft(None, (2 * max(height, width),) * 2)
            ImageOps.exif_transpose(image, in_place=True)
            plain = _plain(image, channels)
            return np.asarray(_resized(plain, (width, height), resize)).reshape(shape)
    except Exception:  # whatever a damaged file makes Pillow raise
        return None


def _plain(image: Image.Image, channels: int) -> Image.Image:
    """Grey or red, green and blue, in bytes."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("P", "PA"):  # Pillow warns of some that are transparent otherwise
        image = image.convert("RGBA")
    if image.mode not in ("1", "L", "LA", "RGB"):
        image = image.convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")


def _resized(image: Image.Image, size: tuple[int, int], resize: str) -> Image.Image:
    if image.size == size:
        return image
    if resize == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    if resize == "squash":
        return image.resize(size, Image.Resampling.BILINEAR)
    scale = min(size[0] / image.width, size[1] / image.height)
    width, height = (max(1, round(scale * side)) for side in image.size)
    padded = Image.new(image.mode, size)
    corner = (size[0] - width) // 2, (size[1] - height) // 2
    padded.paste(image.resize((width, height), Image.Resampling.BILINEAR), corner)
    return padded
