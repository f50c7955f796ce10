"""Gaussian noise, as a graph-mode op on batches of images."""

import math
from collections.abc import Sequence

import tensorflow as tf

from robust_tf import seeds as seeds_lib
from robust_tf.perturbations.values import sizes
from robust_tf.xla import by_rows, in_slabs, in_xla, not_constant, pack, unpack, worth_compiling

# Where it is not worth to compile for one size of images: so many values in a row.
_ROW = 1024


def noise(images: tf.Tensor, seeds: tf.Tensor, stddev: float | tf.Tensor) -> tf.Tensor:
    """Adds Gaussian noise and clips to [0, 1] (paper, section V.B).

    Args:
        images: float32, shape [B, H, W, C], values in [0, 1].
        seeds: int32, shape [B, 2].
        stddev: standard deviation of the noise, in units of the value range, at least 0; a
            number or a scalar tensor. The paper's axes and text call it variance.

    Returns:
        float32 tensor of shape [B, H, W, C], values in [0, 1].
    """
    seeds = tf.convert_to_tensor(seeds, tf.int32)
    stddev = tf.cast(tf.convert_to_tensor(stddev), tf.float32)

    @tf.custom_gradient
    def add(images: tf.Tensor) -> tuple:
        noisy = _add_noise(images, seeds, stddev)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.where((noisy > 0.0) & (noisy < 1.0), upstream, 0.0)  # not where clipped

        return noisy, gradient

    return add(tf.convert_to_tensor(images, tf.float32))


def _add_noise(images: tf.Tensor, seeds: tf.Tensor, stddev: tf.Tensor) -> tf.Tensor:
    size = math.prod(sizes(images)[1:])
    whole = worth_compiling(images)
    padding = -size % (4 if whole else _ROW)
    values = tf.reshape(images, [-1, size])
    if tf.is_tensor(padding) or padding:
        values = tf.pad(values, [[0, 0], [0, padding]])
    fours = (size + padding) // 4
    if in_xla():  # which has no bitcast to 128 bits, and rounds differently what is constant
        (seeds,) = not_constant((seeds,))
        four = tf.unstack(tf.reshape(values, [-1, fours, 4]), axis=-1)
        values = tf.stack(_noisy(four, seeds, tf.range(fours), stddev), axis=-1)
    elif whole:
        values = _noisy_blocks((_packed(values, fours), seeds), stddev)
    else:
        # An image is some rows, which have its seed and count its blocks on.
        rows = fours // (_ROW // 4)
        first = tf.tile(tf.range(rows) * (_ROW // 4), [tf.shape(images)[0]])
        batches = (_packed(values, _ROW // 4), tf.repeat(seeds, rows, axis=0), first)
        values = in_slabs(_noisy_blocks, batches, stddev)
    if values.dtype == tf.complex128:
        values = tf.bitcast(values, tf.float32)
    values = tf.reshape(values, [-1, size + padding])
    return tf.reshape(values[:, :size], tf.shape(images))


def _packed(values: tf.Tensor, width: int) -> tf.Tensor:
    """Rows of blocks of four values, complex128 of shape [R, width]."""
    return tf.bitcast(tf.reshape(values, [-1, width, 4]), tf.complex128)


@by_rows
def _noisy_blocks(batch: tuple[tf.Tensor, ...], stddev: tf.Tensor) -> tf.Tensor:
    """Noise on blocks of four values: complex128 [B, K], packed, int32 seeds [B, 2].

    Where the first block of a row is not its seed's first: its number, int32 [B].
    """
    blocks, seeds, *first = batch
    numbers = tf.range(blocks.shape[1])
    if first:
        numbers += first[0][:, tf.newaxis]
    return pack(tuple(_noisy(unpack(blocks, tf.float32), seeds, numbers, stddev)))


def _noisy(
    four: Sequence[tf.Tensor], seeds: tf.Tensor, numbers: tf.Tensor, stddev: tf.Tensor
) -> list[tf.Tensor]:
    normals = seeds_lib.normals(seeds, numbers, draw=0)
    return [tf.clip_by_value(x + stddev * n, 0.0, 1.0) for x, n in zip(four, normals)]
