"""Defective pixels: stuck, dead, hot and warm, as graph-mode ops on batches of images.

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
        pixels: number of pixels per image, 1 … H·W; an integer or an integer scalar tensor, or
            one number for each image, shape [B].

    Returns:
        float32 tensor of shape [B, H, W, C]: in each image, `pixels` positions,
        drawn uniformly without replacement, hold values drawn from U[0, 1).
    """
    return _set_pixels(images, seeds, pixels, _uniform(images, seeds, pixels))


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


def warm(images: tf.Tensor, seeds: tf.Tensor, pixels: int | tf.Tensor) -> tf.Tensor:
    """Adds a random offset to each channel of distinct random pixels and clips to [0, 1].

    Arguments as in `stuck`; the positions are those of `hot` with the same seeds.

    Returns:
        float32 tensor of shape [B, H, W, C]: the offsets are drawn from U[0, 1).
    """
    return _set_pixels(images, seeds, pixels, _uniform(images, seeds, pixels), add=True)


def distinct_positions(seeds: tf.Tensor, count: tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """Draws distinct numbers below `size` for each seed, all subsets equally likely.

    Args:
        seeds: int32, shape [B, 2].
        count: how many numbers to draw, an int32 scalar tensor; or for each seed, shape [B].
        size: the numbers are below it.

    Returns:
        int32 tensor of shape [B, k], k the largest count; the first ones of a row are meant.
    """
    most = tf.maximum(tf.reduce_max(count), 0)  # of no images, the lowest integer
    blocks = tf.range(power_of_two((most + 3) // 4))
    seeds = tf.convert_to_tensor(seeds, tf.int32)
    batch = (seeds, count) if count.shape.rank else (seeds,)
    return _distinct_positions(batch, blocks, most, tf.convert_to_tensor(size))[:, :most]


def _uniform(images: tf.Tensor, seeds: tf.Tensor, pixels: int | tf.Tensor) -> tf.Tensor:
    """A value from U[0, 1) for each channel of each pixel, [B, k, C]."""
    channels = sizes(tf.convert_to_tensor(images))[-1]
    most = tf.maximum(tf.reduce_max(tf.cast(pixels, tf.int32)), 0)
    values = seeds_lib.uniform(seeds, most * channels, _VALUES)
    return tf.reshape(values, [tf.shape(seeds)[0], most, channels])


def _set_pixels(
    images: tf.Tensor,
    seeds: tf.Tensor,
    pixels: int | tf.Tensor,
    values: float | tf.Tensor,
    add: bool = False,
) -> tf.Tensor:
    images = tf.convert_to_tensor(images, tf.float32)
    _, height, width, channels = sizes(images)
    pixels = tf.cast(pixels, tf.int32)
    positions = distinct_positions(seeds, pixels, height * width)
    values = tf.broadcast_to(values, [*tf.unstack(tf.shape(positions)), channels])
    if pixels.shape.rank:  # beyond an image's number, its first pixel again
        own = tf.range(tf.shape(positions)[1]) < pixels[:, tf.newaxis]
        positions = tf.where(own, positions, positions[:, :1])
        values = tf.where(own[..., tf.newaxis], values, values[:, :1])
    # [B, k] positions within an image -> [B*k, 1] rows of [B*H*W, C]
    starts = tf.range(tf.shape(images)[0])[:, tf.newaxis] * (height * width)
    rows = tf.reshape(positions + starts, [-1, 1])
    values = tf.reshape(values, [-1, channels])
    flat = tf.reshape(images, [-1, channels])
    if add:
        values = tf.clip_by_value(tf.gather_nd(flat, rows) + values, 0.0, 1.0)
    return tf.reshape(tf.tensor_scatter_nd_update(flat, rows, values), tf.shape(images))


@by_rows
def _distinct_positions(
    batch: tuple[tf.Tensor, ...], blocks: tf.Tensor, count: tf.Tensor, size: tf.Tensor
) -> tf.Tensor:
    """What `distinct_positions` draws.

    Robert Floyd's sampling (Bentley and Floyd, *A sample of brilliance*, CACM 1987):
    for j in size-count … size-1 it draws a number in 0 … j, or takes j if that number is taken.

    Args:
        batch: int32 seeds [B, 2]; and, where they differ, how many numbers to draw for each [B].
        blocks: 0 … K-1 with 4·K >= count; K gives XLA the shape of the result.
        count: number of numbers to draw, scalar; the largest where they differ.
        size: the numbers are below it, scalar.

    Returns:
        int32 tensor of shape [B, 4·K], of which the first `count` columns are meant.
    """
    seeds, *own = batch
    words = tf.stack(seeds_lib.words(seeds, blocks, _POSITIONS), axis=-1)
    words = tf.reshape(words, [tf.shape(seeds)[0], 4 * tf.size(blocks)])
    columns = tf.range(4 * tf.size(blocks))
    tops = size - (own[0][:, tf.newaxis] if own else count) + columns
    # A word times (j + 1), divided by 2**32: uniform but for less than size / 2**32.
    scaled = tf.cast(words, tf.uint64) * tf.cast(tops + 1, tf.uint64)
    drawn = tf.cast(tf.bitwise.right_shift(scaled, tf.constant(32, tf.uint64)), tf.int32)

    def settle(i: tf.Tensor, drawn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        candidate = tf.gather(drawn, i, axis=1)[:, tf.newaxis]
        taken = tf.reduce_any((drawn == candidate) & (columns < i), axis=1, keepdims=True)
        return i + 1, tf.where((columns == i) & taken, tops, drawn)

    _, positions = tf.while_loop(lambda i, _: i < count, settle, (tf.constant(1), drawn))
    return positions
