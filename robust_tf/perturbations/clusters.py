"""Clusters of hot pixels, as a graph-mode op on batches of images."""

import tensorflow as tf

from robust_tf import seeds as seeds_lib
from robust_tf.perturbations.values import sizes

# The point is one of so many, squared, in each pixel, none of them on a pixel's middle line.
_PLACES = 16


def cluster(images: tf.Tensor, seeds: tf.Tensor, pixels: int | tf.Tensor) -> tf.Tensor:
    """Sets the pixels nearest to a random point of the image to 1 in all channels.

    They are connected by their edges: a step towards the point, along the axis on which it is
    farther away, ends on a pixel that is nearer. In the middle of an image a cluster is round;
    at the border it is cut off, and reaches farther inside.

    Args:
        images: float32, shape [B, H, W, C], values in [0, 1].
        seeds: int32, shape [B, 2].
        pixels: number of pixels per image, 1 … H·W; an integer or an integer scalar tensor.

    Returns:
        float32 tensor of shape [B, H, W, C]: in each image exactly `pixels` pixels are set.
        The point is uniform over the image. Among equally near pixels, upper ones come first,
        then those on the left.
    """
    images = tf.convert_to_tensor(images, tf.float32)
    _, height, width, _ = sizes(images)
    point = seeds_lib.uniform(seeds, 2)

    def apart(axis: int, length: int | tf.Tensor) -> tf.Tensor:
        """From the point to the middles of pixels along an axis, squared, int64 [B, length]."""
        places = tf.cast(length * _PLACES, tf.float32)
        place = tf.minimum(tf.floor(point[:, axis, tf.newaxis] * places), places - 1.0)
        middles = _PLACES * (2 * tf.range(length) + 1)
        return tf.cast(middles - (2 * tf.cast(place, tf.int32) + 1), tf.int64) ** 2

    distances = apart(0, height)[:, :, tf.newaxis] + apart(1, width)[:, tf.newaxis]
    size = height * width
    numbers = tf.range(tf.cast(size, tf.int64))
    # No two are equal, so that the order does not depend on how they are sorted.
    order = tf.reshape(distances, [-1, size]) * tf.cast(size, tf.int64) + numbers
    last = tf.sort(order, axis=1)[:, tf.cast(pixels, tf.int32) - 1, tf.newaxis]
    hit = tf.reshape(order <= last, [-1, height, width, 1])
    return tf.where(hit, 1.0, images)
