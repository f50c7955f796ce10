"""Random numbers that depend on a seed and a position, and on nothing else.

A seed is a pair of int32, as in `tf.random.stateless_uniform`. Every example has its
own, so a whole batch is drawn in one go with the counter-based generator Philox4x32-10
(Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011). It is the
generator of TensorFlow's own stateless ops, which take one seed per call and so would
need a loop over the examples.
"""

import hashlib

import numpy as np
import tensorflow as tf

from robust_tf.errors import InvalidArgument
from robust_tf.xla import by_rows, power_of_two

# Philox4x32 constants: round multipliers and Weyl increments of the key.
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

# Cephes: log(1 + f) = f - f²/2 + f³ P(f); sin x = x + x³ P(x²); cos x = 1 - x²/2 + x⁴ P(x²).
_SQRT_HALF_BITS = 0x3F3504F3
_LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_SINE = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COSINE = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)

# Last counter word of `fold_in`; `random_bits` has 0 there, so the two never overlap.
_FOLD = 1


def stream_seed(seed: int, stream: str) -> np.ndarray:
    """The seed of a named stream, such as "shuffle" or "evaluation/3".

    Args:
        seed: a whole number from 0 on; the one seed of a whole experiment.
        stream: the stream's name. Streams of different names are independent.

    Returns:
        int32 array of shape [2].

    Raises:
        InvalidArgument: if `seed` is not a whole number from 0 on.

    Examples:
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

    Raises:
        InvalidArgument: if `data` are not of an integer dtype.
    """
    seeds = tf.convert_to_tensor(seeds, tf.int32)
    data = tf.convert_to_tensor(data)
    if not data.dtype.is_integer:
        raise InvalidArgument("data", data.dtype.name, "whole numbers from 0 on")
    data = tf.cast(data, tf.int64)
    if seeds.shape.rank == 1 and data.shape.rank == 0:
        return fold_in(seeds, data[tf.newaxis])[0]
    rows = tf.shape(data if data.shape.rank else seeds)[0]
    both = _fold_in((tf.broadcast_to(seeds, [rows, 2]), tf.broadcast_to(data, [rows])))
    return tf.bitcast(both, tf.int32)


def random_bits(seeds: tf.Tensor, count: int | tf.Tensor, draw: int = 0) -> tf.Tensor:
    """Uniform 32-bit words, equally many for each seed.

    Row b equals `tf.raw_ops.StatelessRandomUniformFullIntV2` with key `seeds[b]`,
    counter `[draw * 2**32, 0]` and algorithm 1 (Philox).

    Args:
        seeds: int32, shape [B, 2].
        count: number of words per seed, an integer or a scalar tensor.
        draw: number of the draw, 0 … 2**32 - 1; the draws of a seed are independent.

    Returns:
        uint32 tensor of shape [B, count].
    """
    blocks = tf.range(power_of_two((count + 3) // 4))  # its length gives XLA the shape
    return _bits((tf.convert_to_tensor(seeds, tf.int32),), blocks, draw)[:, :count]


def uniform(seeds: tf.Tensor, count: int | tf.Tensor, draw: int = 0) -> tf.Tensor:
    """Uniform numbers in [0, 1), multiples of 2**-24; arguments as in `random_bits`.

    Returns:
        float32 tensor of shape [B, count].
    """
    bits = random_bits(seeds, count, draw)
    shifted = tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32))
    return tf.cast(shifted, tf.float32) * 2.0**-24


def words(seeds: tf.Tensor, blocks: tf.Tensor, draw: int) -> tuple[tf.Tensor, ...]:
    """Uniform words, four per block; for use in compiled functions.

    Args:
        seeds: int32, shape [B, 2].
        blocks: numbers of the blocks of the draw, integers from 0 on, shape [K] or [B, K].
        draw: as in `random_bits`.

    Returns:
        Four uint32 tensors of shape [B, K]: words 4·k, 4·k + 1, 4·k + 2, 4·k + 3.
    """
    block = tf.cast(blocks, tf.uint64)
    if block.shape.rank == 1:
        block = block[tf.newaxis]
    zero = tf.zeros_like(block)
    key = tuple(word[:, tf.newaxis] for word in _key(seeds))
    return _philox(key, (block, zero + tf.constant(draw, tf.uint64), zero, zero))


def normals(seeds: tf.Tensor, blocks: tf.Tensor, draw: int) -> tuple[tf.Tensor, ...]:
    """Standard normal numbers, four per block; for use in compiled functions.

    Box and Muller's transform (*A note on the generation of random normal deviates*,
    1958) of the pairs of `words`; no number exceeds 6.7 in size. Logarithm, sine and cosine are
    polynomials, with the coefficients of Moshier's Cephes library: library functions
    would be slower, and round differently in the last elements of an array.

    Returns:
        Four float32 tensors of shape [B, K]; arguments as in `words`.
    """
    a, b, c, d = words(seeds, blocks, draw)
    return (*_box_muller(a, b), *_box_muller(c, d))


