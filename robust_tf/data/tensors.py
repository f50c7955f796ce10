"""Large arrays that TensorFlow reads where they are; `tf.constant` would copy them twice."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# Bytes; the memory of a tensor begins at a multiple of it.
_ALIGNMENT = 64


def empty(shape: Sequence[int], dtype: type) -> np.ndarray:
    """As `numpy.empty`, in memory that a tensor may have.

    Args:
        shape: any shape.
        dtype: a type of numbers, such as `np.uint8`.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def as_tensor(array: np.ndarray) -> tf.Tensor:
    """An array that `empty` made, as a tensor in host memory, of the same memory.

    Args:
        array: with its content, which must not be changed any more.
    """
    with tf.device("CPU"):
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
