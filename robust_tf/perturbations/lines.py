"""Hot rows and columns, as graph-mode ops on batches of images."""

import tensorflow as tf

from robust_tf.perturbations.pixels import distinct_positions
from robust_tf.perturbations.values import sizes


def row(images: tf.Tensor, seeds: tf.Tensor, rows: int | tf.Tensor) -> tf.Tensor:
    """Sets distinct random rows to 1 in all channels.

    Args:
        images: float32, shape [B, H, W, C], values in [0, 1].
        seeds: int32, shape [B, 2].
        rows: number of rows per image, 1 … H; an integer or an integer scalar tensor.

    Returns:
        float32 tensor of shape [B, H, W, C]: in each image, `rows` rows, drawn uniformly
        without replacement, are 1.
    """
    images = tf.convert_to_tensor(images, tf.float32)
    hit = _hit(seeds, rows, sizes(images)[1])
    return tf.where(hit[:, :, tf.newaxis, tf.newaxis], 1.0, images)


def column(images: tf.Tensor, seeds: tf.Tensor, columns: int | tf.Tensor) -> tf.Tensor:
    """Sets distinct random columns, 1 … W of them, to 1 in all channels; otherwise as `row`."""
    images = tf.convert_to_tensor(images, tf.float32)
    hit = _hit(seeds, columns, sizes(images)[2])
    return tf.where(hit[:, tf.newaxis, :, tf.newaxis], 1.0, images)


def _hit(seeds: tf.Tensor, count: int | tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """Which of `size` lines are hot, bool [B, size]."""
    positions = distinct_positions(seeds, tf.cast(count, tf.int32), size)
    return tf.reduce_any(positions[:, :, tf.newaxis] == tf.range(size), axis=1)
