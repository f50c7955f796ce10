"""Functions of batches, compiled by XLA, whatever the batch's size.

XLA makes one loop of many small ops, but compiles anew for each shape. A batch whose size
is unknown when it is traced is therefore padded to one of a few sizes.

It also makes one loop per resulting array, and repeats in each what they have in common.
`pack` makes one array of four, so that this is done once.
"""

from collections.abc import Callable

import tensorflow as tf


def by_rows(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Compiles a function whose every row depends on that row of its inputs alone.

    Args:
        function: takes a tuple of tensors [B, …] and other arguments, returns one tensor [B, …].

    Returns:
        The same function, compiled. Tensors among the other arguments may vary; each
        Python value is a constant, compiled once.
    """
    compiled = tf.function(function, jit_compile=True, autograph=False)

    def call(batches: tuple[tf.Tensor, ...], *arguments: object) -> tf.Tensor:
        batches = tuple(tf.convert_to_tensor(batch) for batch in batches)
        known = any(batch.shape[0] is not None for batch in batches)
        if known and not tf.executing_eagerly():
            return compiled(batches, *arguments)
        rows = tf.shape(batches[0])[0]
        return compiled(tuple(_padded(batch, rows) for batch in batches), *arguments)[:rows]

    return call


def _padded(batch: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Adds rows of zeros up to a multiple of 4, of 64 from 128 on, of 256 from 1,024 on."""
    step = tf.where(rows > 1024, 256, tf.where(rows > 128, 64, 4))
    paddings = [[0, -rows % step]] + [[0, 0]] * (batch.shape.rank - 1)
    return tf.ensure_shape(tf.pad(batch, paddings), [None, *batch.shape[1:]])


def pack(words: tuple[tf.Tensor, ...]) -> tf.Tensor:
    """Makes one element of 128 bits of four of 32 bits; for use in compiled functions.

    Args:
        words: four tensors of equal shape [...], uint32 or float32.

    Returns:
        complex128 tensor of shape [...], of which only the bits matter.
    """
    a, b, c, d = (tf.cast(tf.bitcast(word, tf.uint32), tf.uint64) for word in words)
    half = tf.constant(32, tf.uint64)
    low = tf.bitcast(a | tf.bitwise.left_shift(b, half), tf.float64)
    high = tf.bitcast(c | tf.bitwise.left_shift(d, half), tf.float64)
    return tf.complex(low, high)


def unpack(packed: tf.Tensor, dtype: tf.DType) -> tuple[tf.Tensor, ...]:
    """The four tensors that `pack` made one of; for use in compiled functions."""
    half = tf.constant(32, tf.uint64)
    words = []
    for part in (tf.math.real(packed), tf.math.imag(packed)):
        bits = tf.bitcast(part, tf.uint64)
        words += [tf.cast(bits, tf.uint32), tf.cast(tf.bitwise.right_shift(bits, half), tf.uint32)]
    return tuple(tf.bitcast(word, dtype) for word in words)
