"""Exposure and contrast, as graph-mode ops on batches of images."""

import tensorflow as tf

from robust_tf.perturbations.values import on_grid


def exposure(images: tf.Tensor, added: float | tf.Tensor) -> tf.Tensor:
    """Adds to every value and clips to [0, 1].

    ImageNet-C's brightness likewise adds to HSV's value (Hendrycks and Dietterich,
    *Benchmarking neural network robustness to common corruptions and perturbations*, 2019).

    Args:
        images: float32, shape [B, H, W, C], values in [0, 1].
        added: -1 … 1, in units of the value range; a number or a scalar tensor.

    Returns:
        float32 tensor of shape [B, H, W, C], values in [0, 1].
    """
    images = tf.convert_to_tensor(images, tf.float32)
    return tf.clip_by_value(images + tf.cast(added, tf.float32), 0.0, 1.0)


def contrast(images: tf.Tensor, factor: float | tf.Tensor) -> tf.Tensor:
    """Multiplies each value's distance from its channel's mean and clips to [0, 1].

    The mean is that of an image's channel, as in ImageNet-C (see `exposure`).

    Args:
        images: float32, shape [B, H, W, C], values in [0, 1].
        factor: from 0 on; 1 leaves images as they are, 0 leaves the mean alone; a number or a
            scalar tensor.

    Returns:
        float32 tensor of shape [B, H, W, C], values in [0, 1].
    """
    images = tf.convert_to_tensor(images, tf.float32)
    factor = tf.cast(factor, tf.float32)
    # Exact sums and products in float64, whose order and fusing do not matter.
    values = on_grid(tf.cast(images, tf.float64))
    pixels = tf.cast(tf.reduce_prod(tf.shape(images)[1:3]), tf.float64)
    mean = on_grid(tf.reduce_sum(values, axis=[1, 2], keepdims=True) / pixels)
    changed = (values - mean) * tf.cast(factor, tf.float64) + mean
    changed = tf.clip_by_value(tf.cast(changed, tf.float32), 0.0, 1.0)
    return tf.where(factor == 1.0, images, changed)  # which the grid may round
