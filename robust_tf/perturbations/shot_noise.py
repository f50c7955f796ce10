"""Shot noise, as a graph-mode op on batches of images."""

import tensorflow as tf

from robust_tf.perturbations.photons import poisson

# Less than this does not show in float32 values.
_LEAST = 1e-8


def shot(images: tf.Tensor, seeds: tf.Tensor, stddev: float | tf.Tensor) -> tf.Tensor:
    """Counts the electrons of each value, which are Poisson numbers, and clips to [0, 1].

    White is 1/stddev² electrons on average, so that the standard deviation of a value x is
    stddev · √x, before clipping.

    Args:
        images: float32, shape [B, H, W, C], values in [0, 1].
        seeds: int32, shape [B, 2].
        stddev: standard deviation at white, in units of the value range, at least 0; a number
            or a scalar tensor.

    Returns:
        float32 tensor of shape [B, H, W, C], values in [0, 1]: multiples of stddev². Gradients
        are those of the mean, and 0 at the ends of the range.
    """
    stddev = tf.cast(tf.convert_to_tensor(stddev), tf.float64)
    variance = tf.maximum(stddev, _LEAST) ** 2
    white, gain = tf.cast(1.0 / variance, tf.float32), tf.cast(variance, tf.float32)

    @tf.custom_gradient
    def count(images: tf.Tensor) -> tuple:
        values = tf.clip_by_value(poisson(images * white, seeds) * gain, 0.0, 1.0)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.where((values > 0.0) & (values < 1.0), upstream, 0.0)

        return values, gradient

    images = tf.convert_to_tensor(images, tf.float32)
    return tf.where(stddev > _LEAST, count(images), images)
