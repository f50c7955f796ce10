"""Poisson numbers, such as the photons that a pixel counts, as a graph-mode op on batches.

What is counted, and in which units, is not known here.
"""

import math

import numpy as np
import tensorflow as tf

from robust_tf import seeds as seeds_lib
from robust_tf.perturbations.values import sizes
from robust_tf.xla import by_rows, in_slabs, in_xla, not_constant, pack, worth_compiling

# Below this mean the distribution is summed up, but for the last millionth, to which rounding
# adds up: no more terms are needed.
_SUMMED, _MOST, _LAST = 12.0, 31, 1e-6
# Where it is not worth to compile for one size of images: so many values in a row.
_ROW = 1024
# Giles (2010): erfinv(x) = x P(v), v = -log(1 - x²) - 2.5 below 5, else sqrt(-log(1 - x²)) - 3.
_CENTRE = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
_TAIL = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)
_EXPONENTIAL = tuple(1 / math.factorial(k) for k in range(9, -1, -1))


def poisson(means: tf.Tensor, seeds: tf.Tensor, draw: int = 0) -> tf.Tensor:
    """Draws a Poisson number for each value.

    Each number comes from one uniform word by the inverse of the distribution function: for means
    below 12 by its sum, but for the last millionth; beyond by the first four terms of the
    quantile's expansion in powers of the mean, whose distribution function is off by 3e-5 at
    most (Giles, *Algorithm 955: approximation of the inverse Poisson cumulative distribution
    function*, ACM TOMS 2016).

    Args:
        means: float32, shape [B, …], each from 0 on.
        seeds: int32, shape [B, 2].
        draw: number of the draw of the seeds, as in `seeds.random_bits`.

    Returns:
        float32 tensor of the shape of `means`: whole numbers from 0 on.

    Examples:
        >>> poisson(tf.zeros([2, 3]), tf.zeros([2, 2], tf.int32)).numpy().tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    means = tf.convert_to_tensor(means, tf.float32)
    seeds = tf.convert_to_tensor(seeds, tf.int32)
    size = math.prod(sizes(means)[1:])
    values = tf.reshape(means, [-1, size])
    bits = random_words(seeds, size, draw)
    if worth_compiling(means) or in_xla():
        return tf.reshape(_counts((values, bits)), tf.shape(means))
    paddings = [[0, 0], [0, -size % _ROW]]
    rows = tuple(tf.reshape(tf.pad(one, paddings), [-1, _ROW]) for one in (values, bits))
    counted = tf.reshape(in_slabs(_counts, rows), [-1, size + -size % _ROW])
    return tf.reshape(counted[:, :size], tf.shape(means))


def random_words(seeds: tf.Tensor, count: int | tf.Tensor, draw: int = 0) -> tf.Tensor:
    """The numbers of `seeds.random_bits`, faster for many of each seed."""
    blocks = tf.range((count + 3) // 4)
    if in_xla():  # which has no bitcast from 128 bits
        (seeds,) = not_constant((seeds,))
        packed = tf.stack(seeds_lib.words(seeds, blocks, draw), axis=-1)
    else:
        packed = tf.bitcast(_packed_words((seeds,), blocks, draw), tf.uint32)
    return tf.reshape(packed, [-1, 4 * tf.size(blocks)])[:, :count]


def counts(means: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """A Poisson number of each mean and uniform word; for use in compiled functions.

    Args:
        means: float32, from 0 on.
        words: uint32, of the same shape.

    Returns:
        float32 tensor of that shape.
    """
    small = tf.minimum(means, _SUMMED)
    shifted = tf.bitcast(tf.bitwise.right_shift(words, tf.constant(8, tf.uint32)), tf.int32)
    left = tf.minimum(tf.cast(shifted, tf.float32) * 2.0**-24, 1.0 - _LAST)
    # exp(-m) as the 16th power of exp(-m/16)
    term = seeds_lib.polynomial(small * (-1 / 16), _EXPONENTIAL)
    for _ in range(4):
        term = term * term
    summed = tf.zeros_like(means)
    for number in range(1, _MOST + 1):
        left = left - term
        summed += tf.where(left >= 0.0, 1.0, 0.0)
        term = term * small * np.float32(1 / number)
    large, z = tf.maximum(means, _SUMMED), quantiles(words)
    root, square = tf.sqrt(large), z * z
    last = (
        np.float32(-8 / 405) + square * (np.float32(7 / 810) + square * np.float32(1 / 270))
    ) / root
    last = (last - z * (np.float32(1 / 36) + square * np.float32(1 / 72))) / root
    expanded = large + (root * z + (np.float32(1 / 3) + square * np.float32(1 / 6) + last))
    return tf.where(means < _SUMMED, summed, tf.maximum(tf.floor(expanded), 0.0))


def quantiles(words: tf.Tensor) -> tf.Tensor:
    """A standard normal number of each uniform word; for use in compiled functions.

    Args:
        words: uint32.

    Returns:
        float32 tensor of the same shape; no number exceeds 6.4 in size.
    """
    signed = tf.bitcast(words, tf.int32)
    # The share of the words that are further out on the same side, in (0, 1/2).
    outer = tf.bitwise.bitwise_xor(signed, tf.bitwise.right_shift(signed, 31))
    share = (tf.cast(outer, tf.float32) + 0.5) * 2.0**-32
    logarithm = -seeds_lib.log(4.0 * share * (1.0 - share))
    centre = seeds_lib.polynomial(logarithm - 2.5, _CENTRE)
    tail = seeds_lib.polynomial(tf.sqrt(tf.maximum(logarithm, 0.0)) - 3.0, _TAIL)
    size = (1.0 - 2.0 * share) * tf.where(logarithm < 5.0, centre, tail) * np.float32(math.sqrt(2))
    return tf.where(signed < 0, size, -size)


@by_rows
def _counts(batch: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    return counts(*batch)


@by_rows
def _packed_words(batch: tuple[tf.Tensor], blocks: tf.Tensor, draw: int) -> tf.Tensor:
    (seeds,) = batch
    return pack(seeds_lib.words(seeds, blocks, draw))