def _box_muller(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    uniform_above_zero = (tf.cast(a, tf.float32) + 1.0) * 2.0**-32
    radius = tf.sqrt(-2.0 * log(uniform_above_zero))
    cosine, sine = _cosine_and_sine(tf.bitcast(b, tf.int32))
    return radius * cosine, radius * sine


def log(x: tf.Tensor) -> tf.Tensor:
    """The natural logarithm of float32 numbers above 0."""
    bits = tf.bitcast(x, tf.int32)
    exponent = tf.bitwise.right_shift(bits - _SQRT_HALF_BITS, 23)
    # x = 2**exponent * (1 + f), 1 + f in [sqrt(1/2), sqrt(2))
    f = tf.bitcast(bits - tf.bitwise.left_shift(exponent, 23), tf.float32) - 1.0
    rest = f * f * (f * polynomial(f, _LOG) - 0.5)
    return f + rest + tf.cast(exponent, tf.float32) * np.float32(np.log(2.0))


def _cosine_and_sine(turns: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cosine and sine of int32 angles in units of 2**-32 turns."""
    quarter = tf.bitwise.right_shift(turns + (1 << 29), 30)  # the nearest multiple
    rest = turns - tf.bitwise.left_shift(quarter, 30)  # within an eighth of a turn
    x = tf.cast(rest, tf.float32) * np.float32(2.0 * np.pi * 2.0**-32)
    z = x * x
    sine = x + x * z * polynomial(z, _SINE)
    cosine = 1.0 - 0.5 * z + z * z * polynomial(z, _COSINE)
    odd = tf.bitwise.bitwise_and(quarter, 1) == 1
    return (
        _negated_where(quarter + 1, tf.where(odd, sine, cosine)),
        _negated_where(quarter, tf.where(odd, cosine, sine)),
    )


def _negated_where(quarter: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Changes the sign where bit 1 of `quarter` is set."""
    sign = tf.bitwise.left_shift(tf.bitwise.bitwise_and(quarter, 2), 30)
    return tf.bitcast(tf.bitwise.bitwise_xor(tf.bitcast(x, tf.int32), sign), tf.float32)


def polynomial(x: tf.Tensor, coefficients: tuple[float, ...]) -> tf.Tensor:
    """Horner's rule, highest power first."""
    result = tf.fill(tf.shape(x), np.float32(coefficients[0]))
    for coefficient in coefficients[1:]:
        result = result * x + np.float32(coefficient)
    return result


@by_rows
def _bits(batch: tuple[tf.Tensor], blocks: tf.Tensor, draw: int) -> tf.Tensor:
    (seeds,) = batch
    four = words(seeds, blocks, draw)
    return tf.reshape(tf.stack(four, axis=-1), [tf.shape(seeds)[0], 4 * tf.size(blocks)])


@by_rows
def _fold_in(batch: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """Both words of the new seeds in one, uint64 [B]; `robust_tf.xla` says why."""
    seeds, data = batch
    data = tf.cast(data, tf.uint64)
    zero = tf.zeros_like(data)
    low, high, _, _ = _philox(
        _key(seeds), (data, _high(data), zero, zero + tf.constant(_FOLD, tf.uint64))
    )
    shifted = tf.bitwise.left_shift(tf.cast(high, tf.uint64), tf.constant(32, tf.uint64))
    return tf.cast(low, tf.uint64) | shifted


def _key(seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    words = tf.cast(tf.bitcast(seeds, tf.uint32), tf.uint64)
    return words[..., 0], words[..., 1]


def _philox(key: tuple, counter: tuple) -> tuple[tf.Tensor, ...]:
    """Philox4x32-10: two key words and four counter words to four random words.

    Keys and counters are uint64, of which only the lower halves count: vector units
    multiply those of 64-bit lanes, and so no lane has to be widened or narrowed.
    """
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(_ROUNDS):
        product0 = _low(c0) * tf.constant(_MULTIPLIERS[0], tf.uint64)
        product1 = _low(c2) * tf.constant(_MULTIPLIERS[1], tf.uint64)
        c0, c1, c2, c3 = _high(product1) ^ c1 ^ k0, product1, _high(product0) ^ c3 ^ k1, product0
        k0 = k0 + tf.constant(_WEYL[0], tf.uint64)
        k1 = k1 + tf.constant(_WEYL[1], tf.uint64)
    return tuple(tf.cast(_low(word), tf.uint32) for word in (c0, c1, c2, c3))


def _low(words: tf.Tensor) -> tf.Tensor:
    return words & tf.constant(0xFFFFFFFF, tf.uint64)


def _high(words: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.right_shift(words, tf.constant(32, tf.uint64))
