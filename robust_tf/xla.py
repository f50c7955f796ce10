"""Functions of batches, compiled by XLA, whatever the batch's size.

XLA makes one loop of many small ops, but compiles anew for each shape, for up to half a second,
and keeps up to 8 MiB of it for ever. A batch whose size is unknown when it is traced is therefore
padded to one of a few sizes; where the rows' length would vary too, rows of one length are made,
and go through `in_slabs`.

It also makes one loop per resulting array, and repeats in each what they have in common.
`pack` makes one array of four, so that this is done once.
"""

from collections.abc import Callable

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.ops import control_flow_util

# `in_slabs` compiles for so many rows at most, and for 4, 8, 16 … below.
_SLAB = 64
# Eager calls compile for so many shapes of whole images, of at most so many values.
_SHAPES, _VALUES = 32, 2**14
# Eager calls of functions of rows compile for so many shapes, and then for those of slabs alone.
_ROW_SHAPES = 32

_compiled_shapes: set[tuple] = set()
_compiled_rows: set[tuple] = set()


def by_rows(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Compiles a function whose every row depends on that row of its inputs alone.

    Args:
        function: takes a tuple of tensors [B, …] and other arguments, returns one tensor [B, …].

    Returns:
        The same function, compiled. Tensors among the other arguments may vary; each
        Python value is a constant, compiled once. Eagerly, beyond the first few shapes, 4 or
        64 rows are computed at a time.
    """
    compiled = tf.function(function, jit_compile=True, autograph=False)
    compiled._omit_frequent_tracing_warning = True  # shapes differ, and `size_for` bounds them

    def size_for(batches: tuple[tf.Tensor, ...], arguments: tuple) -> int:
        """How many rows to compile for, at most; eagerly."""
        rows = batches[0].shape[0]
        size = padded_size(max(rows, 1), 4)
        fixed = (*(batch.shape[1:] for batch in batches), *arguments)
        key = (function, size, *(tuple(x.shape) if tf.is_tensor(x) else x for x in fixed))
        if key not in _compiled_rows and len(_compiled_rows) < _ROW_SHAPES:
            _compiled_rows.add(key)
        return size if key in _compiled_rows else 4 if rows <= 4 else _SLAB

    def call(batches: tuple[tf.Tensor, ...], *arguments: object) -> tf.Tensor:
        batches = tuple(tf.convert_to_tensor(batch) for batch in batches)
        known = any(batch.shape[0] for batch in batches)
        if known and not tf.executing_eagerly():
            return compiled(batches, *arguments)
        if tf.executing_eagerly():
            rows, size = batches[0].shape[0], size_for(batches, arguments)
            starts = range(0, max(rows, 1), size)
            parts = [tuple(batch[i : i + size] for batch in batches) for i in starts]
            done = [compiled(tuple(_padded(x, size) for x in part), *arguments) for part in parts]
            return (done[0] if len(done) == 1 else tf.concat(done, 0))[:rows]
        rows = tf.shape(batches[0])[0]
        size = padded_size(tf.maximum(rows, 1), 4)  # some ops fail without any row
        padded = tuple(_padded(batch, size) for batch in batches)
        return compiled(padded, *arguments)[:rows]

    return call


def in_slabs(
    function: Callable[..., tf.Tensor], batches: tuple[tf.Tensor, ...], *arguments: object
) -> tf.Tensor:
    """Calls a function of `by_rows` on some rows after the other; it compiles for 5 sizes in all.

    Args:
        function: made by `by_rows`; its result has the rank and dtype of the first batch.
        batches: tensors [R, …], the other axes static.
        arguments: as the function takes them.

    Returns:
        The function's result for all rows.
    """
    rows = tf.shape(batches[0])[0]
    few = tf.reduce_sum(tf.cast(rows > [4, 8, 16, 32], tf.int32))
    slab = tf.where(rows > _SLAB // 2, _SLAB, tf.bitwise.left_shift(4, few))
    count = tf.maximum(1, -(-rows // slab))

    def cut(batch: tf.Tensor) -> tf.Tensor:
        rest = batch.shape[1:]
        whole = tf.pad(batch, [[0, count * slab - rows]] + [[0, 0]] * len(rest))
        return tf.reshape(whole, tf.concat([[count, slab], rest], 0))

    done = tf.map_fn(
        lambda slabs: function(slabs, *arguments),
        tuple(map(cut, batches)),
        fn_output_signature=tf.TensorSpec([None] * batches[0].shape.rank, batches[0].dtype),
    )
    return tf.reshape(done, tf.concat([[count * slab], tf.shape(done)[2:]], 0))[:rows]


def in_xla() -> bool:
    """Whether a function that the caller compiles with XLA is being traced."""
    if tf.executing_eagerly():
        return False
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def not_constant(tensors: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
    """The same tensors, of which XLA computes nothing while it compiles; where `in_xla`.

    What they are computed from is computed once, too, and not in the loops that use them.
    """
    return tuple(xla.optimization_barrier(*tensors))


def worth_compiling(images: tf.Tensor) -> bool:
    """Whether to compile for the shape of just these images, rather than for rows of any.

    In a graph, which is traced for one shape of small images, always; eagerly, for the first
    few shapes. Large images are as quick in rows.
    """
    shape = images.shape[1:]
    if None in shape:
        return False
    if in_xla():
        return True
    if shape.num_elements() > _VALUES:
        return False
    if tf.executing_eagerly():
        key = (padded_size(images.shape[0], 4), *shape)
        if key not in _compiled_shapes and len(_compiled_shapes) < _SHAPES:
            _compiled_shapes.add(key)
        return key in _compiled_shapes
    return True


def padded_size(size: int | tf.Tensor, step: int = 1) -> int | tf.Tensor:
    """The next of a few sizes: at most an eighth larger, but a multiple of `step`."""
    if tf.executing_eagerly() or not tf.is_tensor(size):
        size = int(size)
        while 8 * 2 * step <= size:
            step *= 2
        return size + -size % step
    steps = step * 2 ** tf.range(20)
    step = tf.reduce_max(tf.where(8 * steps <= size, steps, step))
    return size + -size % step


def power_of_two(size: int | tf.Tensor) -> int | tf.Tensor:
    """The next power of two."""
    if tf.executing_eagerly() or not tf.is_tensor(size):
        return 1 << max(0, int(size) - 1).bit_length()
    return 2 ** tf.reduce_sum(tf.cast(size > 2 ** tf.range(31), tf.int32))


def _padded(batch: tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """Adds rows of zeros up to `size`."""
    rows = tf.shape(batch)[0]
    paddings = [[0, size - rows]] + [[0, 0]] * (batch.shape.rank - 1)
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
