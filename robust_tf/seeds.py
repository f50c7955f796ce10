"""Random numbers that depend on a seed and a position and on nothing else.

A seed is a pair of int32, as in `tf.random.stateless_uniform`. Every example has its
own, so a whole batch is drawn in one go with the counter-based generator Philox4x32-10
(Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011). It is the
generator of TensorFlow's own stateless ops, which take one seed a call and so would
need a loop over the examples.
"""

import hashlib

import numpy as np
import tensorflow as tf

from robust_tf.errors import InvalidArgument

# Philox4x32 constants: round multipliers and Weyl increments of the key.
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

# CPUs compute logarithms and cosines of whole vectors, and of what is left over by another
# formula. Rows of whole vectors (16 floats at most) leave nothing over, so an example's
# numbers do not depend on its place in the batch.
_VECTOR = 16

# Last counter word of `fold_in`; `random_bits` has 0 there, so the two never overlap.
_FOLD = 1


def stream_seed(seed: int, stream: str) -> np.ndarray:
    """The seed of a named stream, such as "shuffle" or "evaluation/3".

    Args:
        seed: an integer, not negative; the one seed of a whole experiment.
        stream: the stream's name. Streams of different names are independent.

    Returns:
        int32 array of shape [2].

    Raises:
        InvalidArgument: if `seed` is not a whole number from 0 on.

    Example:
        >>> stream_seed(0, "shuffle").shape
        (2,)
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InvalidArgument("seed", seed, "a whole number from 0 on")
    digest = hashlib.sha256(f"{int(seed)}/{stream}".encode()).digest()
    return np.frombuffer(digest[:8], dtype="<i4").astype(np.int32)


def stream_int(seed: int, stream: str) -> int:
    """A named stream's seed as one number in [0, 2**31), for Keras's `seed` arguments."""
    return int(stream_seed(seed, stream)[0]) & 0x7FFFFFFF


def fold_in(seeds: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """Derives new seeds from seeds and numbers, for instance example indices.

    Args:
        seeds: int32, shape [2] or [B, 2].
        data: integers from 0 on, scalar or shape [B].

    Returns:
        int32 seeds, shape [B, 2]; [2] if `seeds` is [2] and `data` a scalar.
    """
    seeds = tf.convert_to_tensor(seeds, tf.int32)
    data = tf.cast(data, tf.uint64)
    low = tf.cast(data, tf.uint32)
    high = tf.cast(tf.bitwise.right_shift(data, tf.constant(32, tf.uint64)), tf.uint32)
    zero = tf.zeros_like(low)
    words = _philox(_key(seeds), (low, high, zero, zero + tf.constant(_FOLD, tf.uint32)))
    return tf.bitcast(tf.stack(words[:2], axis=-1), tf.int32)


def random_bits(seeds: tf.Tensor, count: int | tf.Tensor, draw: int = 0) -> tf.Tensor:
    """Uniform 32-bit words, the same numbers of each seed.

    Row b equals `tf.raw_ops.StatelessRandomUniformFullIntV2` with key `seeds[b]`,
    counter `[draw * 2**32, 0]` and algorithm 1 (Philox).

    Args:
        seeds: int32, shape [B, 2].
        count: how many words a seed, a number or scalar tensor.
        draw: which of 2**32 independent draws of the same seed.

    Returns:
        uint32 tensor of shape [B, count].
    """
    words = _words(seeds, (count + 3) // 4, draw)
    rows = tf.shape(words[0])[0]
    return tf.reshape(tf.stack(words, axis=-1), [rows, -1])[:, :count]


def uniform(seeds: tf.Tensor, count: int | tf.Tensor, draw: int = 0) -> tf.Tensor:
    """Uniform numbers in [0, 1), multiples of 2**-24; arguments as in `random_bits`.

    Returns:
        float32 tensor of shape [B, count].
    """
    bits = random_bits(seeds, count, draw)
    shifted = tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32))
    return tf.cast(shifted, tf.float32) * 2.0**-24


def normal(seeds: tf.Tensor, count: int, draw: int = 0) -> tf.Tensor:
    """Standard normal numbers; arguments as in `random_bits`.

    Box and Muller's transform (*A note on the generation of random normal deviates*,
    1958) of pairs of 32-bit words; no value is beyond 6.7.

    Returns:
        float32 tensor of shape [B, count].
    """
    seeds = tf.convert_to_tensor(seeds, tf.int32)
    rows = tf.shape(seeds)[0]
    # XLA compiles for each number of rows that it meets: let there be few.
    step = tf.where(rows > 256, 256, 64)
    padded = tf.ensure_shape(tf.pad(seeds, [[0, -rows % step], [0, 0]]), [None, 2])
    blocks = -(-count // (4 * _VECTOR)) * _VECTOR
    a, b, c, d = _compiled_words(padded, blocks, draw)
    numbers = tf.concat([*_box_muller(a, b), *_box_muller(c, d)], axis=1)
    return numbers[:rows, :count]


def _box_muller(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    uniform_above_zero = (tf.cast(a, tf.float32) + 1.0) * 2.0**-32
    radius = tf.sqrt(-2.0 * tf.math.log(uniform_above_zero))
    angle = tf.cast(b, tf.float32) * np.float32(2.0 * np.pi * 2.0**-32)
    return radius * tf.cos(angle), radius * tf.sin(angle)


def _words(seeds: tf.Tensor, blocks: int | tf.Tensor, draw: int) -> tuple[tf.Tensor, ...]:
    """Four words, each [B, blocks], from the counters (block, draw, 0, 0)."""
    seeds = tf.convert_to_tensor(seeds, tf.int32)
    block = tf.cast(tf.range(blocks), tf.uint32)
    block = tf.broadcast_to(block[tf.newaxis], [tf.shape(seeds)[0], blocks])
    zero = tf.zeros_like(block)
    key = tuple(word[:, tf.newaxis] for word in _key(seeds))
    return _philox(key, (block, zero + tf.constant(draw, tf.uint32), zero, zero))


# XLA makes one loop of the hundred integer ops, 7 times faster; integers stay exact. It
# is slower than TensorFlow's own kernels at logarithms, which are left to those.
@tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
def _compiled_words(seeds: tf.Tensor, blocks: int, draw: int) -> tuple[tf.Tensor, ...]:
    return _words(seeds, blocks, draw)


def _key(seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    words = tf.bitcast(seeds, tf.uint32)
    return words[..., 0], words[..., 1]


def _philox(key: tuple, counter: tuple) -> tuple[tf.Tensor, ...]:
    """Philox4x32-10: two key words and four counter words to four random words."""
    k0, k1 = key
    c0, c1, c2, c3 = counter
    xor = tf.bitwise.bitwise_xor
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = xor(xor(high1, c1), k0), low1, xor(xor(high0, c3), k1), low0
        k0 = k0 + tf.constant(_WEYL[0], tf.uint32)
        k1 = k1 + tf.constant(_WEYL[1], tf.uint32)
    return c0, c1, c2, c3


def _multiply(words: tf.Tensor, by: int) -> tuple[tf.Tensor, tf.Tensor]:
    """High and low 32 bits of the 64-bit product."""
    product = tf.cast(words, tf.uint64) * tf.constant(by, tf.uint64)
    high = tf.bitwise.right_shift(product, tf.constant(32, tf.uint64))
    return tf.cast(high, tf.uint32), tf.cast(product, tf.uint32)
