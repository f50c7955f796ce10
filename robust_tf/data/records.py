"""Images in a file, read by index: NumPy's format, uint8, each image a record of fixed size.

`numpy.load(path, mmap_mode="r")` reads such a file too. Who writes it when, and whether it is
what it should be, is known to `prepared`.
"""

import dataclasses
import functools
import math
import os
import weakref
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from robust_tf.errors import Unavailable

# Bytes before the first image; room for the digits of any number of images, so that the header
# can be written again once that is known.
_HEADER = 128


def header(shape: Sequence[int]) -> bytes:
    """The beginning of a file of images [N, H, W, C]."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    start = b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little")
    return start + text.ljust(_HEADER - 11).encode() + b"\n"


@dataclasses.dataclass(frozen=True)
class Records:
    """The images of a file, or the first of them; equal where path and shape are.

    The file stays open while this value lives. Memory is taken for the images that are asked for
    and no others: the file is read, not mapped.

    Attributes:
        path: the file.
        shape: (N, H, W, C).
    """

    path: str
    shape: tuple[int, ...]

    def __reduce__(self) -> tuple:
        """For another process, which opens the file again."""
        return _reopened, (self.path, self.shape)

    @functools.cached_property
    def _descriptor(self) -> int:
        descriptor = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def problem(self) -> str | None:
        """What is wrong with a file of just these images; None if nothing is to be seen.

        Raises:
            OSError: if it cannot be read.
        """
        size, expected = os.fstat(self._descriptor).st_size, _HEADER + math.prod(self.shape)
        if size != expected:
            return f"images.npy has {size:,} bytes instead of {expected:,}"
        if os.pread(self._descriptor, _HEADER, 0) != header(self.shape):
            return f"images.npy has not the header of {self.shape[0]:,} such images"
        return None

    def read(self, index: np.ndarray) -> np.ndarray:
        """The images of the given indices.

        Args:
            index: integers in 0 … N-1, shape [B].

        Returns:
            uint8 array of shape [B, H, W, C].

        Raises:
            ValueError: if an index is outside.
            OSError: if the file cannot be read, or ends before an image does.
        """
        outside = index[(index < 0) | (index >= self.shape[0])]
        if len(outside):
            raise ValueError(f"index {outside[0]} is not in 0 … {self.shape[0] - 1}")
        size = math.prod(self.shape[1:])
        images = np.empty((len(index), size), np.uint8)
        for image, place in zip(images, index.tolist()):
            content = os.pread(
                self._descriptor, size, _HEADER + place * size
            )  # lets other threads run
            if len(content) != size:
                raise OSError(f"{self.path} ends within image {place}: it was cut while it is used")
            image[:] = np.frombuffer(content, np.uint8)
        return images.reshape(-1, *self.shape[1:])

    def at(self, index: tf.Tensor | np.ndarray | Sequence[int]) -> tf.Tensor:
        """As `read`, a tensor; callable in a graph."""
        with tf.device("CPU"):
            index = tf.convert_to_tensor(index)
            # Not stateful: what is read depends on the index only, so that tf.data may read
            # several batches at once where it has to be deterministic.
            images = tf.numpy_function(self.read, [index], tf.uint8, stateful=False)
            return tf.ensure_shape(images, [*index.shape, *self.shape[1:]])

    def first(self, count: int) -> "Records":
        """The first `count` images."""
        return Records(self.path, (min(count, self.shape[0]), *self.shape[1:]))


def _reopened(path: str, shape: tuple[int, ...]) -> Records:
    if not os.path.isfile(path):
        problem = "images on disk are read where they are; this machine does not see them there"
        raise Unavailable("memory_budget", path, problem)
    return Records(path, shape)
