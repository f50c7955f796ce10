"""Gaussian noise, as a graph-mode op on batches of images."""

import math

import tensorflow as tf

from robust_tf import seeds as seeds_lib
from robust_tf.xla import by_rows, pack, unpack


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
    stddev = tf.cast(stddev, tf.float32)

    @tf.custom_gradient
    def add(images: tf.Tensor) -> tuple:
        noisy = _add_noise(images, seeds, stddev)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.where((noisy > 0.0) & (noisy < 1.0), upstream, 0.0)  # not where clipped

        return noisy, gradient

    return add(tf.convert_to_tensor(images, tf.float32))


def _add_noise(images: tf.Tensor, seeds: tf.Tensor, stddev: tf.Tensor) -> tf.Tensor:
    size = math.prod(images.shape[1:])
    values = tf.reshape(images, [-1, size])
    if size % 4:
        values = tf.pad(values, [[0, 0], [0, -size % 4]])
    blocks = tf.bitcast(tf.reshape(values, [-1, values.shape[1] // 4, 4]), tf.complex128)
    blocks = _noisy_blocks((blocks, seeds), stddev)
    values = tf.reshape(tf.bitcast(blocks, tf.float32), [-1, values.shape[1]])
    return tf.reshape(values[:, :size], tf.shape(images))


@by_rows
def _noisy_blocks(batch: tuple[tf.Tensor, tf.Tensor], stddev: tf.Tensor) -> tf.Tensor:
    """Noise on blocks of four values: complex128 [B, K], packed, and int32 seeds [B, 2]."""
    blocks, seeds = batch
    values = unpack(blocks, tf.float32)
    normals = seeds_lib.normals(seeds, tf.range(blocks.shape[1]), draw=0)
    noisy = [tf.clip_by_value(x + stddev * n, 0.0, 1.0) for x, n in zip(values, normals)]
    return pack(tuple(noisy))
