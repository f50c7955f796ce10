"""Defective pixels: stuck, dead and hot, as graph-mode ops on batches of images.

Datasets, epochs and strategies are unknown here.
"""

import tensorflow as tf

from robust_tf import seeds as seeds_lib
from robust_tf.perturbations.values import sizes
from robust_tf.xla import by_rows, power_of_two

# Independent draws of the same example seed.
_POSITIONS, _VALUES = 0, 1


def stuck(images: tf.Tensor, seeds: tf.Tensor, pixels: int | tf.Tensor) -> tf.Tensor:
    """Gives distinct random pixels a random value in each channel (paper, section V.A).

    Args:
        images: float32, shape [B, H, W, C], values in [0, 1].
        seeds: int32, shape [B, 2].
        pixels: number of pixels per image, 1 … H·W; an integer or an integer scalar tensor.

    Returns:
        float32 tensor of shape [B, H, W, C]: in each image, `pixels` positions,
        drawn uniformly without replacement, hold values drawn from U[0, 1).
    """
    channels = sizes(tf.convert_to_tensor(images))[-1]
    values = seeds_lib.uniform(seeds, tf.cast(pixels, tf.int32) * channels, _VALUES)
    return _set_pixels(images, seeds, pixels, tf.reshape(values, [-1, channels]))


def dead(images: tf.Tensor, seeds: tf.Tensor, pixels: int | tf.Tensor) -> tf.Tensor:
    """Sets distinct random pixels to 0 in all channels (paper, section V.A).

    Arguments and result as in `stuck`; the positions are those of `stuck` and `hot`
    with the same seeds.
    """
    return _set_pixels(images, seeds, pixels, 0.0)


def hot(images: tf.Tensor, seeds: tf.Tensor, pixels: int | tf.Tensor) -> tf.Tensor:
    """Sets distinct random pixels to 1 in all channels (paper, section V.A).

    Arguments and result as in `stuck`; the positions are those of `stuck` and `dead`
    with the same seeds.
    """
    return _set_pixels(images, seeds, pixels, 1.0)


def _set_pixels(
    images: tf.Tensor, seeds: tf.Tensor, pixels: int | tf.Tensor, values: float | tf.Tensor
) -> tf.Tensor:
    images = tf.convert_to_tensor(images, tf.float32)
    _, height, width, channels = sizes(images)
    pixels = tf.cast(pixels, tf.int32)
    blocks = tf.range(power_of_two((pixels + 3) // 4))
    batch = (tf.convert_to_tensor(seeds, tf.int32),)
    positions = _distinct_positions(batch, blocks, pixels, tf.convert_to_tensor(height * width))[
        :, :pixels
    ]
    # [B, k] positions within an image -> [B*k, 1] rows of [B*H*W, C]
    starts = tf.range(tf.shape(images)[0])[:, tf.newaxis] * (height * width)
    rows = tf.reshape(positions + starts, [-1, 1])
    values = tf.broadcast_to(values, [tf.size(rows), channels])
    flat = tf.reshape(images, [-1, channels])
    return tf.reshape(tf.tensor_scatter_nd_update(flat, rows, values), tf.shape(images))


@by_rows
def _distinct_positions(
    batch: tuple[tf.Tensor], blocks: tf.Tensor, count: tf.Tensor, size: tf.Tensor
) -> tf.Tensor:
    """Draws distinct numbers below `size` for each seed, all subsets equally likely.

    Robert Floyd's sampling (Bentley and Floyd, *A sample of brilliance*, CACM 1987):
    for j in size-count … size-1 it draws a number in 0 … j, or takes j if that number is taken.

    Args:
        batch: int32 seeds [B, 2].
        blocks: 0 … K-1 with 4·K >= count; K gives XLA the shape of the result.
        count: number of numbers to draw, scalar.
        size: the numbers are below it, scalar.

    Returns:
        int32 tensor of shape [B, 4·K], of which the first `count` columns are meant.
    """
    (seeds,) = batch
    words = tf.stack(seeds_lib.words(seeds, blocks, _POSITIONS), axis=-1)
    words = tf.reshape(words, [tf.shape(seeds)[0], 4 * tf.size(blocks)])
    columns = tf.range(4 * tf.size(blocks))
    tops = size - count + columns
    # A word times (j + 1), divided by 2**32: uniform but for less than size / 2**32.
    scaled = tf.cast(words, tf.uint64) * tf.cast(tops + 1, tf.uint64)
    drawn = tf.cast(tf.bitwise.right_shift(scaled, tf.constant(32, tf.uint64)), tf.int32)

    def settle(i: tf.Tensor, drawn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        candidate = tf.gather(drawn, i, axis=1)[:, tf.newaxis]
        taken = tf.reduce_any((drawn == candidate) & (columns < i), axis=1, keepdims=True)
        return i + 1, tf.where((columns == i) & taken, tops, drawn)

    _, positions = tf.while_loop(lambda i, _: i < count, settle, (tf.constant(1), drawn))
    return positions
