"""Changes of the scene in training, drawn anew for each image in each epoch.

They come before a perturbation, which is one of the sensor: a hot pixel of an image stays
where it is, whatever the scene does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_tf.errors import InvalidArgument
from robust_tf.settings import Setting

if TYPE_CHECKING:
    import tensorflow as tf

AUGMENTATIONS = ("flip", "shift")
# The largest shift: 4 pixels of 32.
_SHIFT = 1 / 8


def parse(text: str) -> tuple[str, ...]:
    """The augmentations of a text: "none", or some of `AUGMENTATIONS`, separated by commas.

    Raises:
        InvalidArgument: if it names another one, or one twice.
    """
    names = () if text == "none" else tuple(text.split(","))
    if len(set(names)) < len(names) or not set(names) <= set(AUGMENTATIONS):
        raise InvalidArgument("augment", text, f"none, or some of {', '.join(AUGMENTATIONS)}")
    return names


def _checked(text: str) -> str:
    parse(text)
    return text


SETTING = Setting(
    f"none, or some of {', '.join(AUGMENTATIONS)}, separated by commas: changes of the training "
    "images before they are perturbed, anew in each epoch. flip: left and right change places, "
    "and the trained network averages over an image and its mirror image; shift: by up to an "
    "eighth of a side. By default no flip for images of one channel.",
    parse=_checked,
)


def augment(images: tf.Tensor, seeds: tf.Tensor, names: tuple[str, ...]) -> tf.Tensor:
    """Changes each image of a batch by its own draw; callable in a graph.

    Args:
        images: float32, shape [B, H, W, C].
        seeds: int32, shape [B, 2].
        names: "flip": left and right change places, for every second image on average;
            "shift": by whole pixels, up to an eighth of each side in each direction, all as
            likely; what comes in at a border is the image mirrored there.

    Returns:
        float32 tensor of shape [B, H, W, C].
    """
    import tensorflow as tf

    from robust_tf.seeds import uniform

    draws = uniform(seeds, 3)
    _, height, width, _ = images.shape
    rows, columns = tf.range(height)[tf.newaxis], tf.range(width)[tf.newaxis]
    if "flip" in names:
        columns = tf.where(draws[:, :1] < 0.5, columns[:, ::-1], columns)
    if "shift" in names:
        rows = _mirrored(rows + _steps(draws[:, 1:2], height), height)
        columns = _mirrored(columns + _steps(draws[:, 2:], width), width)
    batch = tf.shape(images)[0]
    rows, columns = (tf.broadcast_to(x, [batch, x.shape[1]]) for x in (rows, columns))
    moved = tf.gather(images, rows, axis=1, batch_dims=1)
    return tf.ensure_shape(tf.gather(moved, columns, axis=2, batch_dims=1), images.shape)


def _steps(draws: tf.Tensor, size: int) -> tf.Tensor:
    """Uniform whole numbers from -s to s, s being the largest shift of a side."""
    import tensorflow as tf

    most = int(size * _SHIFT)
    return tf.cast(draws * (2 * most + 1), tf.int32) - most


def _mirrored(places: tf.Tensor, size: int) -> tf.Tensor:
    """Places beyond a border brought back in; the border pixel itself is not repeated."""
    import tensorflow as tf

    last = size - 1
    return last - tf.abs(last - tf.abs(places))
