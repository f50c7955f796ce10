"""Colour filters: images as mosaics of one value per photosite, and back.

Demosaicing is bilinear (each missing colour is the mean of its nearest photosites), or that of
Malvar, He and Cutler (*High-quality linear interpolation for demosaicing of Bayer-patterned color
images*, ICASSP 2004), which adds the Laplacian of the photosite's own colour. Borders are
mirrored without repeating the edge, so that colours stay in step.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from robust_tf.xla import in_xla, not_constant

# The colours of two by two photosites, row by row.
TILES = ("RGGB", "BGGR", "GRBG", "GBRG")
METHODS = ("bilinear", "malvar")
# What each photosite of the sums in `demosaic` counts, in sixteenths, by its place: for its own
# colour; green where it is missing; red or blue at a green photosite, in its row or in its column;
# and at the other one's.
_SUMS = ("own", "sides", "ends", "corners", "far sides", "far ends")
_SIXTEENTHS = {
    "bilinear": {
        "own": (16, 0, 0, 0, 0, 0),
        "green": (0, 4, 4, 0, 0, 0),
        "in row": (0, 8, 0, 0, 0, 0),
        "in column": (0, 0, 8, 0, 0, 0),
        "other": (0, 0, 0, 4, 0, 0),
    },
    "malvar": {
        "own": (16, 0, 0, 0, 0, 0),
        "green": (8, 4, 4, 0, -2, -2),
        "in row": (10, 8, 0, -2, -2, 1),
        "in column": (10, 0, 8, -2, 1, -2),
        "other": (12, 0, 0, 4, -3, -3),
    },
}


def colours(filter: str, width: int, top: int = 0, left: int = 0) -> np.ndarray:
    """The channel of each photosite of two rows: 0 for red, 1 for green, 2 for blue.

    Args:
        filter: the colours of two by two photosites, row by row: one of `TILES`.
        width: columns of photosites.
        top: the first of the two rows on the sensor.
        left: the first of the columns.

    Returns:
        int32 array of shape [2, width]; the other rows are like these in turn.
    """
    tile = np.array(["RGB".index(one) for one in filter], np.int32).reshape(2, 2)
    rows, columns = (np.arange(2) + top) % 2, (np.arange(width) + left) % 2
    return tile[rows[:, np.newaxis], columns]


def mosaic(images: tf.Tensor, colours: np.ndarray) -> tf.Tensor:
    """The value of each photosite.

    Args:
        images: float32, shape [B, H, W, 3], H even.
        colours: of two rows of photosites, [2, W].

    Returns:
        float32 tensor of shape [B, H, W].
    """
    height, width = images.shape[1:3]
    # Two rows at once, so that what tells colours apart is small.
    red, green, blue = tf.unstack(tf.reshape(images, [-1, height // 2, 2, width, 3]), axis=-1)
    values = tf.where(colours == 0, red, tf.where(colours == 1, green, blue))
    return tf.reshape(values, [-1, height, width])


def demosaic(values: tf.Tensor, colours: np.ndarray, method: str = "bilinear") -> tf.Tensor:
    """The images that a mosaic stands for.

    Args:
        values: float32, shape [B, H, W], H even and each side from 3 on.
        colours: of two rows of photosites, [2, W].
        method: "bilinear" or "malvar".

    Returns:
        float32 tensor of shape [B, H, W, 3], values in [0, 1].
    """
    height, width = values.shape[1:]
    reach = 2  # of the furthest neighbour
    padded = tf.pad(values, [[0, 0], [reach, reach], [reach, reach]], "REFLECT")
    # Each value three times in a row, one for each channel: one loop without cases for all.
    lanes = tf.tile(padded[..., tf.newaxis], [1, 1, 1, 3])
    lanes = tf.reshape(lanes, [-1, height + 2 * reach, 3 * (width + 2 * reach)])
    if in_xla():
        (lanes,) = not_constant((lanes,))  # nor computed anew for each neighbour

    def at(down: int, right: int) -> tf.Tensor:
        first, second = reach + down, 3 * (reach + right)
        found = lanes[:, first : first + height, second : second + 3 * width]
        return tf.reshape(found, [-1, height // 2, 2, 3 * width])

    sums: dict[str, Callable[[], tf.Tensor]] = {
        "own": lambda: at(0, 0),
        "sides": lambda: at(0, -1) + at(0, 1),
        "ends": lambda: at(-1, 0) + at(1, 0),
        "corners": lambda: at(-1, -1) + at(-1, 1) + at(1, -1) + at(1, 1),
        "far sides": lambda: at(0, -2) + at(0, 2),
        "far ends": lambda: at(-2, 0) + at(2, 0),
    }
    found = tf.add_n([sums[name]() * own for name, own in _weights(colours, method).items()])
    return tf.reshape(tf.clip_by_value(found, 0.0, 1.0), [-1, height, width, 3])


def _weights(colours: np.ndarray, method: str) -> dict[str, np.ndarray]:
    """What each sum counts for each channel of a photosite, float32 [2, 3·W]; those not all 0."""
    sixteenths = _SIXTEENTHS[method]
    found = np.zeros([*colours.shape, 3, len(_SUMS)], np.float32)
    for channel in range(3):
        in_row = (colours == channel).any(axis=1, keepdims=True)
        rest = sixteenths["green" if channel == 1 else "other"]
        at_green = np.where(in_row[..., np.newaxis], sixteenths["in row"], sixteenths["in column"])
        missing = np.where((colours == 1)[..., np.newaxis], at_green, rest)
        own = (colours == channel)[..., np.newaxis]
        found[:, :, channel] = np.where(own, sixteenths["own"], missing) / 16
    flat = found.reshape(len(colours), -1, len(_SUMS))
    return {name: flat[..., i] for i, name in enumerate(_SUMS) if flat[..., i].any()}
