"""Motion blur, as a graph-mode op on batches of images."""

import math

import numpy as np
import tensorflow as tf

from robust_tf import seeds as seeds_lib
from robust_tf.perturbations.values import on_grid, sizes
from robust_tf.xla import in_xla, power_of_two

# Directions of a line, half a turn in all.
_DIRECTIONS = 2**12
# Points of the line: per pixel of its length, and at most.
_POINTS, _MOST_POINTS = 8, 2**10
# Points lie on a grid of so many per pixel, so that all weights are exact.
_GRID = 2**8


def motion(images: tf.Tensor, seeds: tf.Tensor, length: float | tf.Tensor) -> tf.Tensor:
    """Blurs by a straight motion at constant speed, in a random direction.

    A pixel becomes the mean of the image, linearly interpolated, along a line of that length
    around it. Borders are mirrored with the edge repeated, as in `blur`.

    Args:
        images: float32, shape [B, H, W, C], values in [0, 1].
        seeds: int32, shape [B, 2].
        length: how far the image moves while the shutter is open, in pixels, at least 0; a
            number or a scalar tensor. XLA has to know it.

    Returns:
        float32 tensor of shape [B, H, W, C], values in [0, 1]. Each image has one of 4,096
        directions, which are equally likely; all have the same bits whatever the batch.
    """
    images = tf.convert_to_tensor(images, tf.float32)
    _, height, width, _ = sizes(images)
    if tf.is_tensor(length):
        length = tf.cast(length, tf.float64)
        reach = tf.maximum(tf.cast(tf.math.ceil(length / 2), tf.int32), 1)
    else:
        reach = max(1, math.ceil(length / 2))
    weights = _weights(seeds, length, reach)
    values = on_grid(tf.cast(images, tf.float64))
    values = tf.gather(values, _mirrored(height, reach), axis=1)
    values = tf.gather(values, _mirrored(width, reach), axis=2)
    side = 2 * reach + 1
    # Those that are 0 for all images are left out, where numbers may decide of shapes.
    used = tf.range(side**2)
    if not in_xla():
        used = tf.where(tf.reduce_any(weights != 0.0, axis=0))[:, 0]
        used = tf.cast(used, tf.int32)
    count = tf.size(used)

    def add(i: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        begin = tf.stack([0, used[i] // side, used[i] % side, 0])
        part = tf.slice(values, begin, tf.shape(images))
        weight = tf.gather(weights, used[i], axis=1)[:, tf.newaxis, tf.newaxis, tf.newaxis]
        return i + 1, total + weight * part

    zero = tf.zeros_like(images, tf.float64)
    most = side**2 if isinstance(side, int) else None
    _, total = tf.while_loop(lambda i, _: i < count, add, (0, zero), maximum_iterations=most)
    blurred = tf.clip_by_value(tf.cast(total, tf.float32), 0.0, 1.0)
    return tf.where(length > 0, blurred, images)  # which the grid may round


def _weights(seeds: tf.Tensor, length: float | tf.Tensor, reach: int | tf.Tensor) -> tf.Tensor:
    """Each image's weights at offsets -reach … reach down and right, float64 [B, (2·reach + 1)²].

    They are multiples of 2**-26, and their sum is 1, to the bit.
    """
    points = tf.minimum(_POINTS * power_of_two(2 * reach), _MOST_POINTS)
    along = (tf.range(tf.cast(points, tf.float64)) + 0.5) / tf.cast(points, tf.float64) - 0.5
    angles = np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    turns = tf.constant(np.stack([np.sin(angles), np.cos(angles)], axis=1))  # [directions, 2]
    bits = seeds_lib.random_bits(seeds, 1)[:, 0]
    bits = tf.bitwise.right_shift(bits, tf.constant(20, tf.uint32))  # the upper 12
    turns = tf.gather(turns, tf.cast(bits, tf.int32))
    places = along * tf.cast(length, tf.float64) * turns[:, :, tf.newaxis]  # [B, 2, points]
    places = tf.round(places * _GRID) / _GRID
    before = tf.minimum(tf.floor(places), tf.cast(reach - 1, tf.float64))
    share = places - before
    corner = tf.cast(before, tf.int32) + reach
    side = 2 * reach + 1
    batch = tf.shape(seeds)[0]
    start = tf.range(batch)[:, tf.newaxis] * side**2
    total = tf.zeros([batch * side**2], tf.float64)
    for down in (0, 1):
        for right in (0, 1):
            part = (share[:, 0] if down else 1.0 - share[:, 0]) * (
                share[:, 1] if right else 1.0 - share[:, 1]
            )
            at = start + (corner[:, 0] + down) * side + corner[:, 1] + right
            total += tf.math.unsorted_segment_sum(part, at, batch * side**2)
    return tf.reshape(total / tf.cast(points, tf.float64), [batch, side**2])


def _mirrored(size: int | tf.Tensor, reach: int | tf.Tensor) -> tf.Tensor:
    """Where the values of a line and of `reach` more on either side come from."""
    source = tf.range(-reach, size + reach) % (2 * size)
    return tf.where(source < size, source, 2 * size - 1 - source)
